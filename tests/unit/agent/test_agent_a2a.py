"""A2A 0.3 over real HTTP, by the a2a-sdk's own client: card, turns, streams, errors."""

import asyncio
import logging
from typing import Any

import pytest
from a2a.client import A2ACardResolver
from a2a.client.errors import A2AClientJSONRPCError
from a2a.types import (
    DataPart,
    FilePart,
    FileWithBytes,
    Part,
    TaskArtifactUpdateEvent,
    TaskQueryParams,
    TaskState,
    TaskStatusUpdateEvent,
    TextPart,
)
from mcp.server.mcpserver import MCPServer

from agent_a2a import CARD, count, rpc, said, sent, talking, texts
from agent_models import Call, Gate, ScriptedModel
from agent_server import LoopbackMcpServer, running_agent
from ropewalk_agent.logs import JsonFormatter
from ropewalk_agent.structured import TOOL_NAME
from waiting import eventually


async def test_the_card_tells_who_the_agent_is_and_what_it_can_do() -> None:
    mcp = MCPServer("math")
    mcp.tool(name="add", description="Adds two numbers.")(lambda a, b: a + b)
    server = LoopbackMcpServer(mcp)
    server.start()
    try:
        servers = [{"name": "math", "url": server.url}]
        async with running_agent(ScriptedModel(), description="Knows numbers.", mcpServers=servers) as agent:
            card = await A2ACardResolver(agent.client, str(agent.client.base_url)).get_agent_card()
    finally:
        server.stop()
    assert (card.name, card.description, card.version) == ("tested", "Knows numbers.", "0.1.0")
    assert (card.protocol_version, card.capabilities.streaming) == ("0.3.0", True)
    assert card.url == f"{agent.client.base_url}/a2a"
    assert [(skill.id, skill.description) for skill in card.skills] == [("add", "Adds two numbers.")]


async def test_the_address_in_the_card_is_the_one_that_was_asked() -> None:
    async with running_agent(ScriptedModel()) as agent:
        headers = {"host": "agents.example", "x-forwarded-proto": "https"}
        card = (await agent.client.get(CARD, headers=headers)).json()
    assert card["url"] == "https://agents.example/a2a"


async def test_a_message_is_answered_by_a_completed_task() -> None:
    async with running_agent(ScriptedModel(["4", "2"])) as agent, talking(agent, streaming=False) as client:
        task, _ = await sent(client, said("what?"))
        assert (task.status.state, task.context_id, texts(task)) == (TaskState.completed, "c", ["42"])
        assert task.metadata is not None
        assert task.metadata["usage"] == {"input_tokens": 10, "output_tokens": 5}
        assert (task.metadata["session_id"], task.metadata["stop_reason"]) == ("c", "end_turn")
        assert count(agent, "ok") == 1
        assert await client.get_task(TaskQueryParams(id=task.id)) == task


async def test_a_context_is_a_session_and_a_message_without_one_begins_anew() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, talking(agent, streaming=False) as client:
        await sent(client, said("one"))
        await sent(client, said("two"))
        first, _ = await sent(client, said("three", None))
        second, _ = await sent(client, said("four", None))
        assert first.context_id != second.context_id
        assert [len(asked) for asked in agent.model.asked] == [1, 3, 1, 1]
        assert (await agent.query("five", session_id="c")).status_code == 200
        assert len(agent.model.asked[4]) == 5


async def test_a_stream_tells_text_before_the_model_has_finished() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel(["first ", gate, "second"])) as agent,
        talking(agent, streaming=True) as client,
    ):
        told: list[Any] = []
        pieces: list[str] = []
        async for event in client.send_message(said("q")):
            assert isinstance(event, tuple)
            task, update = event
            told.append(update)
            if isinstance(update, TaskArtifactUpdateEvent):  # the client goes on to add to the first one
                pieces += [part.root.text for part in update.artifact.parts if isinstance(part.root, TextPart)]
                gate.open()
        artifacts = [update for update in told if isinstance(update, TaskArtifactUpdateEvent)]
        states = [update.status.state for update in told if isinstance(update, TaskStatusUpdateEvent)]
        assert pieces == ["first ", "second", ""]
        assert [(a.append, a.last_chunk) for a in artifacts] == [(False, False), (True, False), (True, True)]
        assert len({a.artifact.artifact_id for a in artifacts}) == 1
        assert states == [TaskState.working, TaskState.completed]
        assert texts(await client.get_task(TaskQueryParams(id=task.id))) == ["first second"]


async def test_whoever_joins_a_stream_later_gets_the_rest_and_changes_nothing() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel(["first ", gate, "second"])) as agent,
        talking(agent, streaming=True) as client,
    ):
        ids: list[str] = []

        async def ask() -> None:
            async for event in client.send_message(said("q")):
                assert isinstance(event, tuple)
                ids.append(event[0].id)

        asking = asyncio.create_task(ask())
        await gate.wait_reached()
        await eventually(lambda: len(ids) == 3)
        body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": ids[0]}}
        async with agent.client.stream("POST", "/a2a", json=body) as late:  # by hand, to know when it is on its way
            gate.open()
            rest = [line async for line in late.aiter_lines() if line.startswith("data: ")]
        await asking
        assert ["second" in rest[0], "completed" in rest[-1]] == [True, True]
        assert texts(await client.get_task(TaskQueryParams(id=ids[0]))) == ["first second"]


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_structured_answer_is_a_data_part(streaming: bool) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with running_agent(ScriptedModel([Call(TOOL_NAME, {"n": 7})]), outputSchema=schema) as agent:
        assert "application/json" in (await agent.client.get(CARD)).json()["defaultOutputModes"]
        async with talking(agent, streaming=streaming) as client:
            task, _ = await sent(client, said("q"))
    parts = [part.root for artifact in task.artifacts or () for part in artifact.parts]
    assert [part.data for part in parts if isinstance(part, DataPart)] == [{"n": 7}]


