"""Shared mode: one child for all clients, and nothing of one client reaches another."""

import asyncio
import json
from pathlib import Path

import mcp
import pytest

from mcp_stdio import Peer, bridged, call_in_flight, content, messages
from waiting import eventually

pytestmark = pytest.mark.timeout(60)


def seen(path: Path, method: str) -> list[object]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [params for name, params in lines if name == method]


async def test_a_second_clients_initialize_never_reaches_the_child_nor_disturbs_the_first(tmp_path: Path) -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        first = await one.initialize()
        async with call_in_flight(one, tmp_path):
            second = await two.initialize()
        assert len(await two.call("initialized")) == 1
        assert one.session != two.session
        assert first == second
        # The child's own words, also those that the bridge does not know.
        assert first["serverInfo"] == {"name": "by-hand", "version": "1"}
        assert first["instructions"] == "Be gentle."
        assert first["extra"] == {"kept": True}


@pytest.mark.parametrize(
    ("asked", "answered"), [("2025-03-26", "2025-03-26"), ("2025-11-25", "2025-06-18"), ("1999-01-01", "2025-06-18")]
)
async def test_the_version_is_the_clients_where_the_child_knows_it(asked: str, answered: str) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        assert (await peer.initialize(asked))["protocolVersion"] == answered


async def test_many_clients_with_the_same_ids_get_their_own_answers() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()

        async def client(name: int) -> None:
            async with Peer.of(url) as own:
                await own.initialize()
                for number in range(10):
                    assert await own.call("echo", text=f"{name}:{number}") == f"{name}:{number}"

        await asyncio.gather(*(client(name) for name in range(10)))


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_of_either_era_calls_a_tool_and_sees_its_progress(mode: str) -> None:
    async with bridged() as url, mcp.Client(f"{url}/mcp", mode=mode) as client:
        steps: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        assert next(tool.name for tool in (await client.list_tools()).tools) == "echo"
        answer = await client.call_tool("progress", {}, progress_callback=note)
        assert answer.content[0].text == "done"  # type: ignore[union-attr]
        assert steps == [0, 1, 2]


async def test_an_unknown_method_and_its_fields_pass_as_they_are() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        answer = await peer.ask("x/unknown", {"nested": {"ü": [1, None, "\u2028"]}})
        assert answer["result"] == {"unknown": {"nested": {"ü": [1, None, "\u2028"]}}, "float": 1.5, "big": 2**70}


async def test_an_error_of_the_child_passes_as_it_is() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        answer = await peer.ask("x/other")
        assert answer["error"] == {"code": -32601, "message": "no x/other", "data": {"why": "test"}}


async def test_progress_comes_with_the_clients_own_token() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()

        async def tokens(peer: Peer) -> list[object]:
            params = {"name": "progress", "arguments": {}, "_meta": {"progressToken": "mine"}}
            got = messages(await peer.post(peer.request("tools/call", params)))
            return [message["params"]["progressToken"] for message in got[:-1]]

        for got in await asyncio.gather(tokens(one), tokens(two)):
            assert got == ["mine"] * 3


async def test_a_cancelled_call_is_cancelled_at_the_child_and_no_other() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        mine = asyncio.create_task(one.ask("tools/call", {"name": "wait"}))
        other = asyncio.create_task(two.ask("tools/call", {"name": "wait"}))
        await eventually(lambda: one.number and two.number)
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}

        async def cancelled() -> bool:
            await one.post(note)
            return mine.done()

        await eventually(cancelled)
        assert (await mine)["error"]["code"] == -32800
        assert await one.call("cancelled") == 1
        assert not other.done()
        other.cancel()


async def test_a_client_that_goes_away_cancels_its_call() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        gone = asyncio.create_task(one.ask("tools/call", {"name": "wait"}))
        await eventually(lambda: one.number)
        await asyncio.sleep(0)
        assert await two.call("cancelled") == 0
        gone.cancel()

        async def cancelled() -> bool:
            return bool(await two.call("cancelled") == 1)

        await eventually(cancelled)


