"""One turn: history -> a fresh Strands Agent -> events -> history. Runs on the worker's loop only.

The history is saved once, when the turn has ended well and holds no tool call without its result. Whatever else
happens (a failure, the deadline, a client that left), the session stays as it was before the turn.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

from strands import Agent
from strands.agent.conversation_manager import NullConversationManager
from strands.hooks import HookProvider, HookRegistry, MessageAddedEvent
from strands.middleware.stages import InvokeModelStage
from strands.plugins import Plugin
from strands.types.agent import Limits
from strands.types.exceptions import MaxTokensReachedException
from strands.types.tools import AgentTool, ToolGenerator, ToolSpec, ToolUse

from ropewalk_agent import bridge, spare, structured
from ropewalk_agent.config import AgentConfig, ConfigError
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TextDelta, Timings, ToolEnded, ToolStarted, TurnEvent, TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.models import BuiltModel
from ropewalk_agent.models.failures import explained, refuses_key
from ropewalk_agent.output_schema import OutputSchema, SchemaProblem, usable
from ropewalk_agent.sessions import Message, SessionKey, SessionStore, is_consistent, windowed
from ropewalk_agent.structured import StructuredAnswer
from ropewalk_agent.tools import LOCAL, Tool, narrowed
from ropewalk_agent.watch import Watch
from ropewalk_agent.whole import whole

# Strands' words for an ended budget, in ours. All others (end_turn, max_tokens, ...) are passed on.
_LIMITS = {"limit_turns": "limit_turns", "limit_total_tokens": "limit_tokens", "limit_output_tokens": "limit_tokens"}


class TurnRunner:
    """Runs turns of one agent; give its `run` to the bridge."""

    def __init__(
        self,
        config: AgentConfig,
        model: BuiltModel,
        tools: Callable[[], tuple[Tool, ...]],
        sessions: SessionStore,
        metrics: Metrics,
        *,
        key_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """`key_refused` is told when a model has refused its key.

        Raises ConfigError where the agent's own output schema cannot be used.
        """
        self._key_refused = key_refused
        self._config = config
        self._model = model
        self._tools = tools
        self._sessions = sessions
        self._metrics = metrics
        self._model_metrics = tuple(
            metrics.of_model(asked.provider, asked.id) for asked in (config.model, *config.fallbacks)
        )
        self._plugins: list[Plugin] = [spare.NoDelegation()]
        self._limits = Limits(turns=config.limits.max_turns)
        if config.limits.max_tokens_per_request is not None:
            self._limits["total_tokens"] = config.limits.max_tokens_per_request
        self._servers = (*(server.name for server in config.mcp_servers), *([LOCAL] if config.local_tools else []))
        self._schema: OutputSchema | None = None
        if config.output_schema is not None:
            try:
                self._schema = usable(config.output_schema)
            except SchemaProblem as problem:
                raise ConfigError([f"outputSchema: {problem}"]) from None
        spare.install()

    async def run(self, request: TurnRequest, turn: bridge.Turn) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events, the Answer last.

        Raises AgentError: invalid_request for a schema or a tool that cannot be used, model_error where the model
        fails, invalid_answer where its answer does not fit the schema, session_busy or not_ready by the session store.
        """
        started = time.monotonic()
        self._metrics.queue_wait.observe(turn.queue_seconds)
        if request.history is not None:
            async with aclosing(self._answer(request, turn, request.history, None, started)) as events:
                async for event in events:
                    yield event
            return
        key = SessionKey(request.user_id, request.session_id)
        async with self._sessions.lock(key, wait=request.wait_for_session):
            history = await self._sessions.load(key)
            async with aclosing(self._answer(request, turn, history, key, started)) as events:
                async for event in events:
                    yield event

    async def _answer(
        self,
        request: TurnRequest,
        turn: bridge.Turn,
        history: tuple[Message, ...],
        key: SessionKey | None,
        started: float,
    ) -> AsyncGenerator[TurnEvent, None]:
        """Run the turn on top of `history`; without a key nothing is saved."""
        tools = narrowed(self._tools(), self._servers, request.tool_servers, request.tools)
        schema = await self._schema_for(request)
        self._model.refresh_key()
        watch = Watch(self._metrics, self._model_metrics)
        form = None if schema is None else StructuredAnswer(schema)
        agent = self._agent(request, list(history), tools, watch, form)
        stop_reason = ""
        with _begun():
            try:
                question = cast(Any, list(request.content)) or request.query
                stream = cast(AsyncGenerator[dict[str, Any], None], agent.stream_async(question, limits=self._limits))
                async with aclosing(stream) as events:
                    async for event in events:
                        if "result" in event:
                            stop_reason = event["result"].stop_reason
                            continue
                        watch.note(event)
                        if request.streaming and (told := _told(event)) is not None:
                            yield told
            except MaxTokensReachedException:
                stop_reason = "max_tokens"
            except Exception as error:
                if watch.model_error is None:
                    raise
                if refuses_key(watch.model_error):
                    self._key_refused()
                reason = explained(watch.model_error, self._config.model.id, self._model.secrets())
                raise AgentError("model_error", reason) from error
            finally:
                self._metrics.invoke_agent_duration.observe(time.monotonic() - started)
                watch.turn_ended()

            if form is not None and not form.found and stop_reason not in _LIMITS:
                raise form.failure()
            stop_reason = _LIMITS.get(stop_reason, stop_reason)
            new = tuple(_kept(message) for message in agent.messages[len(history) :])
            response = _last_text(new)
            messages = history + _closed(new, stop_reason)
            if not is_consistent(messages):
                raise AgentError("model_error", f"the model {self._config.model.id} left a tool call without a result")
            turn.commit()
            if key is not None:
                await self._sessions.save(key, windowed(messages, self._config.sessions.window_size))
            yield Answer(
                response=response,
                session_id=request.session_id,
                stop_reason=stop_reason,
                structured=None if form is None else form.value,
                is_structured=form is not None and form.found,
                input_tokens=watch.input_tokens,
                output_tokens=watch.output_tokens,
                tools_used=tuple(watch.tools_used),
                timings=Timings(
                    queue=turn.queue_seconds,
                    model=watch.model_seconds,
                    tools=watch.tool_seconds,
                    total=turn.queue_seconds + time.monotonic() - started,
                ),
            )

    async def _schema_for(self, request: TurnRequest) -> OutputSchema | None:
        if request.output_schema is None:
            return self._schema
        try:
            return await asyncio.to_thread(usable, request.output_schema)
        except SchemaProblem as problem:
            raise AgentError("invalid_request", f"output_schema: {problem}") from None

    def _agent(
        self,
        request: TurnRequest,
        messages: list[Message],
        tools: tuple[Tool, ...],
        watch: Watch,
        form: StructuredAnswer | None,
    ) -> Agent:
        instructions = f"\n\n{request.instructions}" if request.instructions else ""
        places = asyncio.Semaphore(self._config.limits.max_parallel_tools)
        agent = Agent(
            model=self._model.for_turn(watch.fell_back),
            messages=cast(Any, messages),
            # Beside the schema's tool there can be no other of its name.
            tools=[
                _TurnTool(tool, places, watch) for tool in tools if not (form and tool.name == structured.TOOL_NAME)
            ],
            system_prompt=self._config.system_prompt + instructions,
            callback_handler=None,
            # The window is ours (sessions.windowed): applied when a turn is saved, never in the middle of one.
            conversation_manager=NullConversationManager(),
            # The provider's client retries; Strands' own strategy would pause for minutes.
            retry_strategy=None,
            plugins=self._plugins,
            name=self._config.name,
        )
        # Not as an argument: Agent asks of each whether it has the methods of a protocol, by looking at all of them.
        agent.hooks.add_hook(_Whole())
        agent.hooks.add_hook(watch)
        if form is not None:
            agent.hooks.add_hook(form)
            agent.add_middleware(InvokeModelStage, form.call_model)
        return agent


