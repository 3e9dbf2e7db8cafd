"""What every MCP server of Ropewalk shares: serving, health, metrics, logs and errors. It knows no tool."""
