"""Children that crash, hang, write nonsense or too much: the bridge says what is wrong, hides nothing, and goes on."""

import asyncio
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_stdio import BY_HAND, QUICK, HeldStarts, Peer, bridged, content
from ropewalk_mcp_stdio import jsonrpc, link, process
from ropewalk_mcp_stdio.program import Timing
from waiting import eventually

pytestmark = pytest.mark.timeout(60)


async def readiness(url: str) -> tuple[int, str]:
    async with httpx.AsyncClient(verify=False) as http:
        answer = await http.get(f"{url}/ready")
        return answer.status_code, "; ".join(answer.json()["reasons"])


@pytest.mark.parametrize(("tool", "how"), [("crash", "exited with code 3"), ("kill", "was ended by SIGKILL")])
async def test_a_crash_ends_all_calls_with_its_cause_and_the_next_call_is_served(tool: str, how: str) -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        waiting = asyncio.create_task(two.ask("tools/call", {"name": "wait"}))
        assert await one.call("echo", text="up") == "up"
        crashed = await one.post(one.request("tools/call", {"name": tool}))
        for answer in (crashed.json(), await waiting):
            assert answer["error"]["code"] == jsonrpc.UNAVAILABLE
            assert f"'tested' {how}" in answer["error"]["message"]
            # The server's own last words may hold a secret.
            assert "secret" not in json.dumps(answer)
        assert crashed.status_code == 503
        assert crashed.headers["retry-after"]
        # The session goes on with the new child.
        assert await one.call("echo", text="again") == "again"


async def test_restarts_are_counted_by_their_reason() -> None:
    async with bridged() as url, Peer.of(url) as peer, httpx.AsyncClient(verify=False) as http:
        await peer.initialize()
        name = 'ropewalk_mcp_stdio_child_restarts_total{reason="crashed"}'

        async def crashes() -> float:
            lines = (await http.get(f"{url}/metrics")).text.splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        before = await crashes()
        await peer.ask("tools/call", {"name": "crash"})
        assert await peer.call("echo", text="x") == "x"
        assert await crashes() == before + 1


async def test_a_program_that_ends_at_once_is_told_of_and_calls_are_refused_at_once() -> None:
    timing = replace(QUICK, first_pause=30, longest_pause=30, wait=0.1)
    command = (sys.executable, "-c", "raise SystemExit(7)")
    async with bridged(*command, timing=timing, ready=False) as url, Peer.of(url) as peer:

        async def refused() -> httpx.Response | None:
            answer = await peer.post(peer.request("initialize", {"protocolVersion": "2025-11-25"}))
            assert answer.status_code == 503
            return answer if int(answer.headers["retry-after"]) > 20 else None

        answer = await eventually(refused)
        assert "exited with code 7" in answer.json()["error"]["message"]
        assert await _told(url, "exited with code 7")


def test_pauses_between_starts_grow_to_a_bound_and_stay_there_however_long_it_takes() -> None:
    timing = Timing(first_pause=0.5, longest_pause=30)
    assert [timing.pause(failures) for failures in (0, 1, 2, 3, 7, 10_000)] == [0, 0.5, 1, 2, 30, 30]


async def _is_ready(url: str) -> bool:
    return (await readiness(url))[0] == 200


async def _told(url: str, reason: str) -> bool:
    status, told = await readiness(url)
    return status == 503 and reason in told


async def test_a_program_that_is_not_there_is_named() -> None:
    async with bridged("no-such-program", ready=False) as url:
        await eventually(lambda: _told(url, "there is no program 'no-such-program'"))


async def test_a_server_that_refuses_tools_list_is_not_ready_and_its_words_say_why() -> None:
    async with bridged(ready=False, MCP_TEST_NO_TOOLS="1") as url:
        await eventually(lambda: _told(url, "the database is down"))


async def test_a_hung_child_turns_unready_and_is_replaced() -> None:
    timing = replace(QUICK, probe_interval=0.1, probe=0.2, hung=1.0)
    async with bridged(timing=timing) as url, Peer.of(url) as peer:
        await peer.initialize()
        before = await peer.call("pid")
        frozen = asyncio.create_task(peer.ask("tools/call", {"name": "freeze"}))
        await eventually(lambda: _told(url, "has not answered tools/list"))
        assert "has written nothing for 1 seconds" in (await frozen)["error"]["message"]
        assert await peer.call("pid") != before


async def test_lines_that_are_no_json_rpc_are_logged_and_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ropewalk"):
        async with bridged() as url, Peer.of(url) as peer:
            await peer.initialize()
            assert await peer.call("garbage") == "clean"
    lines: list[Any] = [record for record in caplog.records if "no JSON-RPC" in record.message]
    assert [record.server for record in lines] == ["tested"] * 6
    assert lines[0].line == "this is no JSON"
    assert max(len(getattr(record, "line", "")) for record in lines) <= 200
    # What may be a part of an answer is in no log.
    assert not any("{" in getattr(record, "line", "") for record in lines)


