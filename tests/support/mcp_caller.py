"""Calls the tools of an MCP server as its clients do, for tests that look at what they say."""

from typing import Any

import mcp
from mcp_types import Tool

Json = dict[str, Any]


class Caller:
    """Calls the tools of the server at this base URL, each over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def call(self, tool: str, **arguments: object) -> tuple[str, Json]:
        """Return text and data of a call that must succeed."""
        failed, text, data = await self._call(tool, arguments)
        assert not failed, text
        assert data is not None
        return text, data

    async def refused(self, tool: str, **arguments: object) -> str:
        """Return the error of a call that must fail."""
        failed, text, _ = await self._call(tool, arguments)
        assert failed, text
        return text

    async def tools(self) -> dict[str, Tool]:
        """Return the tools by their names."""
        async with mcp.Client(f"{self._url}/mcp") as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    async def _call(self, tool: str, arguments: Json) -> tuple[bool, str, Json | None]:
        async with mcp.Client(f"{self._url}/mcp") as client:
            result = await client.call_tool(tool, arguments)
        assert result.content[0].type == "text"
        return bool(result.is_error), result.content[0].text, result.structured_content
