"""One turn: history -> a fresh Strands Agent -> events -> history. Runs on the worker's loop only.

The history is saved once, when the turn has ended well and holds no tool call without its result. Whatever else
happens (a failure, the deadline, a client that left), the session stays as it was before the turn.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

from strands import Agent
from strands.agent.conversation_manager import NullConversationManager
from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeModelCallEvent, HookProvider, HookRegistry
from strands.plugins import Plugin
from strands.types.agent import Limits
from strands.types.exceptions import MaxTokensReachedException
from strands.types.tools import AgentTool, ToolGenerator, ToolSpec, ToolUse

from ropewalk_agent import bridge, spare
from ropewalk_agent.config import AgentConfig
from ropewalk_agent.errors import AgentError, redacted
from ropewalk_agent.events import Answer, TextDelta, Timings, ToolEnded, ToolStarted, TurnEvent, TurnRequest
from ropewalk_agent.metrics import Metrics, ModelMetrics
from ropewalk_agent.models import BuiltModel
from ropewalk_agent.sessions import Message, SessionKey, SessionStore, is_consistent, windowed
from ropewalk_agent.tools import Tool

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
    ) -> None:
        self._config = config
        self._model = model
        self._tools = tools
        self._sessions = sessions
        self._metrics = metrics
        self._model_metrics = metrics.of_model(config.model.provider, config.model.id)
        self._plugins: list[Plugin] = [spare.NoDelegation()]
        self._limits = Limits(turns=config.limits.max_turns)
        if config.limits.max_tokens_per_request is not None:
            self._limits["total_tokens"] = config.limits.max_tokens_per_request
        spare.install()

    async def run(self, request: TurnRequest, turn: bridge.Turn) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events, the Answer last.

        Raises AgentError: model_error where the model fails, session_busy or not_ready by the session store.
        """
        self._metrics.queue_wait.observe(turn.queue_seconds)
        if request.history is not None:
            async with aclosing(self._answer(request, turn, request.history, None)) as events:
                async for event in events:
                    yield event
            return
        key = SessionKey(request.user_id, request.session_id)
        async with self._sessions.lock(key, wait=request.wait_for_session):
            history = await self._sessions.load(key)
            async with aclosing(self._answer(request, turn, history, key)) as events:
                async for event in events:
                    yield event

    async def _answer(
        self, request: TurnRequest, turn: bridge.Turn, history: tuple[Message, ...], key: SessionKey | None
    ) -> AsyncGenerator[TurnEvent, None]:
        """Run the turn on top of `history`; without a key nothing is saved."""
        started = time.monotonic()
        self._model.refresh_key()
        watch = _Watch(self._metrics, self._model_metrics)
        agent = self._agent(request, list(history), watch)
        stop_reason = ""
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
            raise self._explained(error, watch) from error
        finally:
            self._metrics.invoke_agent_duration.observe(time.monotonic() - started)

        stop_reason = _LIMITS.get(stop_reason, stop_reason)
        new = cast(tuple[Message, ...], tuple(agent.messages))[len(history) :]
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

    def _agent(self, request: TurnRequest, messages: list[Message], watch: "_Watch") -> Agent:
        instructions = f"\n\n{request.instructions}" if request.instructions else ""
        places = asyncio.Semaphore(self._config.limits.max_parallel_tools)
        return Agent(
            model=self._model.model,
            messages=cast(Any, messages),
            tools=[_TurnTool(tool, places, watch) for tool in self._tools()],
            system_prompt=self._config.system_prompt + instructions,
            callback_handler=None,
            # The window is ours (sessions.windowed): applied when a turn is saved, never in the middle of one.
            conversation_manager=NullConversationManager(),
            hooks=[watch],
            # The provider's client retries; Strands' own strategy would pause for minutes.
            retry_strategy=None,
            plugins=self._plugins,
            name=self._config.name,
        )

    def _explained(self, error: Exception, watch: "_Watch") -> Exception:
        """Return what the client may know: the provider's reason if the model failed, else the error itself."""
        if watch.model_error is None:
            return error
        reason = redacted(f"{type(watch.model_error).__name__}: {watch.model_error}", [self._model.key.read()])
        return AgentError("model_error", f"the model {self._config.model.id} failed: {reason}")


class _Watch(HookProvider):
    """Counts and measures what one turn does, in its own numbers (for the answer) and in the pod's metrics."""

    def __init__(self, metrics: Metrics, model_metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self._model_metrics = model_metrics
        self._model_called_at = 0.0
        self._first_chunk_seen = True
        self._tools_running = 0
        self._tools_busy_since = 0.0
        self.tools_used: list[str] = []
        self.input_tokens = self.output_tokens = 0
        self.model_seconds = self.tool_seconds = 0.0
        self.model_error: Exception | None = None

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Tell Strands which calls to make."""
        registry.add_callback(BeforeModelCallEvent, self._model_called)
        registry.add_callback(AfterModelCallEvent, self._model_answered)
        registry.add_callback(AfterToolCallEvent, self._tool_answered)

    def _model_called(self, event: BeforeModelCallEvent) -> None:
        self._model_called_at = time.monotonic()
        self._first_chunk_seen = False

    def _model_answered(self, event: AfterModelCallEvent) -> None:
        seconds = time.monotonic() - self._model_called_at
        self.model_seconds += seconds
        self.model_error = event.exception
        self._model_metrics.inference_duration.observe(seconds)

    def _tool_answered(self, event: AfterToolCallEvent) -> None:
        # A tool that the model was not shown. Its name is the model's invention and so no label.
        if event.selected_tool is None:
            self._metrics.tool_calls.labels(tool="", server="", outcome="unknown").inc()

    def note(self, event: dict[str, Any]) -> None:
        """Take the first content and the usage out of the model's own chunks."""
        chunk = event.get("event")
        if chunk is None:
            return
        if not self._first_chunk_seen and ("contentBlockStart" in chunk or "contentBlockDelta" in chunk):
            self._first_chunk_seen = True
            seconds = time.monotonic() - self._model_called_at
            self._model_metrics.time_to_first_chunk.observe(seconds)
        usage = chunk.get("metadata", {}).get("usage")
        if usage is not None:
            self.input_tokens += usage["inputTokens"]
            self.output_tokens += usage["outputTokens"]
            self._model_metrics.input_tokens.inc(usage["inputTokens"])
            self._model_metrics.output_tokens.inc(usage["outputTokens"])

    def tool_started(self, tool: Tool) -> float:
        """Note that a call begins; return the moment, for `tool_ended`."""
        if tool.name not in self.tools_used:
            self.tools_used.append(tool.name)
        now = time.monotonic()
        if self._tools_running == 0:
            self._tools_busy_since = now
        self._tools_running += 1
        return now

    def tool_ended(self, tool: Tool, started: float, outcome: str) -> None:
        """Note how a call ended. Calls that run side by side count once in `tool_seconds`."""
        now = time.monotonic()
        self._tools_running -= 1
        if self._tools_running == 0:
            self.tool_seconds += now - self._tools_busy_since
        self._metrics.tool_calls.labels(tool=tool.name, server=tool.server, outcome=outcome).inc()
        self._metrics.execute_tool_duration.labels(gen_ai_tool_name=tool.name).observe(now - started)


class _TurnTool(AgentTool):
    """A tool as Strands wants it, for one turn: takes one of the turn's places, and tells when it starts and ends."""

    def __init__(self, tool: Tool, places: asyncio.Semaphore, watch: _Watch) -> None:
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
