"""An MCP server that searches the web by DuckDuckGo. It never opens the pages that it finds."""
