"""Whatever an MCP server does wrong costs the call that met it, and nothing else. Real HTTP on loopback throughout."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from agent_mcp import ADD, READ, Asked, Rogue, connected_to, named, rogue_connection, shorten_pauses
from agent_models import Call, ScriptedModel
from agent_server import LoopbackMcpServer, free_port, running_agent
from mcp_wire import served
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import mcp, mcp_calls, wire
from ropewalk_agent.tools.headers import MountedHeaders
from ropewalk_agent.tools.mcp_session import LenientSession
from ropewalk_agent.tools.sieve import Sieve
from waiting import eventually


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


def retries(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("ropewalk_agent_mcp_retries_total", {"server": "rogue"})


async def five_hundred(asked: Asked) -> None:
    await asked.answer(b"oops", status=500, content_type="text/plain")


async def unauthorized(asked: Asked) -> None:
    await asked.answer(b"", status=401)


async def garbage(asked: Asked) -> None:
    await asked.answer(b"\x00\xff<html>secret-looking text")


async def html(asked: Asked) -> None:
    await asked.answer(b"<html>", content_type="text/html")


async def not_json_rpc(asked: Asked) -> None:
    await asked.answer({"jsonrpc": "1.0", "id": asked.message["id"], "answer": 42})


async def not_a_result(asked: Asked) -> None:
    await asked.result({"resultType": "complete", "content": "not a list"})


async def fifty_megabytes(asked: Asked) -> None:
    await asked.send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    )
    for _ in range(50):
        await asked.send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
    await asked.send({"type": "http.response.body", "body": b""})


async def events(asked: Asked, *parts: bytes) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await asked.send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await asked.send({"type": "http.response.body", "body": part, "more_body": True})
    await asked.send({"type": "http.response.body", "body": b""})


async def two_megabytes_in_an_event(asked: Asked) -> None:
    await events(asked, b"data: ", *[b"x" * 100_000] * 20)


async def stream_without_an_answer(asked: Asked) -> None:
    await events(asked, b": nothing follows\n\n")


async def cut_off(asked: Asked) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await asked.send({"type": "http.response.start", "status": 200, "headers": headers})
    await asked.send({"type": "http.response.body", "body": b'{"jsonrpc"', "more_body": True})
    raise ConnectionError


async def compressed(asked: Asked) -> None:
    await asked.answer(b"\x1f\x8b", content_encoding="gzip")


async def own_error(asked: Asked) -> None:
    error = {"code": -32602, "message": "a must be a number"}
    await asked.answer({"jsonrpc": "2.0", "id": asked.message["id"], "error": error}, status=400)


async def own_error_with_a_common_code(asked: Asked) -> None:
    error = {"code": -32000, "message": "the database is away"}
    await asked.answer({"jsonrpc": "2.0", "id": asked.message["id"], "error": error})


async def unknown_id(asked: Asked) -> None:
    await asked.answer({"jsonrpc": "2.0", "id": 4711, "result": {"resultType": "complete", "content": []}})


async def accepted(asked: Asked) -> None:
    await asked.answer(b"", status=202)


FAULTS = [
    (five_hundred, "error", "it answered HTTP 500"),
    (unauthorized, "unavailable", "it answered HTTP 401 Unauthorized; the MCPServer has no auth"),
    (garbage, "error", "its answer is not JSON-RPC"),
    (html, "error", "it answered text/html where JSON or a stream is due"),
    (not_json_rpc, "error", "its answer is not JSON-RPC"),
    (not_a_result, "error", "its answer is not what the protocol says"),
    (fifty_megabytes, "error", "its answer is larger than 10000000 bytes"),
    (two_megabytes_in_an_event, "error", "its answer is larger than 1000000 bytes"),
    (stream_without_an_answer, "error", "its stream ended without an answer"),
    (cut_off, "error", "the connection broke"),
    (compressed, "error", "it sent a compressed answer"),
    (own_error, "error", "a must be a number"),
    (own_error_with_a_common_code, "error", "the database is away"),
    (accepted, "error", "202 Accepted"),
]


@pytest.mark.parametrize(("behaviour", "outcome", "text"), [pytest.param(*row, id=row[0].__name__) for row in FAULTS])
async def test_a_fault_costs_only_the_call_that_meets_it(behaviour: Any, outcome: str, text: str) -> None:
    rogue, other_begun, go_on = Rogue(), asyncio.Event(), asyncio.Event()

    async def on_call(asked: Asked) -> None:
        if asked.message["params"]["arguments"].get("good"):
            other_begun.set()
            await go_on.wait()
            await asked.text("fine")
        else:
            await behaviour(asked)

    rogue.on_call = on_call
    async with rogue_connection(rogue) as connection:
        session = connection.session
        other = asyncio.ensure_future(named(connection, "add").call({"good": True}))
        await other_begun.wait()
        result = await named(connection, "add").call({})
        go_on.set()
        assert (result.outcome, text in result.content[0]["text"]) == (outcome, True), result
        assert (await other).content == [{"text": "fine"}]
        assert connection.session is session, "the connection went on"


async def test_a_server_that_hangs_is_given_up_at_the_lesser_time_limit() -> None:
    rogue, over = Rogue(), asyncio.Event()

    async def hang(_: Asked) -> None:
        await over.wait()

    rogue.on_call = hang
    async with rogue_connection(rogue, seconds=30, toolTimeoutSeconds=1) as connection:
        result = await named(connection, "add").call({})
        over.set()
    assert (result.outcome, result.content[0]["text"]) == (
        "timeout",
        "tool add of MCP server rogue did not answer within 1 s",
    )


async def test_an_answer_to_something_else_is_none() -> None:
    rogue = Rogue()
    rogue.on_call = unknown_id
    async with rogue_connection(rogue, seconds=0.2) as connection:
        assert (await named(connection, "add").call({})).outcome == "timeout"


async def test_two_large_answers_are_read_at_once_and_the_next_waits_for_a_place() -> None:
    begun, go_on = list[int](), asyncio.Event()

    class Body(httpx2.AsyncByteStream):
        def __init__(self, number: int) -> None:
            self._number = number

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x" * 1_000_001
            begun.append(self._number)
            await go_on.wait()

    gate = asyncio.Semaphore(wire._LARGE_AT_ONCE)

    async def read(number: int) -> int:
        stream = wire._BoundedStream(Body(number), wire.Exchange(), gate, events=False)
        return sum([len(chunk) async for chunk in stream])

    reading = [asyncio.ensure_future(read(number)) for number in range(3)]
    await eventually(gate.locked)
    for _ in range(10):
        await asyncio.sleep(0)
    assert begun == [0, 1]
    reading[0].cancel()  # a call that is given up leaves its place
    await eventually(lambda: begun == [0, 1, 2])
    go_on.set()
    assert await asyncio.gather(*reading[1:]) == [1_000_001] * 2
    assert not gate.locked()


async def test_progress_does_not_prolong_a_call() -> None:
    rogue, over = Rogue(), asyncio.Event()
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}

    async def progress(asked: Asked) -> None:
        await asked.send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        )
        while not over.is_set():
            body = b"data: " + json.dumps(note).encode() + b"\n\n"
            await asked.send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(0.02)

    rogue.on_call = progress
    async with rogue_connection(rogue, seconds=0.3) as connection:
        result = await named(connection, "add").call({})
        over.set()
    assert result.outcome == "timeout"


async def test_many_events_larger_than_the_bound_only_together_are_read() -> None:
    rogue = Rogue()

    async def chatty(asked: Asked) -> None:
        result = {"resultType": "complete", "content": [{"type": "text", "text": "done"}]}
        answer = json.dumps({"jsonrpc": "2.0", "id": asked.message["id"], "result": result}).encode()
        await events(asked, *[b": " + b"x" * 300_000 + b"\n\n"] * 10, b"data: " + answer + b"\n\n")

    rogue.on_call = chatty
    async with rogue_connection(rogue) as connection:
        assert (await named(connection, "add").call({})).content == [{"text": "done"}]


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


async def four_hundred(asked: Asked) -> None:
    await asked.answer(b"no", status=400, content_type="text/plain")


async def not_known(asked: Asked) -> None:
    await asked.answer(b"", status=404)


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


@pytest.mark.parametrize(
    ("bad", "name", "reason"),
    [
        (
            {"name": "bad", "inputSchema": {"type": "object", "properties": {"a": {"type": "strnig"}}}},
            "bad",
            "properties.a",
        ),
        ({"name": "bad", "inputSchema": {"type": "array"}}, "bad", "not of type object"),
        ({"name": "bad"}, "bad", "inputSchema"),
        ({"name": "bad", "inputSchema": 7}, "bad", "inputSchema"),
        ({"name": "a.b", "inputSchema": {"type": "object"}}, "a.b", "names of 1 to 64"),
        ({"name": "x" * 65, "inputSchema": {"type": "object"}}, "x" * 65, "names of 1 to 64"),
        ({"name": "bad", "inputSchema": {"type": "object", "$ref": "http://127.0.0.1:9/x"}}, "bad", "another document"),
        *(
            ({"name": "bad", "inputSchema": {"type": "object", **odd}}, "bad", reason)
            for odd, reason in (
                ({"$schema": 7}, "is not a JSON Schema"),
                ({"$schema": ["draft"]}, "is not a JSON Schema"),
                ({"$schema": "http://["}, "is not a JSON Schema"),
                ({"not": []}, "is not a JSON Schema"),
                (
                    {"properties": {"a": {"type": "array", "x-mcp-header": "A"}}},
                    "has an x-mcp-header that is not valid",
                ),
                ({"pattern": "a{99999999999999999999}"}, "is not a JSON Schema"),
                ({"description": "x" * 100_000}, "is longer than 100000 characters"),
            )
        ),
        ({"inputSchema": {"type": "object"}}, "(number 2)", "no name"),
        ("text", "(number 2)", "no name"),
    ],
)
async def test_a_tool_that_cannot_be_used_is_left_out_and_the_others_work(bad: Any, name: str, reason: str) -> None:
    async with rogue_connection(Rogue(ADD, bad, READ)) as connection:
        assert connection.status.tools == ("add", "read")
        assert [one.name for one in connection.status.left_out] == [name]
        assert reason in connection.status.left_out[0].reason
        assert (await named(connection, "read").call({})).outcome == "ok"


async def test_the_loop_gets_a_turn_before_each_tool_that_is_checked() -> None:
    turns, over = 0, False

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    page, _ = await Sieve("").sift({"tools": [{**ADD, "name": f"tool_{number}"} for number in range(10)]})
    over = True
    await counting
    assert (len(page["tools"]), turns) == (10, 10)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": ["result"]},
        {"type": "object", "$ref": "#/nothing"},
        {"type": "object", "$ref": "http://127.0.0.1:9/schema"},
        {"type": "no type"},
    ],
)
async def test_a_call_that_was_made_is_not_told_as_failed_whatever_its_output_schema_says(
    schema: dict[str, Any],
) -> None:
    rogue = Rogue({**ADD, "outputSchema": schema})

    async def structured(asked: Asked) -> None:
        content = {"content": [{"type": "text", "text": "done"}], "structuredContent": {"a": 1}}
        await asked.result({"resultType": "complete", **content})

    rogue.on_call = structured
    async with rogue_connection(rogue) as connection:
        result = await named(connection, "add").call({})
    assert (result.outcome, result.content) == ("ok", [{"text": "done"}])


async def test_a_call_of_a_tool_that_is_listed_no_more_asks_for_no_listing() -> None:
    rogue, gone = Rogue(), asyncio.Event()

    async def no_listing(asked: Asked) -> bool:
        if gone.is_set() and asked.method == "tools/list":
            await five_hundred(asked)
            return True
        return False

    rogue.before = no_listing
    async with rogue_connection(rogue) as connection:
        add = named(connection, "add")
        rogue.tools = [READ]
        await eventually(lambda: connection.status.tools == ("read",))
        gone.set()
        result = await add.call({})
    assert (result.outcome, result.content) == ("ok", [{"text": "done"}])


async def test_a_server_whose_listings_take_their_time_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(mcp, "SUSPICIOUS_CHECK_SECONDS", 0.05)
    rogue = Rogue()

    async def slow(asked: Asked) -> bool:
        await asyncio.sleep(0.5 if asked.method == "tools/list" else 0)
        return False

    rogue.before = slow
    async with rogue_connection(rogue) as connection:
        since = connection.status.since
        await eventually(lambda: rogue.count("tools/list") > 4)
        assert (connection.status.state, connection.status.since) == ("connected", since)


async def test_five_hundred_tools_are_listed_and_called() -> None:
    rogue = Rogue(*({**ADD, "name": f"tool_{number}"} for number in range(500)))
    async with rogue_connection(rogue) as connection:
        assert len(connection.tools) == 500
        assert (await named(connection, "tool_499").call({})).outcome == "ok"


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    victim = Rogue()
    async with served(victim) as elsewhere:
        rogue = Rogue()

        async def redirect(asked: Asked) -> None:
            await asked.answer(b"", status=307, location=f"{elsewhere}/mcp")

        rogue.on_call = redirect
        async with rogue_connection(rogue) as connection:
            result = await named(connection, "add").call({})
    assert "redirects to another host" in result.content[0]["text"]
    assert victim.asked == []


async def test_a_redirect_within_the_host_is_followed() -> None:
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        if asked.path == "/mcp":
            await asked.answer(b"", status=307, location="/mcp/")
        return asked.path == "/mcp"

    rogue.before = before
    async with rogue_connection(rogue) as connection:
        assert (await named(connection, "add").call({})).outcome == "ok"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/mcp", "it redirects more than 5 times (http://127.0.0.1:"),
        ("//", "it redirects more than 5 times (http://127.0.0.1:"),
        ("mailto:somebody", "it redirects to what is no address"),
        ("http://xn--\u00ff.com/", "it redirects to what is no address"),
        ("ftp://127.0.0.1/mcp", "it redirects to another host (ftp://127.0.0.1:"),
    ],
)
async def test_a_redirect_that_leads_nowhere_costs_only_the_call_that_meets_it(location: str, said: str) -> None:
    rogue = Rogue()

    async def redirect(asked: Asked) -> None:
        await asked.answer(b"", status=307, location=location)

    rogue.on_call = redirect
    async with rogue_connection(rogue) as connection:
        session = connection.session
        assert said in (await named(connection, "add").call({})).content[0]["text"]
        rogue.on_call = None
        assert (await named(connection, "add").call({})).outcome == "ok"
        assert connection.session is session


async def test_a_prefix_is_shown_to_the_model_and_the_server_knows_its_own_names() -> None:
    rogue = Rogue()
    async with rogue_connection(rogue, prefix="x_", tools={"deny": ["read"]}) as connection:
        assert (connection.status.tools, connection.status.hidden) == (("x_add",), ("read",))
        assert (await named(connection, "x_add").call({})).outcome == "ok"
    assert next(one for one in rogue.asked if one.method == "tools/call").message["params"]["name"] == "add"


async def test_the_outgoing_context_goes_along_in_headers_and_meta() -> None:
    rogue = Rogue()
    async with rogue_connection(rogue) as connection:
        connection.calls._outgoing_context = lambda: {"traceparent": "00-1-2-01"}
        await named(connection, "add").call({})
    call = next(one for one in rogue.asked if one.method == "tools/call")
    assert call.headers["traceparent"] == "00-1-2-01"
    assert call.message["params"]["_meta"]["traceparent"] == "00-1-2-01"
    assert all("traceparent" not in one.headers for one in rogue.asked if one.method == "tools/list")


async def test_a_turn_goes_on_with_the_tools_that_are_sound_and_the_report_tells_of_the_others() -> None:
    rogue = Rogue(ADD, {"name": "bad", "inputSchema": {"type": "object", "properties": 1}})
    model = ScriptedModel([Call("add", {})], ["done"])
    async with (
        served(rogue) as base,
        running_agent(model, mcpServers=[{"name": "rogue", "url": f"{base}/mcp"}]) as agent,
    ):
        assert (await agent.query("add")).json()["response"] == "done"
        assert model.tools_shown[0] == ["add"]
        server = (await agent.client.get("/tools")).json()["servers"][0]
        assert server["breaker"] == "closed"
        assert server["left_out"] == [{"tool": "bad", "reason": "its inputSchema is not a JSON Schema (at properties)"}]


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


@pytest.mark.parametrize(
    ("method", "headers", "seconds"),
    [
        ("GET", {}, None),
        ("POST", {"mcp-method": "subscriptions/listen"}, None),
        ("POST", {"mcp-method": "tools/call"}, 7.0),
    ],
)
async def test_only_a_stream_of_notifications_may_be_silent(
    method: str, headers: dict[str, str], seconds: float | None
) -> None:
    seen: list[float | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx2.Response(202)

    guarded = wire.GuardedTransport(httpx2.MockTransport(answer), "http://127.0.0.1:9/mcp", None, MountedHeaders(()))
    async with httpx2.AsyncClient(transport=guarded, timeout=7.0) as client:
        await client.request(method, "http://127.0.0.1:9/mcp", headers=headers)
    assert seen == [seconds]


def test_the_bounds_fit_the_library() -> None:
    from httpx2._config import DEFAULT_MAX_EVENT_SIZE_BYTES

    assert wire.LARGEST_EVENT < DEFAULT_MAX_EVENT_SIZE_BYTES


def test_pauses_grow_have_jitter_and_a_bound() -> None:
    from ropewalk_agent.config import Retry

    retry = Retry(initial_delay_milliseconds=200, max_delay_seconds=1)
    pause: Callable[[int, float], float] = lambda attempt, share: mcp_calls.retry_pause(retry, attempt, share)  # noqa: E731
    assert [pause(attempt, 1.0) for attempt in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.0]
    assert [pause(attempt, 0.0) for attempt in (1, 4)] == [0.1, 0.5]
