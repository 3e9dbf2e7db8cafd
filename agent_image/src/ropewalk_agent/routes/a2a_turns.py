"""What answers POST /a2a: the a2a-sdk's server classes, with an executor that runs turns on the bridge.

Not Strands' own executor, and docs/adr/0004-a2a-executor.md says why. Only a2a.py imports this module, at the first
request. Knows no HTTP beyond what the SDK hands over. Never logs what was asked or said.
"""

import asyncio
import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

# The SDK makes a span for every event that it queues; whoever wants them can set this.
os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.apps.jsonrpc.jsonrpc_app import DefaultCallContextBuilder
from a2a.server.apps.jsonrpc.starlette_app import A2AStarletteApplication
from a2a.server.context import ServerCallContext
from a2a.server.events.event_consumer import EventConsumer
from a2a.server.events.event_queue import Event, EventQueue
from a2a.server.request_handlers.default_request_handler import TERMINAL_TASK_STATES, DefaultRequestHandler
from a2a.server.tasks.task_store import TaskStore
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types import (
    AgentCard,
    ContentTypeNotSupportedError,
    DataPart,
    InternalError,
    InvalidParamsError,
    Message,
    MessageSendParams,
    Part,
    Task,
    TaskIdParams,
    TaskNotFoundError,
    TaskState,
    TaskStatus,
    TextPart,
    UnsupportedOperationError,
)
from a2a.utils.errors import ServerError
from a2a.utils.task import new_task
from starlette.requests import Request
from starlette.types import ASGIApp

from ropewalk_agent.config import AgentConfig
from ropewalk_agent.errors import AgentError, internal_error
from ropewalk_agent.events import Answer, TextDelta, TurnRequest
from ropewalk_agent.routes import turns
from ropewalk_agent.routes.a2a import PATH, Call
from ropewalk_agent.routes.query import answer_body
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.whole import whole

_log = logging.getLogger("ropewalk.a2a")

MOST_TASKS = 1000
MOST_CHARACTERS = 8 * 1024 * 1024
"""How much text the finished tasks that are kept may hold in all."""

_CONTEXT_ID = re.compile(r"[\x21-\x7e]{1,256}")
_REJECTING = ("queue_full", "not_ready", "session_busy")
_ARTIFACT_ID = "response"


def application(config: AgentConfig, runtime: Runtime, card: dict[str, Any]) -> ASGIApp:
    """Return the ASGI application; of the card only the capabilities matter here."""
    # The SDK logs bodies of requests, and tracebacks with them; what there is to tell, we log.
    logging.getLogger("a2a").setLevel(logging.CRITICAL + 1)
    tasks = RecentTasks()
    handler = _Handler(TurnExecutor(config, runtime, tasks), tasks)
    app = A2AStarletteApplication(AgentCard.model_validate(card), handler, context_builder=_CallContextBuilder())
    return app.build(agent_card_url="/", rpc_url=PATH)


class RecentTasks(TaskStore):
    """The tasks of this pod: the last ones, within bounds. Finished ones are counted by their text."""

    def __init__(self, most_tasks: int = MOST_TASKS, most_characters: int = MOST_CHARACTERS) -> None:
        self._most_tasks = most_tasks
        self._most_characters = most_characters
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._characters: dict[str, int] = {}

    async def save(self, task: Task, context: ServerCallContext | None = None) -> None:
        """Keep the task, and let go of the oldest where there are too many."""
        self._tasks[task.id] = task
        self._tasks.move_to_end(task.id)
        if task.status.state in TERMINAL_TASK_STATES:
            _join_texts(task)
            self._characters[task.id] = _characters(task)
        while len(self._tasks) > self._most_tasks or sum(self._characters.values()) > self._most_characters:
            oldest, _ = self._tasks.popitem(last=False)
            self._characters.pop(oldest, None)

    async def get(self, task_id: str, context: ServerCallContext | None = None) -> Task | None:
        """Return the task, or None."""
        task = self._tasks.get(task_id)
        # A copy: each of the SDK's readers adds the events that it reads to the task that it got.
        return None if task is None else task.model_copy(deep=True)

    async def delete(self, task_id: str, context: ServerCallContext | None = None) -> None:
        """Forget the task."""
        self._tasks.pop(task_id, None)
        self._characters.pop(task_id, None)


