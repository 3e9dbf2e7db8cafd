"""Sessions over HTTP: who sees what, deleting, cancelling, busy sessions, a store that fails, and replicas."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_models import Gate, ScriptedModel
from agent_redis import RedisServer, serving_redis
from agent_server import RunningAgent, running_agent
from ropewalk_agent import runtime
from ropewalk_agent.routes.sessions import said
from waiting import eventually

Replica = Callable[[ScriptedModel], AbstractAsyncContextManager[RunningAgent]]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with serving_redis(tmp_path) as server:
        yield server


@pytest.fixture
def replica(redis_server: RedisServer) -> Replica:
    def started(model: ScriptedModel) -> AbstractAsyncContextManager[RunningAgent]:
        return running_agent(model, sessions={"store": "redis", "redisURLFile": str(redis_server.url_file)})

    return started


@pytest.fixture
async def two(replica: Replica) -> AsyncIterator[tuple[RunningAgent, RunningAgent]]:
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(replica(ScriptedModel(["first"]))),
            await stack.enter_async_context(replica(ScriptedModel(["second"]))),
        )


def error_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_session_tells_who_said_what_and_when() -> None:
    async with running_agent(ScriptedModel(["hi"])) as agent:
        begun = datetime.now(UTC)
        await agent.query("hello", session_id="s/1", user_id="anna")
        session = (await agent.client.get("/sessions/s%2F1", params={"user_id": "anna"})).json()
        assert session["turns"] == [
            {"role": "user", "text": "hello", "tools": []},
            {"role": "assistant", "text": "hi", "tools": []},
        ]
        assert (session["session_id"], session["messages"]) == ("s/1", 2)
        assert session["created_at"].endswith("Z")
        assert abs((datetime.fromisoformat(session["updated_at"]) - begun).total_seconds()) < 60
        listed = (await agent.client.get("/sessions", params={"user_id": "anna"})).json()
        assert listed == {"sessions": [{name: session[name] for name in session if name != "turns"}]}


def test_a_session_names_the_tools_that_were_called_and_keeps_their_results_back() -> None:
    messages: tuple[dict[str, Any], ...] = (
        {"role": "user", "content": [{"text": "2+2"}]},
        {
            "role": "assistant",
            "content": [{"text": "wait"}, {"toolUse": {"toolUseId": "1", "name": "add", "input": {}}}],
        },
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": "secret"}]}}]},
        {"role": "assistant", "content": [{"text": "4"}]},
    )
    assert [(turn["role"], turn["text"], turn["tools"]) for turn in said(messages)] == [
        ("user", "2+2", []),
        ("assistant", "wait", ["add"]),
        ("assistant", "4", []),
    ]


async def test_another_users_session_is_simply_not_there() -> None:
    async with running_agent(ScriptedModel(["hi"])) as agent:
        await agent.query("hello", session_id="s", user_id="anna")
        for who in ({"user_id": "bert"}, {}):
            assert error_of(await agent.client.get("/sessions/s", params=who)) == (404, "not_found")
            assert error_of(await agent.client.delete("/sessions/s", params=who)) == (404, "not_found")
            assert error_of(await agent.client.delete("/sessions/s/turn", params=who)) == (404, "not_found")
        assert (await agent.client.get("/sessions", params={"user_id": "bert"})).json() == {"sessions": []}
        assert (await agent.client.get("/sessions/s", params={"user_id": "anna"})).status_code == 200


async def test_sessions_of_nobody_are_found_by_their_id_and_never_listed() -> None:
    async with running_agent(ScriptedModel(["hi"])) as agent:
        await agent.query("hello", session_id="s")
        assert error_of(await agent.client.get("/sessions")) == (400, "invalid_request")
        assert error_of(await agent.client.get("/sessions", params={"user_id": ""})) == (400, "invalid_request")
        assert error_of(await agent.client.get("/sessions", params={"user": "x"})) == (400, "invalid_request")
        assert (await agent.client.get("/sessions/s")).json()["messages"] == 2


async def test_a_deleted_session_begins_anew() -> None:
    model = ScriptedModel(["hi"])
    async with running_agent(model) as agent:
        await agent.query("hello", session_id="s")
        assert (await agent.client.delete("/sessions/s")).status_code == 204
        assert error_of(await agent.client.delete("/sessions/s")) == (404, "not_found")
        await agent.query("again", session_id="s")
        assert [len(asked) for asked in model.asked] == [1, 1]


async def test_a_cancelled_turn_ends_for_its_caller_and_leaves_the_history_as_it_was() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel(["one"], [gate, "two"], ["three"])) as agent:
        await agent.query("1", session_id="s")
        assert error_of(await agent.client.delete("/sessions/s/turn")) == (404, "not_found")
        running = asyncio.create_task(agent.query("2", session_id="s"))
        await gate.wait_reached()
        assert error_of(await agent.client.delete("/sessions/s")) == (409, "session_busy")
        assert (await agent.client.delete("/sessions/s/turn")).status_code == 204
        assert error_of(await running) == (409, "cancelled")
        assert (await agent.query("3", session_id="s")).json()["response"] == "three"
        turns = (await agent.client.get("/sessions/s")).json()["turns"]
        assert [turn["text"] for turn in turns] == ["1", "one", "3", "three"]


async def test_a_cancelled_stream_ends_with_an_error() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel(["begun", gate, "never"])) as agent:
        headers = {"accept": "text/event-stream"}
        body = {"query": "1", "session_id": "s"}
        async with agent.client.stream("POST", "/query", json=body, headers=headers) as answer:
            lines = answer.aiter_lines()
            while "begun" not in await anext(lines):
                pass
            assert (await agent.client.delete("/sessions/s/turn")).status_code == 204
            rest = [line async for line in lines]
        assert "event: error" in rest
        assert '"code": "cancelled"' in "".join(rest)


async def test_who_will_not_wait_for_a_busy_session_gets_409() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "one"])) as agent:
        first = asyncio.create_task(agent.query("1", session_id="s"))
        await gate.wait_reached()
        assert error_of(await agent.query("2", session_id="s", wait_for_session=False)) == (409, "session_busy")
        gate.open()
        assert (await first).status_code == 200


async def test_sessions_in_files_survive_a_restart_of_the_agent(tmp_path: Path) -> None:
    sessions = {"store": "file", "directory": str(tmp_path / "sessions")}
    async with running_agent(ScriptedModel(["one"]), sessions=sessions) as agent:
        await agent.query("1", session_id="s", user_id="u")
    model = ScriptedModel(["two"])
    async with running_agent(model, sessions=sessions) as agent:
        await eventually(lambda: len(agent.runtime._sessions) == 1)  # the first clean-up, behind readiness, counts them
        assert "ropewalk_agent_sessions 1.0" in (await agent.client.get("/metrics")).text
        await agent.query("2", session_id="s", user_id="u")
    assert [message["content"][0]["text"] for message in model.asked[0]] == ["1", "one", "2"]


async def test_a_directory_that_cannot_be_written_is_told_by_ready(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    sessions = {"store": "file", "directory": str(tmp_path / "file" / "sessions")}
    async with running_agent(ScriptedModel(["one"]), wait=False, sessions=sessions) as agent:
        await agent.until("/ready", 503, saying="disk")
        assert error_of(await agent.query("1")) == (503, "not_ready")
        (tmp_path / "file").unlink()
        await agent.until("/ready", 200)
        assert (await agent.query("1")).status_code == 200


async def test_two_replicas_go_on_with_each_others_sessions(two: tuple[RunningAgent, RunningAgent]) -> None:
    for number in range(50):
        answer = await two[number % 2].query(str(number), session_id="s", user_id="u")
        assert answer.status_code == 200
    # The window is 20 messages, the question included, so ten turns are kept.
    turns = (await two[0].client.get("/sessions/s", params={"user_id": "u"})).json()["turns"]
    texts = [turn["text"] for turn in turns]
    assert texts == [text for n in range(40, 50) for text in (str(n), ("first", "second")[n % 2])]
    for agent in two:
        assert [info["session_id"] for info in (await agent.client.get("/sessions?user_id=u")).json()["sessions"]] == [
            "s"
        ]


async def test_turns_that_are_sent_to_two_replicas_at_once_all_end_up_in_the_session(
    two: tuple[RunningAgent, RunningAgent],
) -> None:
    answers = await asyncio.gather(*(two[n % 2].query(str(n), session_id="s") for n in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    turns = (await two[1].client.get("/sessions/s")).json()["turns"]
    assert sorted(turn["text"] for turn in turns if turn["role"] == "user") == [str(n) for n in range(10)]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 10


async def test_a_session_that_another_replica_works_on_is_busy(replica: Replica) -> None:
    gate = Gate()
    async with replica(ScriptedModel([gate, "one"])) as one, replica(ScriptedModel(["two"])) as other:
        first = asyncio.create_task(one.query("1", session_id="s"))
        await gate.wait_reached()
        assert error_of(await other.query("2", session_id="s", wait_for_session=False)) == (409, "session_busy")
        assert error_of(await other.client.delete("/sessions/s")) == (409, "session_busy")
        assert error_of(await other.client.delete("/sessions/s/turn")) == (404, "not_found")
        waiting = asyncio.create_task(other.query("2", session_id="s"))
        gate.open()
        assert (await first).status_code == 200
        assert (await waiting).status_code == 200
        turns = (await one.client.get("/sessions/s")).json()["turns"]
        assert [turn["text"] for turn in turns] == ["1", "one", "2", "two"]


async def test_a_redis_that_is_gone_makes_the_agent_not_ready_until_it_is_back(
    replica: Replica, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_SESSIONS_CHECK_SECONDS", 0.05)
    async with replica(ScriptedModel(["ok"])) as agent:
        redis_server.stop()
        assert error_of(await agent.query("1", session_id="s")) == (503, "not_ready")
        reasons = (await agent.until("/ready", 503)).json()["reasons"]
        assert any("session store" in reason for reason in reasons)
        assert (await agent.client.get("/health")).status_code == 200
        redis_server.start()
        await agent.until("/ready", 200)
        assert (await agent.query("1", session_id="s")).status_code == 200


async def test_a_session_whose_id_ends_in_turn_is_forgotten_and_no_turn_of_another_is_cancelled() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel(["kept"], [gate, "done"])) as agent:
        await agent.query("x", session_id="a/turn")
        running = asyncio.create_task(agent.query("y", session_id="a"))
        await gate.wait_reached()
        assert (await agent.client.delete("/sessions/a%2Fturn")).status_code == 204
        assert error_of(await agent.client.delete("/sessions/a%2Fturn")) == (404, "not_found")
        assert error_of(await agent.client.delete("/sessions/a%2Fturn/turn")) == (404, "not_found")
        gate.open()
        assert (await running).json()["response"] == "done"
