"""A load client that costs little itself: raw HTTP/1.1 over kept connections, a fixed number of requests."""

from __future__ import annotations

import asyncio
import json
import time

_HEAD = b"POST /query HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "


async def requests_per_second(port: int, *, clients: int, requests: int, query: str = "What is 6 times 7?") -> float:
    """POST /query `requests` times over `clients` connections to 127.0.0.1. Raises on any status but 200."""
    left = iter(range(requests))
    began = time.perf_counter()
    await asyncio.gather(*(_client(port, number, left, query) for number in range(clients)))
    return requests / (time.perf_counter() - began)


async def _client(port: int, number: int, left: object, query: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for each in left:  # type: ignore[attr-defined]
            # A session of its own each time: what is compared keeps no history either.
            body = json.dumps({"query": query, "session_id": f"s{number}-{each}"}).encode()
            writer.write(_HEAD + f"{len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            lower = answer.lower()
            length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            text = await reader.readexactly(length)
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise RuntimeError(f"{answer!r} {text!r}")
    finally:
        writer.close()
