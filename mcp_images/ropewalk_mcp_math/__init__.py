"""An MCP server that calculates: add, subtract, multiply, divide and power. It never evaluates text."""
