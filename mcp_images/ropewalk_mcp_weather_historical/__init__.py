"""An MCP server for the weather of any day since 1940. Its source is Open-Meteo."""
