"""The spans of a traced request: what libraries may hold of them, and how a trace goes on in other processes.

Only this package writes to spans. Whoever else meets one (Strands, the mcp package) gets a `Handle`, which records
nothing that it is told: both would write messages, results and the texts of errors into it. For the same reason no
global tracer provider is ever set. Without a handle in the current context nothing here does anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

_trace_context = TraceContextTextMapPropagator()
"""W3C Trace Context alone: baggage would carry a client's words to models and tools."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where spans come from: the tracer, and what all spans of an agent say about it."""

    tracer: Tracer
    agent: str
    provider: str
    model: str


class Handle(NonRecordingSpan):
    """A span of ours. May be made current and have children; only `note` and `finish` write to it."""

    def __init__(
        self,
        source: Source,
        name: str,
        attributes: Mapping[str, AttributeValue],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        context: Context | None = None,
    ) -> None:
        """Start the span now; `context` holds its parent, and None is the current context."""
        self._recorded = source.tracer.start_span(name, context, kind, attributes)
        super().__init__(self._recorded.get_span_context())
        self.source = source
        self.failure = ""
        """The class of what went wrong inside, for `finish`."""
        self._children: list[Handle] = []

    def child(
        self, name: str, attributes: Mapping[str, AttributeValue], *, kind: SpanKind = SpanKind.INTERNAL
    ) -> "Handle":
        """Start a span inside this one."""
        child = Handle(self.source, name, attributes, kind=kind, context=set_span_in_context(self))
        self._children.append(child)
        return child

    def note(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes."""
        self._recorded.set_attributes(attributes)

    def rename(self, name: str) -> None:
        """Give the span another name."""
        self._recorded.update_name(name)

    def finish(self, failure: str = "", attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """End the span and what is still open inside it; `failure` is a class of errors, empty if there was none.

        A span that has ended stays as it is.
        """
        for child in self._children:
            child.finish()
        self._children.clear()
        if not self._recorded.is_recording():
            return
        self._recorded.set_attributes(attributes or {})
        failure = failure or self.failure
        if failure:
            self._recorded.set_attribute("error.type", failure)
            self._recorded.set_status(Status(StatusCode.ERROR))
        self._recorded.end()


def current() -> Handle | None:
    """Return the span of ours that the code at hand runs in."""
    span = get_current_span()
    return span if isinstance(span, Handle) else None


def ids() -> dict[str, str]:
    """Return trace_id and span_id of the current span in hexadecimal; nothing outside a trace."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


def exemplar() -> dict[str, str] | None:
    """Return the ids of the current span as the labels of an exemplar; None where nobody would find its trace."""
    return ids() if get_current_span().get_span_context().trace_flags.sampled else None


def headers() -> dict[str, str]:
    """Return what carries the current trace to another process (W3C Trace Context); nothing outside a trace."""
    carrier: dict[str, str] = {}
    if current() is not None:
        _trace_context.inject(carrier)
    return carrier


def parent(headers: Mapping[str, str]) -> Context:
    """Return a context with the span that `traceparent` and `tracestate` name, or without one."""
    return _trace_context.extract(headers, Context())


async def propagate(request: Any) -> None:
    """Send the current trace along with a request: a request hook for a client of httpx or httpx2."""
    request.headers.update(headers())
