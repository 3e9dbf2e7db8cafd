"""Serves any stdio MCP server over streamable HTTP. It passes messages on as they are and knows no tool."""
