"""Connections that no request is sent on once they are a second old, to servers without sessions.

A Service chooses a replica for each connection, not for each request: a connection that is kept stays with its replica,
while others get no calls, and until the replica's end. A pod that goes still serves for some seconds in which new
connections lead elsewhere; a request that meets the close of its connection after that may be lost, and nobody knows
whether the server has worked on it. So none is on its way on an old connection then.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx2

SECONDS = 1.0
"""With the time until a pod's leaving is known everywhere it must be less than such a pod still serves
(PRE_STOP_SECONDS of the operator)."""
LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=SECONDS)
"""Of the connections of one age: those that are idle end with the next answer, also where others are still busy."""


@dataclass(eq=False, slots=True)
class _Pool:
    transport: httpx2.AsyncBaseTransport
    answers: int = 0
    """That have not been read to their end."""


class YoungConnections(httpx2.AsyncBaseTransport):
    """A transport made anew by `make` when it is SECONDS old; the former one ends with its last answer.

    Requests in a session stay with the connections that they have; answers without an end have one each. The clock
    returns seconds.
    """

    def __init__(self, make: Callable[[], httpx2.AsyncBaseTransport], clock: Callable[[], float]) -> None:
        self._make = make
        self._clock = clock
        self._pool = _Pool(make())
        self._since = clock()
        self._former: set[_Pool] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        if "mcp-session-id" not in request.headers and self._clock() - self._since >= SECONDS:
            await self._renew()
        pool = self._pool
        if request.extensions["timeout"]["read"] is None:
            # A stream without an end would keep all that were opened beside it.
            pool = _Pool(self._make())
            self._former.add(pool)
        pool.answers += 1
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            await self._ended(pool)
            raise
        response.stream = _Answer(response.stream, self, pool)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in (self._pool, *self._former):
            await pool.transport.aclose()

    async def _renew(self) -> None:
        former, self._pool, self._since = self._pool, _Pool(self._make()), self._clock()
        if former.answers:
            self._former.add(former)
        else:
            await former.transport.aclose()

    async def _ended(self, pool: _Pool) -> None:
        pool.answers -= 1
        if not pool.answers and pool in self._former:
            self._former.discard(pool)
            await pool.transport.aclose()


class _Answer(httpx2.AsyncByteStream):
    """Tells when it is read or given up."""

    def __init__(self, stream: object, connections: YoungConnections, pool: _Pool) -> None:
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError(stream)
        self._stream = stream
        self._connections = connections
        self._pool: _Pool | None = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        try:
            await self._stream.aclose()
        finally:
            if pool is not None:
                await self._connections._ended(pool)
