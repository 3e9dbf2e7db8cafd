"""MCP servers on loopback that misbehave as told, and a connection to one. The protocol is written out by hand."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from mcp_wire import served
from ropewalk_agent.config import McpServerConfig
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import Tool
from ropewalk_agent.tools.mcp import Connection
from waiting import eventually

Send = Callable[[dict[str, Any]], Awaitable[None]]
ADD: dict[str, Any] = {"name": "add", "inputSchema": {"type": "object"}}
READ = {"name": "read", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}


@dataclass
class Asked:
    """One HTTP request as it arrived."""

    path: str
    headers: dict[str, str]
    message: dict[str, Any]
    send: Send = field(repr=False)

    @property
    def method(self) -> str:
        """The JSON-RPC method."""
        return str(self.message.get("method", ""))

    async def answer(self, body: bytes | dict[str, Any], *, status: int = 200, **headers: str) -> None:
        """Send a whole response; a dict is JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", **{name.replace("_", "-"): to for name, to in headers.items()}}
        pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": content})

    async def result(self, result: dict[str, Any]) -> None:
        """Answer the JSON-RPC request."""
        await self.answer({"jsonrpc": "2.0", "id": self.message["id"], "result": result})

    async def text(self, text: str) -> None:
        """Answer a tools/call as a server should."""
        await self.result({"resultType": "complete", "content": [{"type": "text", "text": text}]})


class Rogue:
    """An MCP server of the newer era that answers tools/call by `on_call` and anything by `before`, where it is set."""

    def __init__(self, *tools: dict[str, Any]) -> None:
        self.tools: list[Any] = list(tools) or [ADD, READ]
        self.asked: list[Asked] = []
        self.on_call: Callable[[Asked], Awaitable[None]] | None = None
        self.before: Callable[[Asked], Awaitable[bool]] | None = None
        """Returns whether it has answered."""

    def count(self, method: str) -> int:
        """How often this JSON-RPC method was asked for."""
        return sum(one.method == method for one in self.asked)

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Serve as an ASGI application."""
        if scope["type"] != "http":
            return
        body = await Request(scope, receive).body()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["path"], headers, json.loads(body or b"{}"), send)
        self.asked.append(asked)
        if self.before is not None and await self.before(asked):
            return
        await self._serve(asked)

    async def _serve(self, asked: Asked) -> None:
        if asked.method == "server/discover":
            capabilities: dict[str, Any] = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            await asked.result({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **capabilities})
        elif asked.method == "tools/list":
            page = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": self.tools}
            await asked.result(page)
        elif asked.method == "tools/call" and self.on_call is not None:
            await self.on_call(asked)
        elif asked.method == "tools/call":
            await asked.text("done")
        else:
            await asked.answer(b"", status=405)


@asynccontextmanager
async def connected_to(
    url: str, *, wait: bool = True, metrics: Metrics | None = None, seconds: float = 5.0, **config: Any
) -> AsyncIterator[Connection]:
    """Connect to an MCP server with these fields of its configuration."""
    server = McpServerConfig.model_validate({"name": "rogue", "url": url, **config})
    connection = Connection(server, tool_timeout_seconds=seconds, metrics=metrics or Metrics(), changed=lambda: None)
    connection.start()
    try:
        if wait:
            await eventually(lambda: connection.status.state == "connected")
        yield connection
    finally:
        await connection.stop()


@asynccontextmanager
async def rogue_connection(rogue: Rogue, **options: Any) -> AsyncIterator[Connection]:
    """Serve this server and connect to it."""
    async with served(rogue) as base, connected_to(f"{base}/mcp", **options) as connection:
        yield connection


def named(connection: Connection, name: str) -> Tool:
    """The tool that the model knows by this name."""
    return next(tool for tool in connection.tools if tool.name == name)
