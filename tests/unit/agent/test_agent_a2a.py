"""A2A 0.3 over real HTTP, by the a2a-sdk's own client: card, turns, streams, cancellation, errors, bounds."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientJSONRPCError
from a2a.server.agent_execution import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.types import (
    DataPart,
    FilePart,
    FileWithBytes,
    Message,
    MessageSendParams,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskIdParams,
    TaskQueryParams,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    TextPart,
)
from mcp.server.mcpserver import MCPServer

from agent_models import Call, Gate, ScriptedModel, built
from agent_server import LoopbackMcpServer, RunningAgent, agent_config, running_agent
from ropewalk_agent.errors import AgentError
from ropewalk_agent.logs import JsonFormatter
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import a2a
from ropewalk_agent.routes.a2a_turns import RecentTasks, TurnExecutor
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.structured import TOOL_NAME
from waiting import eventually

CARD = "/.well-known/agent-card.json"


@asynccontextmanager
async def talking(agent: RunningAgent, *, streaming: bool) -> AsyncIterator[Client]:
    """The SDK's client, made from the agent's card."""
    async with httpx.AsyncClient(timeout=10) as http:
        card = await A2ACardResolver(http, str(agent.client.base_url)).get_agent_card()
        yield ClientFactory(ClientConfig(httpx_client=http, streaming=streaming)).create(card)


def said(text: str, context: str | None = "c", **fields: Any) -> Message:
    part = Part(root=TextPart(text=text))
    return Message(role=Role.user, message_id="m", parts=[part], context_id=context, **fields)


async def sent(client: Client, message: Message) -> tuple[Task, list[Any]]:
    """The task at the end, and the updates before."""
    task, updates = None, []
    async for event in client.send_message(message):
        assert isinstance(event, tuple)
        task, update = event
        updates.append(update)
    assert task is not None
    return task, updates


def texts(task: Task) -> list[str]:
    return [part.root.text for a in task.artifacts or () for part in a.parts if isinstance(part.root, TextPart)]


def count(agent: RunningAgent, outcome: str) -> float | None:
    labels = {"endpoint": "/a2a", "outcome": outcome}
    return agent.metrics.registry.get_sample_value("ropewalk_agent_requests_total", labels)


async def rpc(agent: RunningAgent, method: str, params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await agent.client.post("/a2a", json=body)
    assert answer.status_code == 200
    return dict(answer.json())


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


async def test_a_full_queue_rejects_the_task() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel([gate, "x"]), concurrency=1, queue={"maxLength": 0}) as agent,
        talking(agent, streaming=False) as client,
    ):
        holding = asyncio.create_task(agent.query("a"))
        await gate.wait_reached()
        task, _ = await sent(client, said("q"))
        assert task.status.state == TaskState.rejected
        assert task.metadata is not None
        assert task.metadata["error"]["code"] == "queue_full"
        gate.open()
        await holding


@pytest.mark.parametrize(("begun", "state"), [(False, TaskState.rejected), (True, TaskState.failed)])
async def test_only_a_turn_that_had_not_begun_is_rejected(
    monkeypatch: pytest.MonkeyPatch, begun: bool, state: TaskState
) -> None:
    async with running_agent(ScriptedModel()) as agent, talking(agent, streaming=False) as client:

        async def run(*_: Any, **__: Any) -> AsyncIterator[Any]:
            raise AgentError("not_ready", "no luck", begun=begun)
            yield

        monkeypatch.setattr(agent.runtime, "run", run)
        task, _ = await sent(client, said("q"))
    assert task.status.state == state


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_task_can_be_cancelled_and_its_place_is_free(streaming: bool) -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel([gate, "never"], ["fine"]), concurrency=1) as agent,
        talking(agent, streaming=True) as client,
        talking(agent, streaming=streaming) as other,
    ):
        ids: list[str] = []

        async def ask() -> Task:
            async for event in client.send_message(said("a")):
                assert isinstance(event, tuple)
                ids.append(event[0].id)
                last = event[0]
            return last

        asking = asyncio.create_task(ask())
        await gate.wait_reached()
        await eventually(lambda: bool(ids))
        cancelled = await other.cancel_task(TaskIdParams(id=ids[0]))
        assert cancelled.status.state == TaskState.canceled
        assert (await asking).status.state == TaskState.canceled
        task, _ = await sent(other, said("b"))
        assert texts(task) == ["fine"] or texts(task) == ["fine", ""]
        assert len(agent.model.asked[1]) == 1
        with pytest.raises(A2AClientJSONRPCError) as refused:
            await other.cancel_task(TaskIdParams(id=ids[0]))
        assert refused.value.error.code == -32002


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_leaves_cancels_its_turn_and_frees_its_place(streaming: bool) -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "never"], ["fine"]), concurrency=1) as agent:
        method = "message/stream" if streaming else "message/send"
        params = {"message": said("a").model_dump(mode="json", by_alias=True, exclude_none=True)}
        asking = asyncio.create_task(rpc(agent, method, params))
        await gate.wait_reached()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with talking(agent, streaming=False) as client:
            task, _ = await sent(client, said("b"))
        assert texts(task) == ["fine"]
        assert len(agent.model.asked[1]) == 1
        await eventually(lambda: count(agent, "cancelled") == 1)


async def test_a_client_that_leaves_after_the_last_event_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    left, tidied = asyncio.Event(), asyncio.Event()
    leave = a2a.Call.leave

    def leave_noting(call: a2a.Call) -> None:
        leave(call)
        left.set()

    monkeypatch.setattr(a2a.Call, "leave", leave_noting)
    async with running_agent(ScriptedModel(["done"])) as agent, talking(agent, streaming=True) as client:
        run = agent.runtime.run

        async def run_and_tidy(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            async for event in run(*arguments, **options):
                yield event
            await left.wait()
            tidied.set()

        monkeypatch.setattr(agent.runtime, "run", run_and_tidy)
        task, _ = await sent(client, said("q"))
        async with asyncio.timeout(5):
            await tidied.wait()
        kept = await client.get_task(TaskQueryParams(id=task.id))
        assert (kept.status.state, texts(kept)) == (TaskState.completed, ["done"])


async def test_a_task_that_nobody_waits_for_goes_on_and_can_be_asked_for() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "done"])) as agent, talking(agent, streaming=False) as client:
        message = said("a").model_dump(mode="json", by_alias=True, exclude_none=True)
        answer = await rpc(agent, "message/send", {"message": message, "configuration": {"blocking": False}})
        task_id = answer["result"]["id"]
        assert answer["result"]["status"]["state"] == "submitted"
        await gate.wait_reached()
        again = said("b", task_id=task_id)
        with pytest.raises(A2AClientJSONRPCError) as refused:
            await sent(client, again)
        assert refused.value.error.code == -32004
        gate.open()
        async with asyncio.timeout(10):
            while (task := await client.get_task(TaskQueryParams(id=task_id))).status.state != TaskState.completed:
                continue
        assert texts(task) == ["done"]


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


async def test_a_drain_finishes_a_stream_and_rejects_what_comes_later() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel(["first ", gate, "second"])) as agent,
        talking(agent, streaming=True) as client,
    ):
        asking = asyncio.create_task(sent(client, said("a")))
        await gate.wait_reached()
        draining = asyncio.create_task(agent.runtime.drain(5))
        await eventually(lambda: agent.runtime.draining)
        async with talking(agent, streaming=False) as other:
            late, _ = await sent(other, said("b", "another"))
        assert late.status.state == TaskState.rejected
        assert late.metadata is not None
        assert late.metadata["error"]["code"] == "not_ready"
        gate.open()
        task, _ = await asking
        assert task.status.state == TaskState.completed
        await draining


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


async def test_a_turn_whose_client_left_before_it_began_is_not_begun_and_its_queue_is_closed() -> None:
    config, metrics, tasks = agent_config(), Metrics(), RecentTasks()
    runtime = Runtime(config, metrics, build_model=lambda *_: built(ScriptedModel()))
    gone = a2a.Call({"request_id": "r", "outcome": "ok"})
    gone.leave()
    context = ServerCallContext(state={"call": gone, "method": "message/send"})
    request, queue = RequestContext(MessageSendParams(message=said("q")), call_context=context), EventQueue()
    await TurnExecutor(config, runtime, tasks).execute(request, queue)
    async with asyncio.timeout(5):
        await queue.close()
    task = await tasks.get(request.task_id or "")
    assert task is not None
    assert task.status.state == TaskState.canceled


def finished(name: str, text: str) -> Task:
    status = TaskStatus(state=TaskState.completed)
    return Task(id=name, context_id="c", status=status, history=[said(text)])


async def test_the_oldest_tasks_are_forgotten_beyond_the_bounds() -> None:
    tasks = RecentTasks(most_tasks=3, most_characters=25)
    for i in range(5):
        await tasks.save(finished(f"short-{i}", "x"))
    assert [await tasks.get(f"short-{i}") is not None for i in range(5)] == [False, False, True, True, True]
    await tasks.save(finished("long", "x" * 24))
    assert await tasks.get("short-3") is None
    assert await tasks.get("short-4") is not None
    await tasks.save(finished("too-long", "x" * 26))
    assert await tasks.get("too-long") is None


def made_handlers(monkeypatch: pytest.MonkeyPatch) -> list[DefaultRequestHandler]:
    """The handlers that will be made from now on."""
    handlers: list[DefaultRequestHandler] = []
    their_init = DefaultRequestHandler.__init__

    def init(self: DefaultRequestHandler, *arguments: Any) -> None:
        their_init(self, *arguments)
        handlers.append(self)

    monkeypatch.setattr(DefaultRequestHandler, "__init__", init)
    return handlers


async def asked(agent: RunningAgent, times: int) -> None:
    await eventually(lambda: len(agent.model.asked) == times)


async def test_whoever_joins_a_stream_and_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = made_handlers(monkeypatch)
    gate = Gate()
    model = ScriptedModel([gate, *["x"] * 1100])
    async with running_agent(model) as agent, talking(agent, streaming=True) as client:
        await rpc(agent, "tasks/get", {"id": "none"})
        asking = asyncio.create_task(sent(client, said("q")))
        await gate.wait_reached()
        (task_id,) = handlers[0]._running_agents
        joined = handlers[0].on_resubscribe_to_task(TaskIdParams(id=task_id))
        first = asyncio.ensure_future(anext(aiter(joined)))
        queue = cast(Any, handlers[0]._queue_manager)._task_queue[task_id]
        await eventually(lambda: bool(queue._children))
        gate.open()
        async with asyncio.timeout(10):
            task, _ = await asking
        assert (task.status.state, "".join(texts(task))) == (TaskState.completed, "x" * 1100)
        await first


async def test_nothing_is_left_of_requests_that_ended_however_they_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = made_handlers(monkeypatch)
    gate = Gate()
    model = ScriptedModel(["fine"], [RuntimeError("no")], [gate], [gate], [gate], [gate], [gate])
    async with running_agent(model) as agent, talking(agent, streaming=True) as client:
        for _ in range(2):
            await sent(client, said("q"))
        for turn in range(4):
            message = said("a", f"leaves-{turn}").model_dump(mode="json", by_alias=True, exclude_none=True)
            method = "message/stream" if turn % 2 else "message/send"
            leaving = asyncio.create_task(rpc(agent, method, {"message": message}))
            await asked(agent, 3 + turn)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        message = said("a", "cancelled").model_dump(mode="json", by_alias=True, exclude_none=True)
        answer = await rpc(agent, "message/send", {"message": message, "configuration": {"blocking": False}})
        await asked(agent, 7)
        handler = handlers[0]
        queues = cast(Any, handler._queue_manager)._task_queue
        joining = asyncio.create_task(rpc(agent, "tasks/resubscribe", {"id": answer["result"]["id"]}))
        await eventually(lambda: bool(queues[answer["result"]["id"]]._children))
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await eventually(lambda: not queues[answer["result"]["id"]]._children)
        await client.cancel_task(TaskIdParams(id=answer["result"]["id"]))
        await eventually(lambda: not handler._running_agents and not handler._background_tasks and not queues)
        await eventually(lambda: not agent.runtime.busy)


LEAN = """
import sys
from ropewalk_agent import lean
lean.install(with_boto=False)
import ropewalk_agent.routes.a2a_turns
assert "fastapi" not in sys.modules
for package in lean.RE_EXPORTING:
    if package.startswith("a2a"):
        module = sys.modules[package]
        for name in module.__all__:
            getattr(module, name)
"""


def in_a_process(code: str) -> tuple[int, str]:
    environment = {"PYTHONPATH": str(Path(__file__).parents[3] / "agent_image" / "src")}
    ended = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True)
    return ended.returncode, ended.stderr


def test_the_sdk_is_loaded_without_what_it_only_re_exports() -> None:
    assert in_a_process(LEAN) == (0, "")


def test_an_agent_that_is_not_asked_by_a2a_does_not_load_it() -> None:
    code = "import sys, ropewalk_agent.app; assert not {'a2a', 'fastapi', 'sse_starlette'} & set(sys.modules)"
    assert in_a_process(code) == (0, "")


async def test_a_tool_is_used_in_a_turn_of_a_task() -> None:
    async with running_agent(ScriptedModel([Call("no_such_tool")], ["done"])) as agent:
        async with talking(agent, streaming=False) as client:
            task, _ = await sent(client, said("q"))
        assert texts(task) == ["done"]
        assert len(agent.model.asked) == 2
