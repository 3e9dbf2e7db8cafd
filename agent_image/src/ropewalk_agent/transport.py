"""Uvicorn's HTTP protocol with fewer system calls: what is written in one round of the loop leaves in one piece.

Uvicorn writes the head and the body of an answer one after the other, and each write is a system call that lets go of
the interpreter's lock, which the worker then holds for a while. Delays nothing beyond the round of the loop it is in.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LOOK_SECONDS = 0.05


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol over a transport that gathers writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the gathering transport in between."""
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]


def close_kept(connections: Iterable[object]) -> None:
    """Close those of a server's connections that were asked and are idle, and those that wait for an answer with it.

    One that has not been asked yet stays open: its request may be on its way.
    """
    for connection in _http(connections):
        if connection.cycle is not None:
            connection.shutdown()


async def until_arrived(connections: Collection[object], seconds: float) -> None:
    """Return when every connection has brought a whole request, or after `seconds`."""
    await _until(lambda: not any(_is_arriving(connection) for connection in _http(connections)), seconds)


async def until_websockets_closed(connections: Collection[object], seconds: float) -> None:
    """Return when no websocket is left, or after `seconds`."""
    await _until(lambda: len(_http(connections)) == len(connections), seconds)


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not is_so():  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(_LOOK_SECONDS)


def _is_arriving(connection: Protocol) -> bool:
    cycle = connection.cycle
    return cycle is None or (cycle.more_body and not cycle.response_complete)


def _http(connections: Iterable[object]) -> list[Protocol]:
    """Without websockets: their own routes close them."""
    return [connection for connection in connections if isinstance(connection, Protocol)]


class GatheringTransport:
    """Gathers what is written until the loop comes round; in all else the transport that it is given."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` behind all that was written before, in this round of the loop."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def close(self) -> None:
        """Send what is left, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._gathered:
            self._transport.write(b"".join(self._gathered))
            self._gathered.clear()