async def test_changed_lists_are_told_to_all_and_updates_to_those_who_subscribed() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        await one.ask("resources/subscribe", {"uri": "file:///a"})
        async with one.stream() as first, two.stream() as second:
            await two.call("update", uri="file:///a")
            await two.call("changed")
            assert (await anext(first))["params"] == {"uri": "file:///a"}
            assert (await anext(first))["method"] == "notifications/tools/list_changed"
            assert (await anext(second))["method"] == "notifications/tools/list_changed"


async def test_an_update_of_a_wrong_form_hurts_nobody() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        await peer.ask("resources/subscribe", {"uri": "file:///a"})
        assert await peer.call("update", uri=["file:///a"]) == "updated"
        async with peer.stream() as got:
            await peer.call("update", uri="file:///a")
            assert (await anext(got))["params"] == {"uri": "file:///a"}


async def test_the_child_is_unsubscribed_only_with_the_last_subscriber(tmp_path: Path) -> None:
    methods = tmp_path / "methods"
    async with bridged(MCP_TEST_FILE=str(methods)) as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
            await peer.ask("resources/subscribe", {"uri": "file:///a"})
        await one.ask("resources/unsubscribe", {"uri": "file:///a"})
        assert seen(methods, "resources/unsubscribe") == []
        await two.http.delete(two.url, headers=two.headers)
        await eventually(lambda: seen(methods, "resources/unsubscribe") == [{"uri": "file:///a"}])


async def test_log_messages_go_to_the_caller_from_the_level_that_it_asked_for() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        await one.ask("logging/setLevel", {"level": "error"})
        await two.ask("logging/setLevel", {"level": "debug"})
        params = {"name": "log", "arguments": {"text": "hello"}}
        mine = messages(await one.post(one.request("tools/call", params)))
        assert [message["params"]["level"] for message in mine[:-1]] == ["error"]
        theirs = messages(await two.post(two.request("tools/call", params)))
        assert [message["params"]["level"] for message in theirs[:-1]] == ["debug", "error"]


async def test_the_child_logs_at_the_most_verbose_level_that_a_client_wants(tmp_path: Path) -> None:
    methods = tmp_path / "methods"
    async with bridged(MCP_TEST_FILE=str(methods)) as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        await one.ask("logging/setLevel", {"level": "debug"})
        await two.ask("logging/setLevel", {"level": "error"})
        assert seen(methods, "logging/setLevel") == [{"level": "debug"}] * 2


async def test_a_log_message_that_may_be_anothers_reaches_nobody(tmp_path: Path) -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize()
        async with call_in_flight(one, tmp_path):
            params = {"name": "log", "arguments": {"text": "whose?"}}
            answer = messages(await two.post(two.request("tools/call", params)))
        assert len(answer) == 1


async def test_what_a_call_that_was_given_up_still_says_reaches_no_other_client(tmp_path: Path) -> None:
    methods = tmp_path / "methods"
    async with bridged(MCP_TEST_FILE=str(methods)) as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize(elicitation={})
        gone = asyncio.create_task(one.ask("tools/call", {"name": "linger", "arguments": {"text": "for one only"}}))
        await eventually(lambda: seen(methods, "tools/call"))
        gone.cancel()
        await eventually(lambda: seen(methods, "notifications/cancelled"))
        got = messages(await two.post(two.request("tools/call", {"name": "await_linger"})))
        assert "for one only" not in json.dumps(got)
        # The late answer of the call says that the child has done with it: now the message is certain again.
        log = {"name": "log", "arguments": {"text": "for two"}}
        assert len(messages(await two.post(two.request("tools/call", log)))) == 3


