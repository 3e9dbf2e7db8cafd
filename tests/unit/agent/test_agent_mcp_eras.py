"""Both eras of the protocol, against servers written with the mcp package: sessions to 2025-11-25, none since."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer

from agent_mcp import connected_to, named
from mcp_wire import served
from ropewalk_agent.tools import ToolResult, mcp
from ropewalk_agent.tools.mcp import Connection
from waiting import eventually

ERAS = {"older": "2025-11-25", "newer": "2026-07-28"}


@pytest.fixture(autouse=True)
def no_listing_but_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 3600.0)
    monkeypatch.setattr(mcp, "_LEAST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(mcp, "_FIRST_RETRY_SECONDS", 0.02)


class Older:
    """Lets an application speak only the older era: nobody there knows server/discover. Can forget its sessions."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.methods: list[str] = []
        self.session: str | None = None
        self.forget: str | None = None
        self.refused = 0
        self.gate: asyncio.Event | None = None
        """Holds the next request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.methods.append(scope["method"])
        self.session = headers.get("mcp-session-id", self.session)
        discovers = headers.get("mcp-method") == "server/discover"
        if discovers or (self.forget is not None and headers.get("mcp-session-id") == self.forget):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"Not Found"})
            self.refused += 1
            return
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate.wait()
        await self._app(scope, receive, send)


def growing(era: str) -> MCPServer:
    server = MCPServer("growing")

    async def grow(ctx: Context) -> str:
        server.add_tool(lambda: "new", name="new")
        await (ctx.session.send_tool_list_changed() if era == "older" else ctx.notify_tools_changed())
        return "grown"

    server.add_tool(grow)
    return server


@asynccontextmanager
async def connected_in(era: str, **options: Any) -> AsyncIterator[tuple[Connection, Older]]:
    app = growing(era).streamable_http_app(host="127.0.0.1", **options)
    older = Older(app)
    async with served(older if era == "older" else app) as base, connected_to(f"{base}/mcp") as connection:
        assert connection.session is not None
        assert connection.session.protocol_version == ERAS[era]
        yield connection, older


async def test_a_result_that_does_not_say_of_what_kind_it_is_counts_as_complete() -> None:
    app = growing("newer").streamable_http_app(host="127.0.0.1", stateless_http=True, json_response=True)

    async def terse(scope: Any, receive: Any, send: Any) -> None:
        async def cut(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                message = {**message, "headers": headers}
            elif message.get("body"):
                answer = json.loads(message["body"])
                kinds.append(answer["result"].pop("resultType"))
                message = {**message, "body": json.dumps(answer).encode()}
            await send(message)

        await app(scope, receive, cut if scope["type"] == "http" else send)

    kinds: list[str] = []
    async with served(terse) as base, connected_to(f"{base}/mcp") as connection:
        assert (await named(connection, "grow").call({})).content == [{"text": "grown"}]
    assert set(kinds) == {"complete"}


@pytest.mark.parametrize("era", ERAS)
async def test_tools_are_listed_and_called(era: str) -> None:
    async with connected_in(era) as (connection, _):
        assert connection.status.tools == ("grow",)
        assert (await named(connection, "grow").call({})).content == [{"text": "grown"}]


@pytest.mark.parametrize("era", ERAS)
async def test_changed_tools_are_seen_at_once(era: str) -> None:
    async with connected_in(era) as (connection, older):
        if era == "older":
            await eventually(lambda: "GET" in older.methods)
        else:
            assert connection.session is not None
            routes = connection.session._listen_routes
            await eventually(lambda: any(route.honored is not None for route in routes.values()))
        await named(connection, "grow").call({})
        await eventually(lambda: connection.status.tools == ("grow", "new"))


async def test_a_call_in_a_session_that_the_server_forgot_is_made_again_in_a_new_one() -> None:
    async with connected_in("older") as (connection, older):
        session = connection.session
        older.forget = older.session
        assert (await named(connection, "grow").call({})).outcome == "ok"
        assert connection.session is not session
        assert connection.status.breaker == "closed"


async def test_calls_wait_while_a_forgotten_session_is_replaced() -> None:
    async with connected_in("older") as (connection, older):
        session = connection.session
        older.forget = older.session
        calls: list[asyncio.Future[ToolResult]] = []

        def is_replaced_while_all_call() -> bool:
            calls.append(asyncio.ensure_future(named(connection, "grow").call({})))
            return connection.session not in (session, None)

        await eventually(is_replaced_while_all_call)
        assert {(await call).outcome for call in calls} == {"ok"}


async def test_a_call_on_its_way_when_its_session_is_forgotten_gets_its_answer() -> None:
    async with connected_in("older") as (connection, older):
        grow = named(connection, "grow")
        gate = older.gate = asyncio.Event()
        on_its_way = asyncio.ensure_future(grow.call({}))
        await eventually(lambda: older.gate is None)
        refused, older.forget = older.refused, older.session
        next_one = asyncio.ensure_future(grow.call({}))
        # The next call and the listing that it makes due.
        await eventually(lambda: older.refused >= refused + 2)
        await asyncio.wait({on_its_way}, timeout=0.3)
        gate.set()
        assert (await on_its_way).outcome == "ok"
        assert (await next_one).outcome == "ok"


async def test_a_call_that_does_not_end_in_a_forgotten_session_leaves_time_for_those_that_wait() -> None:
    async with connected_in("older") as (connection, older):
        grow = named(connection, "grow")
        gate = older.gate = asyncio.Event()
        endless = asyncio.ensure_future(grow.call({}))
        await eventually(lambda: older.gate is None)
        connection.calls.timeout_seconds = 2.0
        older.forget = older.session
        assert (await grow.call({})).outcome == "ok"
        assert (await endless).outcome == "unavailable"
        gate.set()


async def test_a_call_that_waits_for_a_session_until_its_time_is_up_says_so() -> None:
    async with connected_in("older") as (connection, _):
        connection.calls.timeout_seconds = 0.05
        connection.forgotten()
        result = await named(connection, "grow").call({})
    assert (result.outcome, result.content[0]["text"]) == (
        "unavailable",
        "MCP server rogue is unavailable (it forgot the session, which is being replaced); "
        "its tools cannot be used at the moment",
    )


async def test_a_server_of_the_older_era_with_json_answers_and_no_stream_works() -> None:
    async with connected_in("older", stateless_http=True, json_response=True) as (connection, _):
        assert (await named(connection, "grow").call({})).outcome == "ok"


async def test_calls_of_the_older_era_that_run_at_once_do_not_disturb_each_other() -> None:
    server = MCPServer("slow")
    go_on = asyncio.Event()

    async def wait(for_it: bool) -> str:
        if for_it:
            await go_on.wait()
        return json.dumps(for_it)

    server.add_tool(wait)
    app = Older(server.streamable_http_app(host="127.0.0.1"))
    async with served(app) as base, connected_to(f"{base}/mcp", seconds=5) as connection:
        slow = asyncio.ensure_future(named(connection, "wait").call({"for_it": True}))
        assert (await named(connection, "wait").call({"for_it": False})).content == [{"text": "false"}]
        go_on.set()
        assert (await slow).content == [{"text": "true"}]