async def test_an_answer_that_is_no_json_fails_its_call_and_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ropewalk"):
        async with bridged() as url, Peer.of(url) as peer:
            await peer.initialize()
            answer = await peer.ask("tools/call", {"name": "broken"})
            assert answer["error"]["message"] == "the answer of server 'tested' is no JSON-RPC"
    (record,) = [record for record in caplog.records if "no JSON-RPC" in record.message]
    assert "secret" not in str(vars(record))


async def test_an_answer_that_is_too_large_fails_its_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        assert len(await peer.call("big", bytes=jsonrpc.LARGEST_MESSAGE_BYTES - 1000)) > 16_000_000
        answer = await peer.ask("tools/call", {"name": "big", "arguments": {"bytes": jsonrpc.LARGEST_MESSAGE_BYTES}})
        assert answer["error"]["code"] == jsonrpc.TOO_LARGE
        assert str(jsonrpc.LARGEST_MESSAGE_BYTES) in answer["error"]["message"]
        assert await peer.call("echo", text="fine") == "fine"


async def test_a_request_that_is_too_large_is_refused() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        text = "x" * jsonrpc.LARGEST_MESSAGE_BYTES
        answer = await peer.post(peer.request("tools/call", {"name": "echo", "arguments": {"text": text}}))
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == jsonrpc.TOO_LARGE


async def test_more_calls_than_may_wait_are_refused_with_when_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "IN_FLIGHT", 2)
    monkeypatch.setattr(link, "QUEUE", 1)
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        calls = [peer.post(peer.request("tools/call", {"name": "wait"})) for _ in range(4)]
        tasks = [asyncio.create_task(call) for call in calls]
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        answer = refused.result()
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert "2 calls are in flight and 1 wait" in answer.json()["error"]["message"]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Those who went away gave their places up.
        await eventually(lambda: _served(peer))


async def _served(peer: Peer) -> bool:
    return (await peer.post(peer.request("tools/call", {"name": "pid"}))).status_code == 200


async def test_a_child_that_stops_reading_fills_the_queue_and_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUEUE", 1)
    async with bridged(timing=replace(QUICK, wait=1)) as url, Peer.of(url) as peer, Peer.of(url) as other:
        await peer.initialize()
        await other.initialize()
        pid = await peer.call("pid")
        os.kill(pid, signal.SIGSTOP)
        large = {"name": "echo", "arguments": {"text": "x" * 2_000_000}}
        waiting = [asyncio.create_task(peer.ask("tools/call", large)) for _ in range(3)]

        async def refused() -> bool:
            request = asyncio.create_task(other.post(other.request("tools/call", {"name": "pid"})))
            done, _ = await asyncio.wait([request], timeout=0.5)
            if not done:
                request.cancel()
            return bool(done) and request.result().status_code == 429

        await eventually(refused)
        os.kill(pid, signal.SIGCONT)
        answers = await asyncio.gather(*waiting)
        assert all("result" in answer or answer["error"]["code"] == jsonrpc.BUSY for answer in answers)
        assert sum("result" in answer for answer in answers) >= 2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("nonsense", 400, jsonrpc.PARSE_ERROR),
        ("[1]", 400, jsonrpc.INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": true, "method": "ping"}', 400, jsonrpc.INVALID_REQUEST),
        ('{"jsonrpc": "1.0", "id": 1, "method": "ping"}', 400, jsonrpc.INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": NaN, "method": "ping"}', 400, jsonrpc.PARSE_ERROR),
        ("[" * 100_000, 400, jsonrpc.PARSE_ERROR),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": -1e999}}', 400, jsonrpc.PARSE_ERROR),
    ],
)
async def test_a_body_that_is_no_message_never_reaches_the_child(body: str, status: int, code: int) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        answer = await peer.http.post(peer.url, content=body, headers=peer.headers)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code


async def test_a_request_that_cannot_be_written_again_gives_up_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(message: Any) -> str:
        if message.get("method") == "x/deep":
            raise RecursionError
        return json.dumps(message)

    monkeypatch.setattr(jsonrpc, "_encode", refuse)
    monkeypatch.setattr(link, "IN_FLIGHT", 1)
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        for _ in range(2):
            answer = await peer.ask("x/deep")
            assert answer["error"]["message"] == "the request is nested too deeply"
        assert await peer.call("echo", text="on") == "on"


@pytest.mark.parametrize("error", ["boom", {"code": [], "message": "x"}, None])
async def test_an_error_of_a_wrong_form_passes_as_it_is(error: Any) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        answer = await peer.post(peer.request("x/error", {"error": error}))
        assert answer.status_code == 200
        assert answer.json()["error"] == error


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"accept": "text/html"}, 406), ({"accept": "application/json"}, 406), ({"content-type": "text/plain"}, 415)],
)
async def test_a_client_that_cannot_take_the_answer_is_told(headers: dict[str, str], status: int) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        assert (await peer.post(peer.request("ping"), **headers)).status_code == status


