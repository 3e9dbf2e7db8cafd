"""What the MCP servers of Ropewalk share: serving, health, metrics and errors. It knows no tool."""
