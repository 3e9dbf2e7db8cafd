"""What every process has that serves MCP, the stdio bridge too: log lines and its own names. It knows no SDK."""