async def test_only_its_own_names_are_answered_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROPEWALK_MCP_ALLOWED_HOSTS", "files-mcp,files-mcp.shop")
    async with bridged() as url, Peer.of(url) as peer:
        assert (await peer.post(peer.request("ping"), host="evil.example")).status_code == 421
        assert (await peer.post(peer.request("ping"), origin="https://evil.example")).status_code == 403
        await peer.initialize()
        assert (await peer.post(peer.request("ping"), host="files-mcp:8000")).status_code == 200
        # Probes come by the pod's address, and are no way to the child.
        assert (await peer.http.get(f"{url}/ready", headers={"host": "anything"})).status_code == 200


async def test_stderr_is_logged_line_by_line_with_the_servers_name_and_its_own_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "ropewalk"):
        async with bridged() as url, Peer.of(url) as peer:
            await peer.initialize()
            for line in ("plain", '{"level": "ERROR", "msg": "structured"}', "y" * 10_000):
                await peer.call("stderr", line=line)

            def lines() -> list[Any]:
                return [record for record in caplog.records if record.name == "ropewalk.mcp.stdio.stderr"]

            await eventually(lambda: len(lines()) == 3)
    assert [(record.levelname, record.message[:20]) for record in lines()] == [
        ("INFO", "plain"),
        ("ERROR", "structured"),
        ("INFO", "y" * 20),
    ]
    assert {record.server for record in lines()} == {"tested"}
    assert max(len(record.message) for record in lines()) == 4096


async def test_a_child_that_ignores_sigterm_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process._TERMINATION_SECONDS == 5
    monkeypatch.setattr(process, "_TERMINATION_SECONDS", 0.1)
    ignore = "import runpy, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    deaf = f"{ignore}; runpy.run_path({BY_HAND[1]!r}, run_name='__main__'); signal.pause()"
    async with bridged(sys.executable, "-c", deaf) as url, Peer.of(url) as peer:
        await peer.initialize()
        pid = await peer.call("pid")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def named_call(number: int) -> dict[str, Any]:
    """A call whose answer tells its id."""
    params = {"name": "echo", "arguments": {"text": str(number)}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


@asynccontextmanager
async def calls_that_wait(url: str, *numbers: int) -> AsyncIterator[tuple[Peer, list[asyncio.Task[httpx.Response]]]]:
    """Calls of a session that the bridge has taken and has no child for, and a client that speaks in their session."""
    async with Peer.of(url) as peer, Peer.of(url) as other:
        peer.session = other.session = "0" * 32 + ".3"

        async def taken(number: int) -> bool:
            # Until the bridge has the call, the id is free, and what it does not know is not found.
            answer = await peer.post({"jsonrpc": "2.0", "id": number, "method": "ping"})
            return answer.status_code == 400 and "its own" in answer.json()["error"]["message"]

        tasks = [asyncio.create_task(other.post(named_call(number))) for number in numbers]
        for number in numbers:
            await eventually(functools.partial(taken, number))
        yield peer, tasks


def answered(response: httpx.Response) -> str:
    return str(content(response.json()))


async def test_a_first_start_may_take_its_time(tmp_path: Path) -> None:
    starts = HeldStarts(tmp_path)
    async with (
        bridged(*starts.command, timing=replace(QUICK, wait=0), ready=False) as url,
        calls_that_wait(url, 1) as (_, [call]),
    ):
        await starts.let_go()
        assert answered(await call) == "1"


async def test_a_start_after_a_good_life_may_take_its_time_too(tmp_path: Path) -> None:
    starts = HeldStarts(tmp_path)
    timing = replace(QUICK, wait=0, steady=0)
    async with bridged(*starts.command, timing=timing, ready=False) as url, Peer.of(url) as peer:
        await starts.let_go()
        await eventually(lambda: _is_ready(url))
        await peer.initialize()
        await peer.ask("tools/call", {"name": "crash"})
        async with calls_that_wait(url, 2) as (_, [call]):
            await starts.let_go()
            assert answered(await call) == "2"


async def test_calls_that_wait_for_a_start_have_their_ids_and_can_be_given_up(tmp_path: Path) -> None:
    starts, methods = HeldStarts(tmp_path), tmp_path / "methods"
    async with (
        bridged(*starts.command, ready=False, MCP_TEST_FILE=str(methods)) as url,
        calls_that_wait(url, 1, 2, 3) as (peer, [left, cancelled, kept]),
    ):
        left.cancel()
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        assert (await peer.post(note)).status_code == 202
        await asyncio.wait([left])
        await starts.let_go()
        assert (await cancelled).json()["error"]["code"] == jsonrpc.CANCELLED
        assert answered(await kept) == "3"
        called = [json.loads(line) for line in methods.read_text().splitlines() if "tools/call" in line]
        assert [params["arguments"]["text"] for _, params in called] == ["3"]
