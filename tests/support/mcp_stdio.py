"""Runs the stdio bridge in the test's own event loop, with real children, and speaks to it as a client by hand."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ropewalk_mcp_stdio.options import PER_SESSION, SHARED, ServeOptions
from ropewalk_mcp_stdio.program import Program, Timing
from ropewalk_mcp_stdio.serve import serve
from waiting import eventually

SUPPORT = Path(__file__).parent
BY_HAND = (sys.executable, str(SUPPORT / "mcp_stdio_server.py"))
QUICK = Timing(start=20, steady=0.2, first_pause=0.02, longest_pause=0.1, wait=5, drain=2)
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}},
}
__all__ = ["ACCEPT", "BY_HAND", "META", "PER_SESSION", "QUICK", "SHARED", "Peer", "bridged"]


@contextlib.asynccontextmanager
async def bridged(
    *command: str,
    mode: str = SHARED,
    timing: Timing = QUICK,
    ready: bool = True,
    max_sessions: int = 100,
    idle_timeout_seconds: int = 300,
    **environment: str,
) -> AsyncIterator[str]:
    """Yield the base URL of a bridge that serves the command (default: the server by hand), once it is ready."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    options = ServeOptions("tested", 0, "/mcp", mode, max_sessions, idle_timeout_seconds, None, None, command)
    program = Program("tested", command or BY_HAND, {**os.environ, **environment}, timing=timing)
    task = asyncio.create_task(serve(options, program, listener, signals=False))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(verify=False) as http:

            async def is_ready() -> bool:
                if task.done():
                    raise RuntimeError("the bridge ended before it was ready") from task.exception()
                return (await http.get(f"{url}/ready")).status_code == 200

            if ready:
                await eventually(is_ready)
        yield url
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@dataclass
class Peer:
    """A client by hand: of the older era once it has initialized, and of the stateless one with `stateless`."""

    url: str
    http: httpx.AsyncClient
    session: str | None = None
    number: int = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, url: str) -> "AsyncIterator[Peer]":
        async with httpx.AsyncClient(timeout=30, verify=False) as http:
            yield cls(f"{url}/mcp", http)

    @property
    def headers(self) -> dict[str, str]:
        return ACCEPT | ({"mcp-session-id": self.session} if self.session else {})

    async def post(self, message: Any, **headers: str) -> httpx.Response:
        return await self.http.post(self.url, content=json.dumps(message), headers=self.headers | headers)

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
        params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
        answer = await self.post({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params})
        assert answer.status_code == 200, answer.text
        self.session = answer.headers["mcp-session-id"]
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return dict(answer.json()["result"])

    def request(self, method: str, params: Any = None) -> dict[str, Any]:
        self.number += 1
        return {"jsonrpc": "2.0", "id": self.number, "method": method} | ({} if params is None else {"params": params})

    async def ask(self, method: str, params: Any = None) -> dict[str, Any]:
        """Send a request and return its answer, whatever came before it."""
        return messages(await self.post(self.request(method, params)))[-1]

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool of the server by hand and return its text, as JSON where it is some."""
        answer = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        return content(answer)

    async def stateless(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        params = {**(params or {})}
        params["_meta"] = META | params.get("_meta", {})
        named = params.get("name") or params.get("uri")
        own = {"mcp-protocol-version": "2026-07-28", "mcp-method": method} | ({"mcp-name": named} if named else {})
        return await self.post(self.request(method, params), **{**own, **headers})

    @contextlib.asynccontextmanager
    async def stream(self, message: Any = None, **headers: str) -> "AsyncIterator[AsyncIterator[dict[str, Any]]]":
        """Open the GET stream, or POST a message and take what comes, one by one."""
        method, body = ("GET", None) if message is None else ("POST", json.dumps(message))
        async with self.http.stream(method, self.url, content=body, headers=self.headers | headers) as response:
            assert response.status_code == 200
            if message is None:
                # The bridge's first comment: from here on nothing is missed.
                lines = response.aiter_lines()
                await anext(lines)
            else:
                lines = response.aiter_lines()
            yield (json.loads(line[6:]) async for line in lines if line.startswith("data: "))


def opened(pipe: Path) -> int:
    """Open a named pipe for writing; an OSError says that nobody reads it."""
    return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)


class HeldStarts:
    """The server by hand, each start of which takes until the test lets it go on."""

    def __init__(self, folder: Path) -> None:
        self._pipe = folder / "starts"
        os.mkfifo(self._pipe)
        held = f"import runpy; open({str(self._pipe)!r}).close(); runpy.run_path({BY_HAND[1]!r}, run_name='__main__')"
        self.command = (sys.executable, "-c", held)

    async def let_go(self) -> None:
        """Wait until a child starts, and let it."""
        os.close(await eventually(lambda: opened(self._pipe), "a child starts"))


def pass_time(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the running loop's clock forward, and with it all that is due; keep below what a request may take."""
    loop = asyncio.get_running_loop()
    now = loop.time
    patch.setattr(loop, "time", lambda: now() + seconds)


@contextlib.asynccontextmanager
async def call_in_flight(peer: Peer, folder: Path) -> AsyncIterator[None]:
    """Have the child at work on a call of the peer until the block ends, and see the call end well then."""
    pipe = folder / "held"
    os.mkfifo(pipe)
    call = asyncio.create_task(peer.call("hold", pipe=str(pipe)))
    writer = await eventually(lambda: opened(pipe), "the child has taken the call")
    try:
        yield
        os.write(writer, b"held to the end")
    finally:
        os.close(writer)
    assert await call == "held to the end"


def messages(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the messages of an answer, which came as JSON or as a stream of events."""
    if response.headers["content-type"].startswith("application/json"):
        return [response.json()]
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def content(answer: dict[str, Any]) -> Any:
    assert "result" in answer, answer
    text = answer["result"]["content"][0]["text"]
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text