@pytest.mark.parametrize("streaming", [False, True])
async def test_half_a_character_of_the_model_breaks_nothing(streaming: bool) -> None:
    async with running_agent(ScriptedModel(["a\ud83d"])) as agent, talking(agent, streaming=streaming) as client:
        task, _ = await sent(client, said("q"))
    assert "".join(texts(task)) == "a?"


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_turn_that_fails_is_a_failed_task_with_our_code(streaming: bool) -> None:
    async with running_agent(ScriptedModel([RuntimeError("no luck")])) as agent:
        async with talking(agent, streaming=streaming) as client:
            task, _ = await sent(client, said("q"))
        assert task.status.state == TaskState.failed
        assert task.metadata is not None
        assert task.metadata["error"]["code"] == "model_error"
        assert task.status.message is not None
        assert "no luck" in str(task.status.message.parts[0].root)
        await eventually(lambda: count(agent, "model_error") == 1)


@pytest.mark.parametrize(
    ("method", "params", "code", "outcome"),
    [
        ("tasks/get", {"id": "none"}, -32001, "not_found"),
        ("tasks/cancel", {"id": "none"}, -32001, "not_found"),
        ("message/send", {}, -32602, "invalid_request"),
        ("no/such/method", {}, -32601, "not_found"),
        ("message/send", {"message": {"role": "user", "messageId": "m", "parts": []}}, -32602, "invalid_request"),
    ],
)
async def test_a_wrong_request_has_the_code_of_the_protocol(method: str, params: Any, code: int, outcome: str) -> None:
    async with running_agent(ScriptedModel()) as agent:
        assert (await rpc(agent, method, params))["error"]["code"] == code
        assert count(agent, outcome) == 1
        assert agent.model.asked == []


@pytest.mark.parametrize("streaming", [False, True])
async def test_what_is_not_text_and_a_strange_context_are_refused(streaming: bool) -> None:
    file = Part(root=FilePart(file=FileWithBytes(bytes="AAAA", mime_type="image/png")))
    async with running_agent(ScriptedModel()) as agent, talking(agent, streaming=streaming) as client:
        for message, code in ((said("q"), -32005), (said("q", "two words"), -32602)):
            if code == -32005:
                message.parts = [file]
            with pytest.raises(A2AClientJSONRPCError) as refused:
                await sent(client, message)
            assert refused.value.error.code == code
        await eventually(lambda: count(agent, "invalid_request") == 2)


async def test_a_refusal_of_half_a_character_blames_the_request() -> None:
    async with running_agent(ScriptedModel()) as agent:
        body = b'{"jsonrpc": "2.0", "method": [{"\\ud800": null}]}'
        answer = await agent.client.post("/a2a", content=body, headers={"content-type": "application/json"})
        assert answer.json()["error"]["code"] == -32600


async def test_a_body_that_is_not_json_is_a_parse_error() -> None:
    async with running_agent(ScriptedModel()) as agent:
        for body in (b"{", b"\xff\xfe\xff", b"[" * 100_000):
            answer = await agent.client.post("/a2a", content=body)
            assert answer.json()["error"]["code"] == -32700
        assert count(agent, "invalid_request") == 3


async def test_a_defect_of_ours_is_an_internal_error_with_only_a_request_id(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_agent(ScriptedModel()) as agent:
        await rpc(agent, "tasks/get", {"id": "none"})
        monkeypatch.setattr("ropewalk_agent.routes.a2a_turns._CONTEXT_ID", None)
        message = said("q").model_dump(mode="json", by_alias=True, exclude_none=True)
        error = (await rpc(agent, "message/send", {"message": message}))["error"]
        assert error["code"] == -32603
        assert error["data"]["error"]["code"] == "internal"
        assert "NoneType" not in str(error)
        assert count(agent, "internal") == 1


async def test_what_is_asked_and_said_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model = ScriptedModel(["canary answer"], [RuntimeError("canary failure")])
    async with running_agent(model) as agent, talking(agent, streaming=True) as client:
        await sent(client, said("canary question"))
        await sent(client, said("canary question"))
        await rpc(agent, "message/send", {"canary": 1})
        await rpc(agent, "canary", [])
    ours = [record for record in caplog.records if record.name.startswith(("a2a", "ropewalk"))]
    lines = [JsonFormatter().format(record) + record.getMessage() for record in ours]
    assert [line for line in lines if "canary" in line] == []


async def test_a_tool_is_used_in_a_turn_of_a_task() -> None:
    async with running_agent(ScriptedModel([Call("no_such_tool")], ["done"])) as agent:
        async with talking(agent, streaming=False) as client:
            task, _ = await sent(client, said("q"))
        assert texts(task) == ["done"]
        assert len(agent.model.asked) == 2
