"""A2A turns that end early or late: cancelled, left, refused, drained, and what is kept of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from a2a.client.errors import A2AClientJSONRPCError
from a2a.server.agent_execution import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.types import MessageSendParams, Task, TaskIdParams, TaskQueryParams, TaskState, TaskStatus

from agent_a2a import count, rpc, said, sent, talking, texts
from agent_models import Gate, ScriptedModel, built
from agent_server import RunningAgent, agent_config, running_agent
from ropewalk_agent.errors import AgentError
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import a2a
from ropewalk_agent.routes.a2a_turns import RecentTasks, TurnExecutor
from ropewalk_agent.runtime import Runtime
from waiting import eventually


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

        async def completed() -> Task:
            task = await client.get_task(TaskQueryParams(id=task_id))
            assert task.status.state == TaskState.completed
            return task

        assert texts(await eventually(completed)) == ["done"]


async def test_a_drain_finishes_a_stream_and_rejects_what_comes_later() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel(["first ", gate, "second"])) as agent,
        talking(agent, streaming=True) as client,
    ):
        asking = asyncio.create_task(sent(client, said("a")))
        await gate.wait_reached()
        draining = asyncio.create_task(agent.runtime.drain(5))
        await eventually(lambda: agent.runtime.leaving)
        async with talking(agent, streaming=False) as other:
            late, _ = await sent(other, said("b", "another"))
        assert late.status.state == TaskState.rejected
        assert late.metadata is not None
        assert late.metadata["error"]["code"] == "not_ready"
        gate.open()
        task, _ = await asking
        assert task.status.state == TaskState.completed
        await draining


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
