"""Connections to real MCP servers on loopback: found, filtered, lost and healed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from agent_mcp import connected_to, named
from agent_models import Call, ScriptedModel
from agent_server import LoopbackMcpServer, running_agent
from clock import Clock
from ropewalk_agent.config import McpServerConfig
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import Tool, ToolResult, catalogue, mcp, results
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")


def math(**extra: Callable[..., Any]) -> MCPServer:
    server = MCPServer("math")

    @server.tool()
    def add(a: float, b: float) -> float:
        """Add two numbers."""
        return a + b

    @server.tool()
    def divide(a: float, b: float) -> float:
        """Divide two numbers."""
        if b == 0:
            raise ToolError("cannot divide by zero")
        return a / b

    for name, function in extra.items():
        server.add_tool(function, name=name)
    return server


@asynccontextmanager
async def serving(server: MCPServer) -> AsyncIterator[LoopbackMcpServer]:
    loopback = LoopbackMcpServer(server)
    await asyncio.to_thread(loopback.start)
    try:
        yield loopback
    finally:
        await asyncio.to_thread(loopback.stop)


connected = partial(connected_to, name="math")


async def test_tools_are_listed_and_called() -> None:
    async with serving(math()) as server, connected(server.url) as connection:
        assert connection.status.tools == ("add", "divide")
        result = await named(connection, "add").call({"a": 1, "b": 2})
        assert (result.outcome, result.content) == ("ok", [{"text": "3.0"}])
        assert named(connection, "add").input_schema["required"] == ["a", "b"]


async def test_an_error_that_the_tool_tells_reaches_the_model() -> None:
    async with serving(math()) as server, connected(server.url) as connection:
        result = await named(connection, "divide").call({"a": 1, "b": 0})
        assert result.outcome == "error"
        assert "cannot divide by zero" in result.content[0]["text"]


async def test_calls_over_one_connection_run_at_once() -> None:
    arrived = 0
    both = asyncio.Event()

    async def meet() -> str:
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            both.set()
        await both.wait()
        return "met"

    async with serving(math(meet=meet)) as server, connected(server.url) as connection:
        tool = named(connection, "meet")
        results = await asyncio.gather(tool.call({}), tool.call({}))
        assert [result.outcome for result in results] == ["ok", "ok"]


async def test_a_hidden_tool_is_not_shown_and_not_run() -> None:
    async with serving(math()) as server, connected(server.url, tools={"deny": ["divide"]}) as connection:
        assert (connection.status.tools, connection.status.hidden) == (("add",), ("divide",))
        result = await connection.calls.call("divide", {"a": 1, "b": 1})
        assert result.outcome == "error"
        assert "not allowed" in result.content[0]["text"]


async def test_a_call_that_takes_too_long_is_ended_and_the_connection_goes_on() -> None:
    async def slow() -> str:
        await asyncio.Event().wait()
        return "late"

    async with serving(math(slow=slow)) as server, connected(server.url) as connection:
        connection.calls.timeout_seconds = 0.05
        result = await named(connection, "slow").call({})
        connection.calls.timeout_seconds = 5.0
        assert result.outcome == "timeout"
        assert "math" in result.content[0]["text"]
        assert (await named(connection, "add").call({"a": 1, "b": 2})).outcome == "ok"


async def test_a_dead_server_is_noticed_without_traffic_and_its_tools_say_so() -> None:
    async with serving(math()) as server, connected(server.url) as connection:
        tool = named(connection, "add")
        await asyncio.to_thread(server.stop)
        await eventually(lambda: connection.status.state == "disconnected")
        result = await tool.call({"a": 1, "b": 2})
        assert result.outcome == "unavailable"
        assert "MCP server math is unavailable" in result.content[0]["text"]
        assert connection.status.tools == ("add", "divide"), "the model still knows what there was"


async def test_a_server_that_comes_back_is_used_again_by_the_same_tools() -> None:
    async with serving(math()) as server, connected(server.url) as connection:
        tool = named(connection, "add")
        for _ in range(2):
            await asyncio.to_thread(server.stop)
            await eventually(lambda: connection.status.state == "disconnected")
            await asyncio.to_thread(server.start)
            await eventually(lambda: connection.status.state == "connected")
            assert (await tool.call({"a": 1, "b": 2})).outcome == "ok"


async def test_a_server_that_dies_during_a_call_ends_the_call() -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def hang() -> str:
        loop.call_soon_threadsafe(begun.set)
        await asyncio.Event().wait()
        return "never"

    async with serving(math(hang=hang)) as server, connected(server.url) as connection:
        calling = asyncio.ensure_future(named(connection, "hang").call({}))
        await begun.wait()
        await asyncio.to_thread(server.stop)
        result = await calling
        assert result.outcome in {"unavailable", "error"}
        assert "math" in result.content[0]["text"]


async def test_a_server_that_accepts_but_never_answers_does_not_hold_up_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp, "CONNECT_SECONDS", 0.1)

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with connected(f"http://127.0.0.1:{port}/mcp", wait=False) as connection:
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.state == "connecting"
        assert "no answer within 0.1 s" in (connection.status.last_error or "")
    listener.close()


class Mute:
    """A session whose server takes every request and answers none."""

    def __init__(self) -> None:
        self.listings = 0

    async def list_tools(self, **_: Any) -> Any:
        self.listings += 1
        await asyncio.Event().wait()

    async def call_tool(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()


@asynccontextmanager
async def watching(clock: Clock, session: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Watch a session over which a call is on its way."""
    config = McpServerConfig(name="math", url="http://127.0.0.1:9/mcp")
    connection = mcp.Connection(config, tool_timeout_seconds=30.0, metrics=Metrics(), changed=lambda: None, clock=clock)
    connection.session = session
    calling = asyncio.create_task(connection.calls.call("add", {}))
    watch = asyncio.create_task(connection._watch(session))
    try:
        yield watch
    finally:
        calling.cancel()
        watch.cancel()
        await asyncio.gather(calling, watch, return_exceptions=True)


