"""The operator's connection to a server on loopback that answers as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from ropewalk_operator.guard import Guard
from ropewalk_operator.kube import Kube
from ropewalk_operator.names import FIELD_MANAGER


@asynccontextmanager
async def answered_by(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], guard: Guard, *, agent: str = FIELD_MANAGER
) -> AsyncIterator[Kube]:
    """A connection to a server that answers everything so."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(application) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        kube = Kube(configuration, guard, agent=agent)
        try:
            yield kube
        finally:
            await kube.close()
