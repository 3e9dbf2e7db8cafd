"""An MCP server for the weather now and of the next 16 days. Its source is Open-Meteo."""
