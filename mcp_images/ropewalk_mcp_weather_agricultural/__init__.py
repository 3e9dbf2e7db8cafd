"""An MCP server for fields and gardens: soil, water, growing degree days and frost. Its source is Open-Meteo."""
