"""A load client that costs little itself: raw HTTP/1.1 over kept connections, a fixed number of requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import count

_HEAD = b"POST /query HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"


async def requests_per_second(
    port: int, *, clients: int, requests: int, query: str = "What is 6 times 7?", sessions: int | None = None
) -> float:
    """POST /query `requests` times over `clients` connections to 127.0.0.1. Raises on any status but 200.

    Each request is a session of its own, or they take turns in `sessions`.
    """
    left = iter(range(requests))
    began = time.perf_counter()
    await asyncio.gather(*(_client(port, left, query, sessions) for _ in range(clients)))
    return requests / (time.perf_counter() - began)


async def _client(port: int, left: Iterator[int], query: str, sessions: int | None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for each in left:
            session = f"s{_unique()}" if sessions is None else f"s{each % sessions}"
            body = json.dumps({"query": query, "session_id": session}).encode()
            writer.write(_HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            lower = answer.lower()
            length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            text = await reader.readexactly(length)
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise RuntimeError(f"{answer!r} {text!r}")
    finally:
        writer.close()


async def first_token_delays(port: int, *, streams: int) -> list[float]:
    """Seconds from the moment that the model sent its first text (which is that text) until it was here."""
    delays = []
    for _ in range(streams):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"query": "now?"}).encode()
        head = _HEAD + f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        await reader.readuntil(b"event: text\ndata: ")
        line = await reader.readline()
        delays.append(time.monotonic() - float(json.loads(line)["text"]))
        writer.close()
    return delays


_numbers = count()


def _unique() -> int:
    return next(_numbers)
