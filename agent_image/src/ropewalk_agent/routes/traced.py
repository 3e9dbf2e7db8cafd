"""The span of each request that runs turns, put around the whole application where traces are wanted."""

from opentelemetry.trace import use_span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ropewalk_agent.spans import exemplar
from ropewalk_agent.tracing import Tracing

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class TraceScope:
    """Opens a span for each request to one of `endpoints` and makes it current, on the worker too (see Bridge)."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing, endpoints: tuple[str, ...]) -> None:
        self._app = app
        self._tracing = tracing
        self._endpoints = frozenset(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan" or scope["path"] not in self._endpoints:
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "GET")  # a websocket begins as a GET and has no method of its own
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
        span = self._tracing.request(method if method in _METHODS else "_OTHER", scope["path"], carrier)
        status = 0

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state = scope.setdefault("state", {})
        try:
            with use_span(span):
                state["exemplar"] = exemplar()
                await self._app(scope, receive, noting_status)
        finally:
            attributes = {key: state[name] for name, key in _OF_STATE.items() if name in state}
            if status:
                attributes["http.response.status_code"] = status
            failed = status >= 500 or (status == 200 and state.get("outcome") in _LATE_FAILURES)
            span.finish(state.get("outcome", "internal") if failed else "", attributes)


_CARRIED = (b"traceparent", b"tracestate")
_OF_STATE = {"request_id": "ropewalk.request_id", "outcome": "ropewalk.outcome"}
_LATE_FAILURES = ("internal", "model_error", "timeout", "not_ready", "invalid_answer")
"""Outcomes of a stream that failed when its status was sent already."""
