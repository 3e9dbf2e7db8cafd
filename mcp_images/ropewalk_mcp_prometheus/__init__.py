"""An MCP server that asks a Prometheus: query, range_query, list_metrics and server_info. It never writes to it."""