def _join_texts(task: Task) -> None:
    """Make one text of the many pieces that a stream consists of."""
    for artifact in task.artifacts or ():
        texts = [part.root.text for part in artifact.parts if isinstance(part.root, TextPart)]
        others = [part for part in artifact.parts if not isinstance(part.root, TextPart)]
        artifact.parts = [Part(root=TextPart(text="".join(texts))), *others]


def _characters(task: Task) -> int:
    parts = [part for message in task.history or () for part in message.parts]
    parts += [part for artifact in task.artifacts or () for part in artifact.parts]
    return sum(
        len(part.root.text) if isinstance(part.root, TextPart) else len(part.model_dump_json()) for part in parts
    )


class _CallContextBuilder(DefaultCallContextBuilder):
    """Hands the call of the HTTP request through the SDK to the executor."""

    def build(self, request: Request) -> ServerCallContext:
        context = super().build(request)
        context.state["call"] = request.scope["state"]["call"]
        return context


class _Handler(DefaultRequestHandler):
    """The SDK's handler, which refuses here what we cannot do: an executor that raises leaves its queue behind."""

    async def on_message_send(
        self, params: MessageSendParams, context: ServerCallContext | None = None
    ) -> Message | Task:
        """Run a turn and return its task."""
        with _explaining(context):
            await self._check(params)
            return await super().on_message_send(params, context)

    async def on_message_send_stream(
        self, params: MessageSendParams, context: ServerCallContext | None = None
    ) -> AsyncGenerator[Event, None]:
        """Run a turn and yield its events."""
        with _explaining(context):
            await self._check(params)
            async with aclosing(super().on_message_send_stream(params, context)) as events:
                async for event in events:
                    yield event

    async def on_resubscribe_to_task(
        self, params: TaskIdParams, context: ServerCallContext | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield the rest of a task's events. Not the SDK's own: what that taps holds up the task for ever."""
        task = await self.task_store.get(params.id)
        queue = await self._queue_manager.get(params.id)
        if task is not None and task.status.state in TERMINAL_TASK_STATES:
            message = f"Task {task.id} is in terminal state: {task.status.state.value}"
            raise ServerError(InvalidParamsError(message=message))
        if task is None or queue is None:
            raise ServerError(TaskNotFoundError())
        tap = _Tap()
        queue._children.append(tap)
        try:
            async for event in EventConsumer(tap).consume_all():
                yield event
        finally:
            # A list of its own: the task may be on its way through the old one.
            queue._children = [child for child in queue._children if child is not tap]
            await tap.close(immediate=True)

    async def _check(self, params: MessageSendParams) -> None:
        message = params.message
        if not all(isinstance(part.root, TextPart) for part in message.parts):
            raise ServerError(ContentTypeNotSupportedError(message="send text parts only"))
        if not all(isinstance(part.root, TextPart) and part.root.text for part in message.parts) or not message.parts:
            raise ServerError(InvalidParamsError(message="the message holds an empty part, or none; send text"))
        if message.context_id is not None and not _CONTEXT_ID.fullmatch(message.context_id):
            text = f"contextId has {len(message.context_id)} characters; use 1 to 256, printable ASCII without spaces"
            raise ServerError(InvalidParamsError(message=text))
        if message.task_id is not None:
            task = await self.task_store.get(message.task_id)
            if task is not None and task.status.state not in TERMINAL_TASK_STATES:
                text = "the task runs and takes no more messages; send without taskId, it waits for its turn"
                raise ServerError(UnsupportedOperationError(message=text))


class _Tap(EventQueue):
    """The events of a task for one more reader, who is let go where too many wait: nobody else waits for it."""

    async def enqueue_event(self, event: Event) -> None:
        """Add an event, or close the queue where it is full."""
        if self.queue.full():
            await self.close(immediate=True)
        await super().enqueue_event(event)


@contextmanager
def _explaining(context: ServerCallContext | None) -> Iterator[None]:
    """Note refusals, and turn defects into the answer that clients get for them."""
    call = _call(context)
    try:
        yield
    except ServerError as error:
        call.answered = True
        call.state["outcome"] = "not_found" if getattr(error.error, "code", 0) == -32001 else "invalid_request"
        raise
    except Exception:
        call.answered = True
        call.state["outcome"] = "internal"
        _log.exception("request failed", extra={"fields": {"request_id": call.state["request_id"]}})
        data = internal_error().body(call.state["request_id"])
        raise ServerError(InternalError(message=internal_error().message, data=data)) from None


def _call(context: ServerCallContext | None) -> Call:
    if context is None:
        raise RuntimeError("a call without its context")
    call: Call = context.state["call"]
    return call


class TurnExecutor(AgentExecutor):
    """Runs each message as a turn of the session that is named by the context."""

    def __init__(self, config: AgentConfig, runtime: Runtime, tasks: TaskStore) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._timeout_seconds = float(config.limits.request_timeout_seconds)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run a turn; its end, whatever it is, is a state of the task. Raises nothing."""
        call = _call(context.call_context)
        if context.message is None:
            raise RuntimeError("a message without a message")
        task = new_task(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        call.turn = asyncio.current_task()
        request_id: str = call.state["request_id"]
        try:
            if call.left:
                raise asyncio.CancelledError
            await updater.start_work()
            streaming = context.call_context is not None and context.call_context.state["method"] == "message/stream"
            turn = TurnRequest(
                query=context.get_user_input(),
                session_id=task.context_id,
                user_id="",
                request_id=request_id,
                streaming=streaming,
            )
            await self._run(turn, call, updater)
        except AgentError as error:
            state = TaskState.rejected if error.code in _REJECTING and not error.begun else TaskState.failed
            message = updater.new_agent_message([_text(error.message)])
            call.answered = True
            await updater.update_status(state, message, metadata=error.body(request_id))
        except asyncio.CancelledError:
            if not call.left:
                call.answered = True
                with suppress(RuntimeError):  # the task has ended in this moment
                    await updater.cancel()
                return
            # Nobody reads the queue of a client that left, so closing it in order would wait for ever.
            task.status = TaskStatus(state=TaskState.canceled)
            await self._tasks.save(task)
            await event_queue.close(immediate=True)

    async def _run(self, turn: TurnRequest, call: Call, updater: TaskUpdater) -> None:
        begun = False

        async def tell(parts: list[Part], *, last: bool) -> None:
            nonlocal begun
            await updater.add_artifact(parts, _ARTIFACT_ID, append=begun, last_chunk=last)
            begun = True

        scope = {"state": call.state}
        async with aclosing(turns.events(self._runtime, turn, self._timeout_seconds, scope)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    await tell([_text(event.text)], last=False)
                elif isinstance(event, Answer):
                    await tell(_ending(event, begun), last=True)
                    body = answer_body(event, turn.request_id)
                    metadata = {name: body[name] for name in body if name not in ("response", "structured")}
                    call.answered = True
                    await updater.update_status(TaskState.completed, metadata=metadata)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Tell whoever asked that the task is cancelled; the SDK then cancels `execute`, and so the turn."""
        if context.task_id is None or context.context_id is None:
            raise RuntimeError("a cancellation without a task")
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def _ending(answer: Answer, told: bool) -> list[Part]:
    """Return the last parts of the artifact: what was not told as it was written, or an empty text."""
    parts = [_text("" if told else answer.response)]
    if answer.is_structured:
        data = answer.structured
        structured = DataPart(data=data) if isinstance(data, dict) else TextPart(text=json.dumps(data))
        return [Part(root=structured)] if told else [*parts, Part(root=structured)]
    return parts


def _text(text: str) -> Part:
    return Part(root=TextPart(text=whole(text)))
