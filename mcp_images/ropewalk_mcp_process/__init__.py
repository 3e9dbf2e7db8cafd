"""What every process has that serves MCP, the stdio bridge too: log lines, names, a socket. It knows no SDK."""

__version__ = "0.1.0"
