"""Whatever an MCP server does wrong costs the call that met it, and nothing else. Real HTTP on loopback throughout."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from agent_mcp import Asked, Rogue, named, rogue_connection
from agent_mcp_faults import (
    accepted,
    compressed,
    cut_off,
    events,
    fifty_megabytes,
    five_hundred,
    garbage,
    html,
    not_a_result,
    not_json_rpc,
    own_error,
    own_error_with_a_common_code,
    stream_without_an_answer,
    two_megabytes_in_an_event,
    unauthorized,
    unknown_id,
)
from ropewalk_agent.tools import wire
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")


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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.02)

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


def test_the_bounds_fit_the_library() -> None:
    from httpx2._config import DEFAULT_MAX_EVENT_SIZE_BYTES

    assert wire.LARGEST_EVENT < DEFAULT_MAX_EVENT_SIZE_BYTES
