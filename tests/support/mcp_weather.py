"""A weather server over the wire, in front of the stand-in for Open-Meteo or of an upstream that is broken."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from clock import Clock
from mcp_caller import Caller
from mcp_wire import served
from open_meteo_stand_in.app import create_app
from ropewalk_mcp_common.server import ToolServer
from ropewalk_mcp_upstream.client import Upstream
from ropewalk_mcp_weather.open_meteo import LIMITS, OpenMeteo

# A Wednesday in spring, 14:00 in Berlin.
NOW = datetime(2026, 4, 15, 12, 30, tzinfo=UTC)


class Recorded:
    """An application that writes down what it was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.queries: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of this application."""
        if scope["type"] == "http":
            self.queries.append(f"{scope['path']}?{scope['query_string'].decode()}")
        await self._app(scope, receive, send)


def today() -> date:
    """Return the day of NOW."""
    return NOW.date()


@asynccontextmanager
async def calling(
    server: Callable[[OpenMeteo, CollectorRegistry], ToolServer], upstream_url: str, clock: Clock | None = None
) -> AsyncIterator[Caller]:
    """Serve this server with an upstream at this URL."""
    registry, clock = CollectorRegistry(), clock or Clock()
    upstream = Upstream("Open-Meteo", registry, trust_environment=False, limits=LIMITS, clock=clock, sleep=clock.sleep)
    async with served(server(OpenMeteo(upstream, upstream_url), registry).app()) as url:
        yield Caller(url)


@asynccontextmanager
async def with_stand_in(
    server: Callable[[OpenMeteo, CollectorRegistry], ToolServer], clock: Clock | None = None
) -> AsyncIterator[tuple[Caller, Recorded]]:
    """Serve this server with the stand-in for Open-Meteo, at NOW."""
    recorded = Recorded(create_app(lambda: NOW))
    async with served(recorded) as url, calling(server, url, clock) as caller:
        yield caller, recorded
