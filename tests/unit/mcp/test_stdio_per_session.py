"""perSession mode: a child for each session, and everything between the two passes untouched."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import httpx
import mcp
import pytest

from mcp_stdio import PER_SESSION, QUICK, Peer, bridged, call_in_flight, content, messages, pass_time
from waiting import eventually

pytestmark = pytest.mark.timeout(60)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_each_session_has_its_own_child_which_gets_the_clients_own_initialize() -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as one, Peer.of(url) as two:
        await one.initialize("2025-06-18", roots={"listChanged": True}, experimental={"x": 1})
        await two.initialize()
        assert await one.call("pid") != await two.call("pid")
        (initialized,) = await one.call("initialized")
        assert initialized["capabilities"] == {"roots": {"listChanged": True}, "experimental": {"x": 1}}
        assert initialized["clientInfo"]["name"] == "t"


async def test_a_deleted_session_ends_its_child_and_no_other() -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as one, Peer.of(url) as two:
        await one.initialize()
        await two.initialize()
        first, second = await one.call("pid"), await two.call("pid")
        assert (await one.http.delete(one.url, headers=one.headers)).status_code == 200
        await eventually(lambda: not alive(first))
        assert (await one.post(one.request("ping"))).status_code == 404
        assert await two.call("pid") == second


async def test_one_client_too_many_is_told_when_to_come_back_and_served_once_there_is_room() -> None:
    async with bridged(mode=PER_SESSION, max_sessions=2) as url, Peer.of(url) as one, Peer.of(url) as two:
        await one.initialize()
        await two.initialize()
        async with Peer.of(url) as three:
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            refused = await three.post(three.request("initialize", params))
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "2 sessions, which is the most (maxSessions)" in refused.json()["error"]["message"]
            await one.http.delete(one.url, headers=one.headers)
            await three.initialize()
            assert await three.call("echo", text="in") == "in"


async def test_a_rush_of_clients_starts_no_more_children_than_there_is_room_for() -> None:
    async with bridged(mode=PER_SESSION, max_sessions=3) as url, Peer.of(url) as peer:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answers = await asyncio.gather(*(peer.post(peer.request("initialize", params)) for _ in range(12)))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 9


async def test_an_idle_session_is_ended_and_one_with_an_open_stream_or_a_call_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = bridged(mode=PER_SESSION, idle_timeout_seconds=20)
    async with serving as url, Peer.of(url) as idle, Peer.of(url) as listening, Peer.of(url) as working:
        await listening.initialize()
        await working.initialize()
        async with listening.stream():
            async with call_in_flight(working, tmp_path):
                # It has been used later than the others, so that its end says that their time is over too.
                await idle.initialize()
                pid = await idle.call("pid")
                pass_time(monkeypatch, 20)
                await eventually(lambda: not alive(pid))
                assert (await idle.post(idle.request("ping"))).status_code == 404
            assert await listening.call("echo", text="still here") == "still here"


async def test_a_child_that_dies_fails_its_calls_and_its_session_has_ended() -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as one, Peer.of(url) as two:
        await one.initialize()
        await two.initialize()
        crashed = await one.ask("tools/call", {"name": "crash"})
        assert "exited with code 3" in crashed["error"]["message"]
        assert (await one.post(one.request("ping"))).status_code == 404
        assert await two.call("echo", text="unhurt") == "unhurt"


@pytest.mark.parametrize("end", ["kill", "crash"])
async def test_the_place_of_a_child_that_died_is_free_for_its_clients_next_session(end: str) -> None:
    async with bridged(mode=PER_SESSION, max_sessions=1) as url, Peer.of(url) as peer:
        for _ in range(3):
            await peer.initialize()
            assert (await peer.post(peer.request("tools/call", {"name": end}))).status_code == 503
            peer.session = None


async def test_a_client_that_leaves_during_initialize_leaves_no_child_and_no_place(tmp_path: Path) -> None:
    methods = tmp_path / "methods"
    serving = bridged(mode=PER_SESSION, max_sessions=1, MCP_TEST_FILE=str(methods))
    async with serving as url, Peer.of(url) as one, Peer.of(url) as two, httpx.AsyncClient(verify=False) as http:
        gone = asyncio.create_task(one.initialize(experimental={"silent": {}}))
        await eventually(lambda: "silent" in methods.read_text())
        gone.cancel()

        async def children() -> bool:
            return "ropewalk_mcp_stdio_children 0.0" in (await http.get(f"{url}/metrics")).text

        await eventually(children)
        await eventually(lambda: _opened(two))


async def _opened(peer: Peer) -> bool:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    return (await peer.post(peer.request("initialize", params))).status_code == 200


async def test_a_hung_child_is_ended_once_its_client_gave_up_a_call() -> None:
    timing = replace(QUICK, hung=0.2, probe=0.5)
    serving = bridged(mode=PER_SESSION, timing=timing)
    async with serving as url, Peer.of(url) as hung, Peer.of(url) as working, Peer.of(url) as patient:
        for peer in (hung, working, patient):
            await peer.initialize()
        pids = [await peer.call("pid") for peer in (hung, working, patient)]
        calls = [asyncio.create_task(peer.ask("tools/call", {"name": "wait"})) for peer in (working, patient)]
        calls.append(asyncio.create_task(hung.ask("tools/call", {"name": "freeze"})))
        await eventually(lambda: stopped(pids[0]))
        calls[0].cancel()
        calls[2].cancel()
        await eventually(lambda: not alive(pids[0]))
        assert (await hung.post(hung.request("ping"))).status_code == 404
        # One that answers a ping goes on, and so does one whose client still waits.
        assert await working.call("pid") == pids[1]
        assert await patient.call("pid") == pids[2]
        calls[1].cancel()


async def test_notifications_to_a_child_that_does_not_read_are_refused_once_its_pipe_is_full() -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as peer:
        await peer.initialize()
        pid = await peer.call("pid")
        os.kill(pid, signal.SIGSTOP)
        note = {"jsonrpc": "2.0", "method": "x/large", "params": {"text": "x" * 500_000}}
        answers = [await peer.post(note) for _ in range(6)]
        assert [answer.status_code for answer in answers[:2]] == [202] * 2
        assert answers[-1].status_code == 429
        assert answers[-1].headers["retry-after"] == "1"
        os.kill(pid, signal.SIGCONT)

        async def taken() -> bool:
            return (await peer.post(note)).status_code == 202

        await eventually(taken)


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_a_notification_right_behind_an_answer_reaches_the_stream() -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as peer:
        await peer.initialize()
        async with peer.stream() as got:
            for number in range(5):
                assert await peer.call("log_after", text=str(number)) == "answered"
                assert (await anext(got))["params"]["data"] == str(number)


async def test_the_end_of_a_stream_counts_as_use(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = bridged(mode=PER_SESSION, idle_timeout_seconds=25)
    async with serving as url, Peer.of(url) as idle, Peer.of(url) as listening, Peer.of(url) as other:
        for peer in (idle, listening, other):
            await peer.initialize()
        pid = await idle.call("pid")
        async with listening.stream():
            pass_time(monkeypatch, 20)
            assert await other.call("echo", text="20 s later") == "20 s later"
        assert await other.call("echo", text="the stream has ended") == "the stream has ended"
        pass_time(monkeypatch, 20)
        # Its end says that the time is over of whatever was last used with it.
        await eventually(lambda: not alive(pid))
        assert await listening.call("echo", text="still here") == "still here"


async def test_questions_log_messages_and_updates_reach_the_sessions_client_whatever_others_do(tmp_path: Path) -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize(elicitation={})
        async with call_in_flight(two, tmp_path):
            params = {"name": "ask", "arguments": {"method": "elicitation/create", "params": {"message": "sure?"}}}
            async with one.stream(one.request("tools/call", params)) as got:
                question = await anext(got)
                assert (question["id"], question["params"]) == (1000, {"message": "sure?"})
                await one.post({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "cancel"}})
                assert content(await anext(got))["result"] == {"action": "cancel"}
            logged = messages(await one.post(one.request("tools/call", {"name": "log", "arguments": {"text": "mine"}})))
            assert [message["method"] for message in logged[:-1]] == ["notifications/message"] * 2
            async with one.stream() as stream:
                update = {"name": "update", "arguments": {"uri": "u"}}
                updated = messages(await one.post(one.request("tools/call", update)))
                assert updated[0]["params"] == {"uri": "u"}
                assert stream is not None


async def test_a_stateless_client_is_served_from_a_fresh_child_for_each_call_of_an_older_server() -> None:
    async with bridged(mode=PER_SESSION, max_sessions=1) as url, Peer.of(url) as peer:
        answers = [await peer.stateless("tools/call", {"name": "pid"}) for _ in range(4)]
        pids = {content(answer.json()) for answer in answers}
        assert len(pids) == 4
        await eventually(lambda: not any(alive(pid) for pid in pids))


async def test_no_process_is_started_to_refuse_a_method_that_the_stateless_era_does_not_have() -> None:
    async with bridged(mode=PER_SESSION, max_sessions=1) as url, Peer.of(url) as peer, Peer.of(url) as holder:
        await holder.initialize()
        answer = await peer.stateless("ping")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)


async def test_a_stateless_client_answers_an_older_servers_question() -> None:
    async with bridged(mode=PER_SESSION) as url, Peer.of(url) as peer:
        first = (await peer.stateless("tools/call", {"name": "ask_twice"})).json()["result"]
        for _ in range(2):
            (key,) = first["inputRequests"]
            reply = {"requestState": first["requestState"], "inputResponses": {key: {"action": "decline"}}}
            answer = (await peer.stateless("tools/call", {"name": "ask_twice"} | reply)).json()
            first = answer["result"]
        assert content(answer) == [{"action": "decline"}] * 2


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_of_either_era_is_served(mode: str) -> None:
    async with bridged(mode=PER_SESSION) as url, mcp.Client(f"{url}/mcp", mode=mode) as client:
        answer = await client.call_tool("echo", {"text": mode})
        assert answer.content[0].text == mode  # type: ignore[union-attr]


async def test_it_is_not_ready_before_the_server_has_listed_its_tools_once() -> None:
    serving = bridged(mode=PER_SESSION, ready=False, MCP_TEST_NO_TOOLS="1")
    async with serving as url, httpx.AsyncClient(verify=False) as http:

        async def told() -> bool:
            return "the database is down" in (await http.get(f"{url}/ready")).text

        await eventually(told)
