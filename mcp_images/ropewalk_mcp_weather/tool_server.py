"""What the weather servers have in common as servers: one connection to Open-Meteo, and tools that only read."""

from collections.abc import Callable
from typing import Any

from mcp_types import ToolAnnotations
from prometheus_client import CollectorRegistry

from ropewalk_mcp_common.server import ToolServer
from ropewalk_mcp_weather.open_meteo import OpenMeteo


def weather_server(
    name: str, instructions: str, registry: CollectorRegistry, api: OpenMeteo, *tools: Callable[..., Any]
) -> ToolServer:
    """Return a server with these tools, which closes the API's connections when it ends."""
    server = ToolServer(name, instructions, registry, api.lifespan)
    for tool in tools:
        server.add_tool(tool, annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True))
    return server