@contextmanager
def _begun() -> Iterator[None]:
    """Mark the errors of a turn whose model has been asked."""
    try:
        yield
    except AgentError as error:
        error.begun = True
        raise


class _Whole(HookProvider):
    """Makes each message sendable as it enters the history: what cannot be sent would fail every later model call."""

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Tell Strands which calls to make."""
        registry.add_callback(MessageAddedEvent, self._added)

    def _added(self, event: MessageAddedEvent) -> None:
        event.message["content"] = whole(event.message["content"])


class _TurnTool(AgentTool):
    """A tool as Strands wants it, for one turn: takes one of the turn's places, and tells when it starts and ends."""

    def __init__(self, tool: Tool, places: asyncio.Semaphore, watch: Watch) -> None:
        super().__init__()
        self._tool = tool
        self._places = places
        self._watch = watch

    @property
    def tool_name(self) -> str:
        """The name that the model uses."""
        return self._tool.name

    @property
    def tool_spec(self) -> ToolSpec:
        """What the model is told of the tool."""
        return ToolSpec(
            name=self._tool.name, description=self._tool.description, inputSchema={"json": self._tool.input_schema}
        )

    @property
    def tool_type(self) -> str:
        """Strands' word for the kind of a tool."""
        return "mcp"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **_: Any) -> ToolGenerator:
        """Yield ToolStarted, ToolEnded and, last, the result for the model."""
        tool, use_id = self._tool, tool_use["toolUseId"]
        async with self._places:
            started, outcome = self._watch.tool_started(tool), "cancelled"
            try:
                yield ToolStarted(tool.name, tool.server, use_id)
                result = await tool.call(tool_use["input"])
                outcome = result.outcome
            finally:
                self._watch.tool_ended(tool, started, outcome)
        yield ToolEnded(tool.name, tool.server, use_id, outcome)
        status = "success" if outcome == "ok" else "error"
        yield {"toolUseId": use_id, "status": status, "content": result.content}


def _told(event: dict[str, Any]) -> TurnEvent | None:
    """Return our event for one of Strands', or None. Picks single keys: Strands' events carry the whole agent too."""
    if isinstance(text := event.get("data"), str):
        return TextDelta(text)
    if (tool_event := event.get("tool_stream_event")) is not None:
        data = tool_event["data"]
        return data if isinstance(data, ToolStarted | ToolEnded) else None
    return None


def _kept(message: Any) -> Message:
    """Return the message without Strands' own notes (an id, the usage), which no later turn needs: two thirds of it."""
    return {"role": message["role"], "content": message["content"]}


def _closed(messages: tuple[Message, ...], stop_reason: str) -> tuple[Message, ...]:
    """Return the turn's messages with the assistant's word last, as models want it.

    A limit ends a turn after tool results, with nothing said about them yet.
    """
    if messages and messages[-1]["role"] == "user":
        note = {"text": f"(This turn was ended before an answer: {stop_reason}.)"}
        return (*messages, {"role": "assistant", "content": [note]})
    return messages


def _last_text(messages: tuple[Message, ...]) -> str:
    for message in reversed(messages):
        if message["role"] == "assistant":
            text = "".join(block["text"] for block in message["content"] if "text" in block)
            if text:
                return text
    return ""
