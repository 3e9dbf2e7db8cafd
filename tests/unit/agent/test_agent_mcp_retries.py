"""Calls that failed are made again where that is safe and in time, and no others. Real HTTP on loopback throughout."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent_mcp import ADD, Asked, Rogue, connected_to, named, rogue_connection
from agent_mcp_faults import five_hundred
from agent_server import LoopbackMcpServer
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import mcp, mcp_calls
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")


def retries(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("ropewalk_agent_mcp_retries_total", {"server": "rogue"})


@pytest.mark.parametrize(("tool", "attempts"), [("read", 3), ("add", 1)])
async def test_only_calls_that_are_safe_to_repeat_are_repeated(tool: str, attempts: int) -> None:
    rogue, metrics = Rogue(), Metrics()
    rogue.on_call = five_hundred
    config = {"retry": {"initialDelayMilliseconds": 1}}
    async with rogue_connection(rogue, metrics=metrics, **config) as connection:
        result = await named(connection, tool).call({})
    assert result.outcome == "error"
    assert rogue.count("tools/call") == attempts
    assert (retries(metrics) or 0) == attempts - 1


async def test_a_tool_that_is_safe_to_repeat_no_more_is_not_repeated_by_a_turn_that_knew_it_so() -> None:
    rogue = Rogue()
    rogue.on_call = five_hundred
    async with rogue_connection(rogue, retry={"initialDelayMilliseconds": 1}) as connection:
        read = named(connection, "read")
        rogue.tools = [{**ADD, "name": "read"}]
        await eventually(lambda: connection.status.tools == ("read",))
        assert (await read.call({})).outcome == "error"
    assert rogue.count("tools/call") == 1


async def test_a_repeated_call_that_succeeds_is_a_success() -> None:
    rogue = Rogue()

    async def second_time(asked: Asked) -> None:
        await (five_hundred(asked) if rogue.count("tools/call") < 2 else asked.text("got it"))

    rogue.on_call = second_time
    async with rogue_connection(rogue, retry={"initialDelayMilliseconds": 1}) as connection:
        assert (await named(connection, "read").call({})).content == [{"text": "got it"}]


@pytest.mark.parametrize("tool", ["read", "add"])
async def test_a_call_that_never_reached_the_server_is_made_again_once_it_is_back(
    tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> None: ...

    # The supervision looks away, or it may close the connection between two attempts.
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 60.0)
    monkeypatch.setattr(mcp, "subscribe_to_changes", nothing)
    loopback = LoopbackMcpServer(sdk_server())
    await asyncio.to_thread(loopback.start)
    back = asyncio.Event()

    async def pause(_: float) -> None:
        if not back.is_set():
            back.set()
            await asyncio.to_thread(loopback.start)

    monkeypatch.setattr(mcp_calls, "_pause", pause)
    try:
        async with connected_to(loopback.url) as connection:
            monkeypatch.setattr(connection, "doubt", lambda: None)
            await asyncio.to_thread(loopback.stop)
            result = await named(connection, tool).call({})
            assert result.outcome == "ok", result
    finally:
        await asyncio.to_thread(loopback.stop)


def sdk_server() -> Any:
    import mcp_types
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("rogue")
    server.add_tool(lambda: "read", name="read", annotations=mcp_types.ToolAnnotations(read_only_hint=True))
    server.add_tool(lambda: "added", name="add")
    return server


async def test_the_time_limit_bounds_all_attempts_together() -> None:
    rogue = Rogue()
    rogue.on_call = five_hundred
    config = {"retry": {"maxAttempts": 10, "initialDelayMilliseconds": 60_000, "maxDelaySeconds": 300}}
    async with rogue_connection(rogue, seconds=5, **config) as connection:
        assert (await named(connection, "read").call({})).outcome == "error"
    assert rogue.count("tools/call") == 1, "the pause would have ended after the time limit"


def test_pauses_grow_have_jitter_and_a_bound() -> None:
    from ropewalk_agent.config import Retry

    retry = Retry(initial_delay_milliseconds=200, max_delay_seconds=1)
    pause: Callable[[int, float], float] = lambda attempt, share: mcp_calls.retry_pause(retry, attempt, share)  # noqa: E731
    assert [pause(attempt, 1.0) for attempt in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.0]
    assert [pause(attempt, 0.0) for attempt in (1, 4)] == [0.1, 0.5]
