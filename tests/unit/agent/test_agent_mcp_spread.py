"""Calls spread over the replicas behind one address: connections to a server without sessions end now and then."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_mcp import Asked, Rogue, connected_to, named
from clock import Clock
from mcp_wire import served
from private_ca import PrivateCa
from ropewalk_agent.tools import mcp, spread
from ropewalk_agent.tools.spread import Spread


@pytest.fixture(autouse=True)
def no_listing_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 3600.0)


@pytest.fixture
def short_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "REQUESTS", 8)


class Balancer:
    """Gives each new connection to the next of its replicas, as a Service does; a replica is a port."""

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        self.connections = 0
        self._pipes: set[asyncio.Task[None]] = set()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.ports[self.connections % len(self.ports)]
        self.connections += 1
        replica_reader, replica_writer = await asyncio.open_connection("127.0.0.1", port)
        for pipe in (self._pipe(reader, replica_writer), self._pipe(replica_reader, writer)):
            task = asyncio.create_task(pipe)
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)


@asynccontextmanager
async def balanced(balancer: Balancer) -> AsyncIterator[str]:
    server = await asyncio.start_server(balancer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


def port(base: str) -> int:
    return int(base.rsplit(":", 1)[1])


@pytest.mark.usefixtures("short_connections")
async def test_calls_one_after_the_other_reach_every_replica_and_one_that_comes_later() -> None:
    replicas = [Rogue(), Rogue(), Rogue()]
    async with served(replicas[0]) as one, served(replicas[1]) as two, served(replicas[2]) as three:
        balancer = Balancer(port(one), port(two))
        async with balanced(balancer) as url, connected_to(url) as connection:
            add = named(connection, "add")

            async def calls(count: int) -> Counter[int]:
                before = [replica.count("tools/call") for replica in replicas]
                for _ in range(count):
                    assert (await add.call({})).outcome == "ok"
                return Counter({i: each.count("tools/call") - before[i] for i, each in enumerate(replicas)})

            first = await calls(6 * spread.REQUESTS)
            assert min(first[0], first[1]) >= 2 * spread.REQUESTS
            balancer.ports.append(port(three))
            assert (await calls(6 * spread.REQUESTS))[2] >= spread.REQUESTS
        # One connection more for each REQUESTS requests, and not one for each request.
        assert balancer.connections <= 12 + 4


@pytest.mark.usefixtures("short_connections")
async def test_calls_at_once_spread_too() -> None:
    replicas = [Rogue(), Rogue(), Rogue()]
    async with served(replicas[0]) as one, served(replicas[1]) as two, served(replicas[2]) as three:
        balancer = Balancer(port(one), port(two))
        async with balanced(balancer) as url, connected_to(url) as connection:

            async def calls(rounds: int) -> None:
                for _ in range(rounds):
                    await asyncio.gather(*(named(connection, "add").call({}) for _ in range(8)))

            await calls(10)
            balancer.ports.append(port(three))
            await calls(10)
    counts = [replica.count("tools/call") for replica in replicas]
    assert min(counts[:2]) >= 20
    assert counts[2] > 0, "what comes later is reached too"


class Sessions(Rogue):
    """A server of the older era that hands out a session."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def told(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"mcp-session-id", b"one"))
            await send(message)

        await super().__call__(scope, receive, told)

    async def _serve(self, asked: Any) -> None:
        if asked.method == "server/discover":
            await asked.answer(b"", status=404)
        elif asked.method == "initialize":
            info = {"name": "older", "version": "1"}
            await asked.result({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info})
        elif asked.method == "notifications/initialized":
            await asked.answer(b"", status=202)
        else:
            await super()._serve(asked)


async def test_a_server_that_hands_out_sessions_keeps_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "REQUESTS", 4)
    server = Sessions()
    async with served(server) as base, connected_to(f"{base}/mcp") as connection:
        for _ in range(10):
            assert (await named(connection, "add").call({})).outcome == "ok"
        assert connection.status.info is not None
        assert connection.status.info.has_session
    in_session = [one for one in server.asked if "mcp-session-id" in one.headers]
    assert len(in_session) > 10
    assert not any(one.headers.get("connection") == "close" for one in in_session)


async def test_a_redirect_costs_no_connection() -> None:
    rogue = Rogue()

    async def redirect(asked: Asked) -> bool:
        if asked.path == "/mcp":
            await asked.answer(b"see there", status=307, location="/mcp/")
        return asked.path == "/mcp"

    rogue.before = redirect
    async with served(rogue) as base:
        balancer = Balancer(port(base))
        async with balanced(balancer) as url, connected_to(url) as connection:
            for _ in range(10):
                assert (await named(connection, "add").call({})).outcome == "ok"
    assert balancer.connections <= 2


async def test_a_server_behind_tls_keeps_its_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spread, "REQUESTS", 2)
    authority, server = PrivateCa(), Rogue()
    async with (
        served(server, **authority.server(tmp_path)) as base,
        connected_to(f"{base}/mcp", caBundle=authority.pem) as connection,
    ):
        for _ in range(5):
            await named(connection, "add").call({})
    assert not any(one.headers.get("connection") == "close" for one in server.asked)


def test_a_connection_ends_after_so_many_requests_or_so_much_time() -> None:
    clock = Clock(0.0)
    due = Spread(clock)
    assert [due.is_due() for _ in range(2 * spread.REQUESTS)].count(True) == 2
    clock.now += spread.SECONDS
    assert [due.is_due(), due.is_due()] == [True, False]