async def test_a_server_that_answers_nothing_is_given_up_although_a_call_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp, "SUSPICIOUS_CHECK_SECONDS", 0.01)
    clock = Clock(0.0)
    async with watching(clock, Mute()) as watch:
        clock.now = mcp._SILENCE_SECONDS + 1
        with pytest.raises(TimeoutError, match="2 times"):
            await asyncio.wait_for(watch, 10)


async def test_a_server_that_works_on_a_call_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "SUSPICIOUS_CHECK_SECONDS", 0.01)
    clock, session = Clock(0.0), Mute()
    async with watching(clock, session) as watch:
        await eventually(lambda: session.listings > 5 or watch.done())
        assert not watch.done()


async def test_attempts_whose_packets_are_dropped_follow_each_other_every_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp, "_LONGEST_RETRY_SECONDS", 2.0)
    clock, began = Clock(0.0), list[float]()
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        clock.now += seconds
        await sleep(0)

    async def dropped(*, reconnected: bool) -> None:
        began.append(clock.now)
        clock.now += mcp._HANDSHAKE_SECONDS
        raise TimeoutError

    monkeypatch.setattr(mcp, "_pause", pause)
    config = McpServerConfig(name="math", url="http://127.0.0.1:9/mcp")
    connection = mcp.Connection(config, tool_timeout_seconds=5.0, metrics=Metrics(), changed=lambda: None, clock=clock)
    monkeypatch.setattr(connection, "_connect_and_watch", dropped)
    connection.start()
    await eventually(lambda: len(began) > 10)
    await connection.stop()
    assert max(after - before for before, after in pairwise(began)) <= 2.0


async def test_tools_that_a_server_adds_later_are_found() -> None:
    server = math()
    async with serving(server) as loopback, connected(loopback.url) as connection:

        def power(a: float) -> float:
            return a * a

        server.add_tool(power, name="power")
        await eventually(lambda: "power" in connection.status.tools)


async def test_of_two_equal_names_the_first_server_wins_and_the_clash_is_told() -> None:
    async with serving(math()) as one, serving(math()) as two:
        servers = [{"name": "one", "url": one.url}, {"name": "two", "url": two.url}]
        async with running_agent(ScriptedModel(["x"]), mcpServers=servers) as agent:
            clashes = (await agent.client.get("/tools")).json()["clashes"]
            assert clashes == [{"tool": name, "kept": "one", "ignored": "two"} for name in ("add", "divide")]
            await agent.query("a")
            assert agent.model.tools_shown == [["add", "divide"]]


async def never_called(_: dict[str, Any]) -> ToolResult:
    raise AssertionError


def test_names_that_differ_only_in_a_dash_clash() -> None:
    first, second = (Tool(name, server, "", {}, never_called) for name, server in (("a-b", "x"), ("a_b", "y")))
    tools, clashes = catalogue([(first,), (second,)])
    assert tools == (first,)
    assert clashes[0].ignored == "y"


def test_a_result_that_is_too_long_is_cut_and_says_so() -> None:
    blocks = results.bounded([{"text": "x" * 99_999}, {"text": "abc"}, {"text": "gone"}])
    assert blocks[1]["text"].startswith("a\n[cut here")
    assert len(blocks) == 2


def test_an_image_and_a_document_that_are_too_large_are_replaced_by_a_note() -> None:
    def image(size: int) -> dict[str, Any]:
        return {"image": {"format": "png", "source": {"bytes": b"x" * size}}}

    small, large = {"json": {"a": 1}}, {"json": {"a": "x" * 100_000}}
    blocks = results.bounded([image(2_000_000), image(3_000_000), small, large, {"text": "after"}])
    assert (blocks[0], blocks[2], blocks[4]) == (image(2_000_000), small, {"text": "after"})
    assert blocks[1]["text"] == "[left out: an image of 3000000 bytes; a result may hold 3750000 bytes of images]"
    assert blocks[3]["text"] == "[left out: a document of 100009 characters; a result may hold 100000 characters]"


async def test_a_running_agent_gets_its_tools_again_when_their_server_returns() -> None:
    model = ScriptedModel([Call("add", {"a": 1, "b": 2})], ["three"])
    async with (
        serving(math()) as server,
        running_agent(model, mcpServers=[{"name": "math", "url": server.url}]) as agent,
    ):
        await asyncio.to_thread(server.stop)
        reasons = (await agent.until("/ready", 503)).json()["reasons"]
        assert reasons[0].startswith("mcp server math: disconnected since ")
        await asyncio.to_thread(server.start)
        await agent.until("/ready", 200)
        answer = (await agent.query("1 + 2?")).json()
        assert (answer["response"], answer["tools_used"]) == ("three", ["add"])
        assert model.asked[1][-1]["content"][0]["toolResult"]["content"] == [{"text": "3.0"}]
        value = agent.metrics.registry.get_sample_value("ropewalk_agent_mcp_reconnects_total", {"server": "math"})
        assert value == 1