async def test_what_the_child_says_outside_of_calls_reaches_one_client_only_while_it_has_worked_for_no_other() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as other:
        await one.initialize()
        async with one.stream() as got:
            await one.call("log_after", text="for one")
            assert (await anext(got))["params"]["data"] == "for one"
            await other.stateless("tools/call", {"name": "log_after", "arguments": {"text": "for another"}})
            await one.call("changed")
            assert (await anext(got))["method"] == "notifications/tools/list_changed"


async def test_a_question_reaches_the_only_client_that_it_can_be_for_and_its_answer_the_child() -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        await one.initialize(elicitation={})
        await two.initialize(elicitation={})
        params = {"name": "ask", "arguments": {"method": "elicitation/create", "params": {"message": "sure?"}}}
        async with one.stream(one.request("tools/call", params)) as got:
            question = await anext(got)
            assert question["method"] == "elicitation/create"
            assert question["params"] == {"message": "sure?"}
            reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"a": 1}}}
            # Another client's answer with that id is not taken.
            await two.post(reply | {"result": {"action": "decline"}})
            assert (await one.post(reply)).status_code == 202
            assert content(await anext(got))["result"] == {"action": "accept", "content": {"a": 1}}


async def test_a_question_that_may_be_for_either_of_two_clients_is_refused_with_the_way_out(tmp_path: Path) -> None:
    async with bridged() as url, Peer.of(url) as one, Peer.of(url) as two:
        for peer in (one, two):
            await peer.initialize(elicitation={})
        async with call_in_flight(one, tmp_path):
            refused = await two.call("ask", method="elicitation/create")
        assert "perSession" in refused["error"]["message"]


async def test_a_question_is_refused_where_the_client_cannot_answer_it() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        refused = await peer.call("ask", method="sampling/createMessage")
        assert refused["error"]["code"] == -32601
        assert "'sampling'" in refused["error"]["message"]


async def test_the_bridge_answers_the_childs_ping_and_the_clients() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        assert (await peer.call("ask", method="ping"))["result"] == {}
        assert (await peer.ask("ping"))["result"] == {}


async def test_a_session_of_another_replica_goes_on_here_and_one_that_was_ended_does_not() -> None:
    async with bridged() as url, bridged() as other, Peer.of(url) as peer, Peer.of(other) as moved:
        await peer.initialize(elicitation={})
        moved.session = peer.session
        assert await moved.call("echo", text="here too") == "here too"
        params = {"name": "ask", "arguments": {"method": "elicitation/create"}}
        async with moved.stream(moved.request("tools/call", params)) as got:
            assert (await anext(got))["method"] == "elicitation/create"
        assert (await moved.http.delete(moved.url, headers=moved.headers)).status_code == 200
        assert (await moved.post(moved.request("ping"))).status_code == 404


@pytest.mark.parametrize("name", ["", "abc", "0" * 32 + ".9ser", "0" * 32 + ".3xyz"])
async def test_a_session_that_never_was_is_not_found(name: str) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        peer.session = name or None
        status = (await peer.post(peer.request("tools/list"))).status_code
        assert status == (404 if name else 400)


async def test_two_requests_in_flight_with_one_id_are_refused(tmp_path: Path) -> None:
    methods = tmp_path / "methods"
    async with bridged(MCP_TEST_FILE=str(methods)) as url, Peer.of(url) as peer:
        await peer.initialize()
        waiting = asyncio.create_task(peer.ask("tools/call", {"name": "wait"}))
        await eventually(lambda: seen(methods, "tools/call"))
        again = await peer.post({"jsonrpc": "2.0", "id": peer.number, "method": "ping"})
        assert again.status_code == 400
        assert "its own" in again.json()["error"]["message"]
        waiting.cancel()


async def test_one_stream_a_session_at_a_time() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        async with peer.stream():
            assert (await peer.http.get(peer.url, headers=peer.headers)).status_code == 409


async def test_what_is_sent_before_the_stream_opens_is_not_lost() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        await peer.initialize()
        await peer.call("changed")
        async with peer.stream() as got:
            assert (await anext(got))["method"] == "notifications/tools/list_changed"
