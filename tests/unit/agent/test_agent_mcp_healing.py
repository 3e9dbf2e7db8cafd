"""What opens the breaker of an MCP server or ends its connection, and how both come back. Real HTTP on loopback."""

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from agent_mcp import Asked, Rogue, connected_to, named, rogue_connection
from agent_mcp_faults import five_hundred, four_hundred, not_known, own_error, two_megabytes_in_an_event
from agent_server import LoopbackMcpServer
from ports import free_port
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import mcp, wire
from ropewalk_agent.tools.mcp_session import LenientSession
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_the_breaker_answers_for_a_server_that_fails_five_times_and_lets_it_heal() -> None:
    rogue, metrics = Rogue(), Metrics()
    rogue.on_call = five_hundred
    async with rogue_connection(rogue, metrics=metrics) as connection:
        for _ in range(5):
            await named(connection, "add").call({})
        result = await named(connection, "add").call({})
        assert result.outcome == "unavailable"
        assert "5 calls in a row failed" in result.content[0]["text"]
        assert "HTTP 500" in result.content[0]["text"]
        assert rogue.count("tools/call") == 5, "the sixth was not made"
        assert connection.status.breaker == "open"
        gauge = ("ropewalk_agent_mcp_breaker_open", {"server": "rogue"})
        assert metrics.registry.get_sample_value(*gauge) == 1

        rogue.on_call = None
        session, failing = connection.session, 2

        async def fail_twice(asked: Asked) -> bool:
            nonlocal failing
            if asked.method != "tools/list" or failing == 0:
                return False
            failing -= 1
            await five_hundred(asked)
            return True

        rogue.before = fail_twice
        await eventually(lambda: connection.session not in (None, session))  # the next call is the probe
        assert (await named(connection, "add").call({})).outcome == "ok"
        assert connection.status.breaker == "closed"
        assert metrics.registry.get_sample_value(*gauge) == 0


async def test_errors_that_the_server_itself_reports_do_not_open_the_breaker() -> None:
    rogue = Rogue()
    rogue.on_call = own_error
    async with rogue_connection(rogue) as connection:
        for _ in range(6):
            assert "a must be a number" in (await named(connection, "add").call({})).content[0]["text"]
        assert connection.status.breaker == "closed"


@pytest.mark.parametrize("behaviour", [four_hundred, not_known, two_megabytes_in_an_event])
async def test_what_a_call_itself_is_to_blame_for_does_not_open_the_breaker(behaviour: Any) -> None:
    rogue = Rogue()
    rogue.on_call = behaviour
    async with rogue_connection(rogue) as connection:
        for _ in range(6):
            assert (await named(connection, "add").call({})).outcome == "error"
        assert rogue.count("tools/call") == 6
        assert connection.status.breaker == "closed"


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("session_gone", "closed"),
        ("refused", "closed"),
        ("too_large", "closed"),
        ("undelivered", "open"),
        ("unauthorized", "open"),
        ("failing", "open"),
        ("broken", "open"),
        ("lost", "open"),
    ],
)
async def test_the_kind_of_a_fault_decides_whether_the_breaker_counts_it(
    kind: wire.Kind, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise wire.WireError(wire.Fault(kind, "a fault"))

    async with rogue_connection(Rogue(), retry={"maxAttempts": 1}) as connection:
        monkeypatch.setattr(connection.session, "call_tool", fail)
        for _ in range(5):
            await named(connection, "add").call({})
        assert connection.status.breaker == state


async def test_one_failed_listing_ends_no_connection_and_a_second_does() -> None:
    rogue, failing = Rogue(), 1
    told = asyncio.Event()

    async def before(asked: Asked) -> bool:
        nonlocal failing
        if asked.method == "tools/list" and told.is_set() and failing > 0:
            failing -= 1
            await five_hundred(asked)
            return True
        return False

    rogue.before = before
    async with rogue_connection(rogue) as connection:
        session = connection.session
        told.set()
        await eventually(lambda: failing == 0)
        listed = rogue.count("tools/list")
        await eventually(lambda: rogue.count("tools/list") > listed + 1)
        assert connection.session is session
        failing = 2
        await eventually(lambda: connection.session is not session and connection.session is not None)
        assert connection.status.last_error == "it answered HTTP 500 Internal Server Error"


async def test_a_call_that_comes_while_a_connection_is_closed_waits_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing, go_on, rogue = asyncio.Event(), asyncio.Event(), Rogue()

    class SlowToClose(LenientSession):
        async def __aexit__(self, *exception: Any) -> bool | None:
            closing.set()
            await go_on.wait()
            return await super().__aexit__(*exception)

    async def before(asked: Asked) -> bool:
        if asked.method == "tools/list" and rogue.count("tools/list") > 1 and not closing.is_set():
            await five_hundred(asked)
            return True
        return False

    monkeypatch.setattr(mcp, "LenientSession", SlowToClose)
    rogue.before = before
    async with rogue_connection(rogue) as connection:
        await asyncio.wait_for(closing.wait(), 20)
        calling = asyncio.ensure_future(named(connection, "add").call({}))
        go_on.set()
        assert (await calling).outcome == "ok"


async def test_a_server_that_restarts_with_other_tools_shows_the_new_ones() -> None:
    port = free_port()

    def server(name: str) -> LoopbackMcpServer:
        from mcp.server.mcpserver import MCPServer

        made = MCPServer("rogue")
        made.add_tool(lambda: name, name=name)
        loopback = LoopbackMcpServer(made)
        loopback.port = port
        return loopback

    one, two = server("old"), server("new")
    await asyncio.to_thread(one.start)
    try:
        async with connected_to(f"http://127.0.0.1:{port}/mcp") as connection:
            await asyncio.to_thread(one.stop)
            await asyncio.to_thread(two.start)
            await eventually(lambda: connection.status.tools == ("new",))
            assert (await named(connection, "new").call({})).content == [{"text": "new"}]
    finally:
        await asyncio.to_thread(one.stop)
        await asyncio.to_thread(two.stop)


async def test_a_server_whose_listings_take_their_time_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 0.0)
    # Nothing answers in no time: without more than the least bound, the first listing that is watched would be late.
    monkeypatch.setattr(mcp, "SUSPICIOUS_CHECK_SECONDS", 0.0)
    ten_seconds_each = SimpleNamespace(monotonic=itertools.count(step=10).__next__)
    monkeypatch.setattr(mcp, "time", ten_seconds_each)
    rogue = Rogue()
    async with rogue_connection(rogue) as connection:
        since = connection.status.since
        await eventually(lambda: rogue.count("tools/list") > 4)
        assert (connection.status.state, connection.status.since) == ("connected", since)


async def test_the_reason_is_that_of_the_last_request_not_of_the_probe_for_the_newer_era() -> None:
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        if asked.method == "server/discover":
            await asked.answer(b"", status=404)
        else:
            error = {"code": -32000, "message": "no room for another session"}
            await asked.answer({"jsonrpc": "2.0", "id": asked.message.get("id"), "error": error})
        return True

    rogue.before = before
    async with rogue_connection(rogue, wait=False) as connection:
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.last_error == "no room for another session"
