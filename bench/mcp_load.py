"""Clients of an MCP server that cost little themselves: raw HTTP/1.1 over kept connections, a nonce in every call.

All clients use the same JSON-RPC ids, so that an answer that reaches the wrong one is noticed by its nonce.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_REVISION, _STATELESS = "2025-11-25", "2026-07-28"
_LONGEST_ANSWER_SECONDS = 30.0
"""An answer that takes longer is lost."""
_PAUSE_SECONDS = 0.05
"""After a refusal, before the next call: a server that refuses is not called in a tight loop."""
_REOPEN_SECONDS = 1.0
"""The same after a refusal of initialize."""


@dataclass
class Tally:
    """What clients saw."""

    right: int = 0
    crossed: int = 0
    lost: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By HTTP status and JSON-RPC code."""
    slowest_seconds: float = 0.0

    @property
    def sent(self) -> int:
        """Calls in all."""
        return self.right + self.crossed + self.lost + self.refused.total()


class Client:
    """One client: of the era with sessions, or of the stateless one."""

    def __init__(self, port: int, tally: Tally, *, stateless: bool = False) -> None:
        self._port, self.tally, self._stateless = port, tally, stateless
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._session = ""
        self._id = 0

    async def open(self) -> None:
        """Open a session, where the era has one; a refusal is counted, and it is tried again."""
        if self._stateless:
            return
        self._session = ""
        hello = {"protocolVersion": _REVISION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        while True:
            status, headers, message = await self._post("initialize", hello, {})
            if status == 200 and "result" in message:
                break
            self.tally.refused[f"initialize: {_refusal(status, message)}"] += 1
            await asyncio.sleep(_REOPEN_SECONDS)
        self._session = headers.get("mcp-session-id", "")
        status, _, message = await self._post("notifications/initialized", None, {})
        if status != 202:
            raise RuntimeError(f"initialized was refused: {_refusal(status, message)}")

    async def call_until(self, moment: float) -> None:
        """Call one after the other until a moment of time.monotonic()."""
        while time.monotonic() < moment:
            began = time.monotonic()
            if not await self.call():
                await asyncio.sleep(_PAUSE_SECONDS)
            self.tally.slowest_seconds = max(self.tally.slowest_seconds, time.monotonic() - began)

    async def call(self) -> bool:
        """Call the tool echo, and count what comes of it; return whether it was right."""
        nonce = secrets.token_hex(8)
        extra = {"mcp-method": "tools/call", "mcp-name": "echo"} if self._stateless else {}
        try:
            async with asyncio.timeout(_LONGEST_ANSWER_SECONDS):
                status, _, message = await self._post(
                    "tools/call", {"name": "echo", "arguments": {"nonce": nonce}}, extra
                )
        except (OSError, EOFError, TimeoutError, ValueError):
            self.close()
            self.tally.lost += 1
            return False
        if status == 200 and "result" in message:
            right: bool = message["id"] == self._id and message["result"]["content"] == [
                {"type": "text", "text": nonce}
            ]
            self.tally.right += right
            self.tally.crossed += not right
            return right
        self.tally.refused[_refusal(status, message)] += 1
        if status == 404:
            await self.open()
        return False

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _post(
        self, method: str, params: dict[str, Any] | None, extra: Mapping[str, str]
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            self._id += 1
            message |= {"id": self._id, "params": params | ({"_meta": _META} if self._stateless else {})}
        body = json.dumps(message).encode()
        revision = _STATELESS if self._stateless else _REVISION
        headers = {
            "host": f"127.0.0.1:{self._port}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(body)),
            **({"mcp-session-id": self._session} if self._session else {}),
            **({} if method == "initialize" else {"mcp-protocol-version": revision}),
            **extra,
        }
        head = "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(head.encode() + body)
        status, received, content = await _response(reader)
        if received.get("connection") == "close":
            self.close()
        return status, received, _answer(received.get("content-type", ""), content, self._id)


_META = {
    "io.modelcontextprotocol/protocolVersion": _STATELESS,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def _response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one whole HTTP/1.1 response."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    if headers.get("transfer-encoding") != "chunked":
        return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))
    content = b""
    while size := int(await reader.readline(), 16):
        content += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return int(lines[0].split()[1]), headers, content


def _answer(kind: str, content: bytes, request_id: int) -> dict[str, Any]:
    """Return the JSON-RPC answer in a body, or {}; of a stream of events, the message with the request's id."""
    if kind.startswith("application/json") and content:
        message: dict[str, Any] = json.loads(content)
        return message
    for line in content.splitlines():
        if line.startswith(b"data: {"):
            message = json.loads(line[6:])
            if message.get("id") == request_id:
                return message
    return {}


def _refusal(status: int, message: dict[str, Any]) -> str:
    return f"HTTP {status} {message.get('error', {}).get('code', 'without a JSON-RPC error')}"
