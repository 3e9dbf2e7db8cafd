"""Requests to a server without sessions go over connections that are young, and so to every replica of its Service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_mcp import Asked, Rogue, connected_to, named
from clock import Clock
from mcp_wire import served
from private_ca import PrivateCa
from ropewalk_agent.tools import mcp, spread
from ropewalk_agent.tools.spread import YoungConnections
from waiting import eventually


@pytest.fixture(autouse=True)
def no_listing_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 3600.0)


@pytest.fixture
def old_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "SECONDS", 0.0)


class Balancer:
    """Gives each new connection to the next of its replicas, as a Service does; a replica is a port."""

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        self.connections = 0
        self.open = 0

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
        self.open += 1
        replica_reader, replica_writer = await asyncio.open_connection("127.0.0.1", port)
        to_client = asyncio.create_task(self._pipe(replica_reader, writer))
        try:
            await self._pipe(reader, replica_writer)
            await to_client
        finally:
            self.open -= 1


@asynccontextmanager
async def balanced(balancer: Balancer) -> AsyncIterator[str]:
    server = await asyncio.start_server(balancer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


def port(base: str) -> int:
    return int(base.rsplit(":", 1)[1])


@pytest.mark.usefixtures("old_at_once")
async def test_calls_reach_every_replica_and_one_that_comes_later() -> None:
    replicas = [Rogue(), Rogue(), Rogue()]
    async with served(replicas[0]) as one, served(replicas[1]) as two, served(replicas[2]) as three:
        balancer = Balancer(port(one), port(two))
        async with balanced(balancer) as url, connected_to(url) as connection:
            for _ in range(4):
                assert (await named(connection, "add").call({})).outcome == "ok"
            balancer.ports.append(port(three))
            for _ in range(6):
                assert (await named(connection, "add").call({})).outcome == "ok"
    counts = [replica.count("tools/call") for replica in replicas]
    assert min(counts[:2]) >= 4
    assert counts[2] >= 2, "what comes later is reached too"


@asynccontextmanager
async def young(rogue: Rogue, clock: Clock) -> AsyncIterator[tuple[httpx2.AsyncClient, Balancer]]:
    """A client over young connections to one server, which closes none by itself, and what counts them on the way."""
    async with served(rogue, timeout_keep_alive=3600) as base:
        balancer = Balancer(port(base))
        async with balanced(balancer) as url:
            connections = YoungConnections(httpx2.AsyncHTTPTransport, clock)
            async with httpx2.AsyncClient(transport=connections, base_url=url) as client:
                yield client, balancer


def call(**headers: str) -> dict[str, Any]:
    """The options of a request that calls a tool."""
    return {"url": "", "json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, "headers": headers}


async def test_no_request_is_sent_on_a_connection_older_than_a_second_and_an_idle_old_one_is_closed() -> None:
    clock = Clock(0.0)
    async with young(Rogue(), clock) as (client, balancer):
        for _ in range(3):
            assert (await client.post(**call())).is_success
        assert balancer.connections == 1
        clock.now += spread.SECONDS
        assert (await client.post(**call())).is_success
        assert balancer.connections == 2
        await eventually(lambda: balancer.open == 1)


async def test_requests_at_once_all_leave_their_old_connections() -> None:
    clock = Clock(0.0)
    async with young(Rogue(), clock) as (client, balancer):
        await asyncio.gather(*(client.post(**call()) for _ in range(4)))
        before = balancer.connections
        clock.now += spread.SECONDS
        await asyncio.gather(*(client.post(**call()) for _ in range(4)))
        assert balancer.connections == before + 4
        await eventually(lambda: balancer.open == 4)


class Slow(Rogue):
    """Answers its first call when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.on_call = self._wait

    async def _wait(self, asked: Asked) -> None:
        self.on_call = None
        await self.may_answer.wait()
        await asked.text("at last")


async def grown_old(client: httpx2.AsyncClient, slow: Slow, clock: Clock) -> asyncio.Task[httpx2.Response]:
    """A call that is under way on a connection which has become old, while another is on a young one."""
    waiting = asyncio.create_task(client.post(**call()))
    await eventually(lambda: len(slow.asked) == 1)
    clock.now += spread.SECONDS
    assert (await client.post(**call())).is_success
    return waiting


async def test_an_answer_under_way_keeps_its_connection_until_it_has_arrived() -> None:
    clock, slow = Clock(0.0), Slow()
    async with young(slow, clock) as (client, balancer):
        waiting = await grown_old(client, slow, clock)
        assert balancer.open == 2
        slow.may_answer.set()
        assert "at last" in (await waiting).text
        await eventually(lambda: balancer.open == 1)


async def test_a_stream_without_an_end_keeps_no_connection_but_its_own() -> None:
    clock, slow = Clock(0.0), Slow()
    async with young(slow, clock) as (client, balancer):
        endless = httpx2.Timeout(5, read=None)
        stream = asyncio.create_task(client.post(**call(), timeout=endless))
        await eventually(lambda: len(slow.asked) == 1)
        assert (await client.post(**call())).is_success
        clock.now += spread.SECONDS
        assert (await client.post(**call())).is_success
        await eventually(lambda: balancer.open == 2, "the stream's and the young one")
        slow.may_answer.set()
        assert (await stream).is_success
        await eventually(lambda: balancer.open == 1)


async def test_a_request_that_is_given_up_lets_its_old_connection_go() -> None:
    clock, slow = Clock(0.0), Slow()
    async with young(slow, clock) as (client, balancer):
        waiting = await grown_old(client, slow, clock)
        waiting.cancel()
        await eventually(lambda: balancer.open == 1)
        slow.may_answer.set()


async def test_all_connections_end_with_the_client() -> None:
    clock, slow = Clock(0.0), Slow()
    async with young(slow, clock) as (client, balancer):
        waiting = await grown_old(client, slow, clock)
        await client.aclose()
        slow.may_answer.set()
        await eventually(lambda: balancer.open == 0)
        with pytest.raises(httpx2.HTTPError):
            await waiting


async def test_requests_in_a_session_stay_with_their_connection() -> None:
    clock = Clock(0.0)
    async with young(Rogue(), clock) as (client, balancer):
        for _ in range(3):
            assert (await client.post(**call(**{"mcp-session-id": "one"}))).is_success
            clock.now += spread.SECONDS
        assert balancer.connections == 1


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


@pytest.mark.usefixtures("old_at_once")
async def test_a_server_that_hands_out_sessions_keeps_its_connections() -> None:
    server = Sessions()
    async with served(server) as base:
        balancer = Balancer(port(base))
        async with balanced(balancer) as url, connected_to(url) as connection:
            before = balancer.connections
            for _ in range(10):
                assert (await named(connection, "add").call({})).outcome == "ok"
            assert connection.status.info is not None
            assert connection.status.info.has_session
            assert balancer.connections == before


async def test_a_redirect_costs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "SECONDS", 3600.0)
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


@pytest.mark.usefixtures("old_at_once")
async def test_a_server_behind_tls_keeps_its_connections(tmp_path: Path) -> None:
    authority, server = PrivateCa(), Rogue()
    async with served(server, **authority.server(tmp_path)) as base:
        balancer = Balancer(port(base))
        async with (
            balanced(balancer) as url,
            connected_to(url.replace("http:", "https:"), caBundle=authority.pem) as connection,
        ):
            before = balancer.connections
            for _ in range(5):
                assert (await named(connection, "add").call({})).outcome == "ok"
            assert balancer.connections == before
