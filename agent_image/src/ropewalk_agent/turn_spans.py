"""Strands' tracer, replaced by one that writes no content: invoke_agent -> chat, execute_tool, below a request's span.

Strands' own writes the whole history as JSON into spans, twice for each call of the model, also when no span is
recorded: 5 ms of CPU for a turn over 200 messages of 2 KB. This one takes names and numbers only, by OpenTelemetry's
semantic conventions for generative AI, and in a turn that is not traced it makes nothing at all.
"""

from typing import Any

from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, NoOpTracer, Span, SpanKind
from opentelemetry.util.types import AttributeValue
from strands.agent.agent_result import AgentResult
from strands.telemetry import tracer as strands_tracer
from strands.types.exceptions import EventLoopException, MaxTokensReachedException

from ropewalk_agent import spans


class _Cycle(NonRecordingSpan):
    """What Strands holds as the span of a round of its loop: in truth the agent's, which does not end with it."""

    def __init__(self, agent: "_AgentSpan") -> None:
        super().__init__(agent.get_span_context())
        self.agent = agent


class _AgentSpan(spans.Handle):
    """The span of a turn; knows the tools that the model was shown. Names that it invents are content."""

    tools: frozenset[str] = frozenset()


class TurnTracer(strands_tracer.Tracer):
    """Makes spans for turns that run in the context of a traced request. One serves all agents of the process."""

    def __init__(self) -> None:
        # Not the base's: it also wraps every thread of the process, to carry spans over.
        self.tracer = NoOpTracer()

    def start_agent_span(self, *_: Any, tools: list[str] | None = None, **__: Any) -> Span:
        """Start the span of a turn, if its request has one."""
        request = spans.current()
        if request is None:
            return INVALID_SPAN
        source = request.source
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": source.agent,
            "gen_ai.provider.name": source.provider,
            "gen_ai.request.model": source.model,
        }
        agent = _AgentSpan(source, f"invoke_agent {source.agent}", attributes)
        agent.tools = frozenset(tools or ())
        return agent

    def start_event_loop_cycle_span(self, *_: Any, parent_span: Span | None = None, **__: Any) -> Span:
        """Rounds of the loop have no span; return what stands for the turn's."""
        return _Cycle(parent_span) if isinstance(parent_span, _AgentSpan) else INVALID_SPAN

    def start_model_invoke_span(
        self, *_: Any, parent_span: Span | None = None, model_id: str | None = None, **__: Any
    ) -> Span:
        """Start the span of a call of the model."""
        if not isinstance(parent_span, _Cycle):
            return INVALID_SPAN
        source = parent_span.agent.source
        model = model_id or source.model
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": source.provider,
            "gen_ai.request.model": model,
        }
        return parent_span.agent.child(f"chat {model}", attributes, kind=SpanKind.CLIENT)

    def start_tool_call_span(self, tool: Any, parent_span: Span | None = None, *_: Any, **__: Any) -> Span:
        """Start the span of a tool call."""
        if not isinstance(parent_span, _Cycle):
            return INVALID_SPAN
        name = tool["name"] if tool["name"] in parent_span.agent.tools else "unknown"
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": tool["toolUseId"],
            "gen_ai.tool.type": "function",
        }
        return parent_span.agent.child(f"execute_tool {name}", attributes)

    def end_event_loop_cycle_span(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def end_model_invoke_span(
        self, span: Span, message: Any, usage: Any, metrics: Any, stop_reason: str, *_: Any, **__: Any
    ) -> None:
        """End the span of a call that was answered."""
        if isinstance(span, spans.Handle):
            span.finish(attributes=_answered(usage, stop_reason))

    def end_tool_call_span(self, span: Span, tool_result: Any, error: Exception | None = None) -> None:
        """End the span of a tool call."""
        if isinstance(span, spans.Handle):
            failed = error is not None or (tool_result or {}).get("status") == "error"
            span.finish((span.failure or "error") if failed else "")

    def end_agent_span(self, span: Span, response: AgentResult | None = None, error: Exception | None = None) -> None:
        """End the span of a turn."""
        if not isinstance(span, spans.Handle):
            return
        if isinstance(error, MaxTokensReachedException):
            span.finish(attributes={"gen_ai.response.finish_reasons": ("max_tokens",)})
        elif error is not None:
            span.finish(_class_of(error))
        elif response is not None:
            span.finish(attributes=_answered(response.metrics.accumulated_usage, response.stop_reason))

    def end_span_with_error(self, span: Span, error_message: str, exception: Exception | None = None) -> None:
        """End the span of something that failed."""
        if isinstance(span, spans.Handle):
            span.finish(_class_of(exception) if exception is not None else "error")

    def end_span_with_cancellation(self, span: Span, cancellation: BaseException) -> None:
        """End the span of something that was cancelled, which is no failure of its own."""
        if isinstance(span, spans.Handle):
            span.finish(attributes={"ropewalk.cancelled": True})


def tool_ended(server: str, outcome: str) -> None:
    """Note on the current tool call's span where it went and how it ended."""
    span = spans.current()
    if span is not None:
        where = {"mcp.method.name": "tools/call", "ropewalk.mcp.server": server} if server else {}
        span.note({**where, "ropewalk.tool.outcome": outcome})
        span.failure = outcome if outcome not in ("ok", "cancelled") else ""


def model_asked(provider: str, model: str) -> None:
    """Note on the current span of a call that this model is asked: it may be another than when the span began."""
    span = spans.current()
    if span is not None:
        span.rename(f"chat {model}")
        span.note({"gen_ai.provider.name": provider, "gen_ai.request.model": model})


def _answered(usage: Any, stop_reason: str) -> dict[str, AttributeValue]:
    return {
        "gen_ai.usage.input_tokens": usage["inputTokens"],
        "gen_ai.usage.output_tokens": usage["outputTokens"],
        "gen_ai.response.finish_reasons": (str(stop_reason),),
    }


def _class_of(error: Exception) -> str:
    if isinstance(error, EventLoopException):
        error = error.original_exception
    return type(error).__name__
