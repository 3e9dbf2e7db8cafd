"""create_app(...): the routes, the middleware and the lifespan of an agent pod, as values. Starts no server."""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ropewalk_agent.config import AgentConfig
from ropewalk_agent.errors import AgentError, internal_error
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import a2a, agentcore, openai, openapi, ops, sessions
from ropewalk_agent.routes.batch import BatchEndpoint
from ropewalk_agent.routes.query import QueryEndpoint
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.tracing import Tracing

_log = logging.getLogger("ropewalk.http")

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._:-]{1,128}$")
_REQUEST_ID_HEADERS = (b"x-request-id", b"x-amzn-bedrock-agentcore-runtime-request-id")
_ids = random.Random()
"""For names of requests, which are no secret and need not cost a system call each."""
_COUNTED_ENDPOINTS = ("/query", "/batch", "/v1/chat/completions", "/invocations", "/a2a")
"""Probes and scrapes are not requests to the agent."""


def create_app(config: AgentConfig, runtime: Runtime, metrics: Metrics, tracing: Tracing | None = None) -> Starlette:
    """Return the ASGI application; its lifespan starts the runtime and closes it. Drain the runtime before that."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        runtime.start()
        yield
        await runtime.close()

    query = QueryEndpoint(runtime, config.limits)
    return Starlette(
        routes=[
            Route("/query", query, methods=["POST"]),
            Route("/batch", BatchEndpoint(config, runtime, metrics), methods=["POST"]),
            *openai.routes(config, runtime),
            *agentcore.routes(config, runtime, metrics),
            *a2a.routes(config, runtime),
            *sessions.routes(runtime),
            *ops.routes(runtime, metrics),
            *openapi.routes(config),
        ],
        middleware=[
            *_traced(tracing),
            Middleware(RequestScope, runtime=runtime, metrics=metrics, short_cuts={("POST", "/query"): query}),
        ],
        exception_handlers={404: _no_such_endpoint, 405: _wrong_method},
        lifespan=lifespan,
    )


def _traced(tracing: Tracing | None) -> list[Middleware]:
    if tracing is None:
        return []
    from ropewalk_agent.routes.traced import TraceScope

    return [Middleware(TraceScope, tracing=tracing, endpoints=(*_COUNTED_ENDPOINTS, "/ws"))]


async def _no_such_endpoint(request: Request, _: Exception) -> Response:
    return _answer(AgentError("not_found", f"there is no endpoint {request.url.path}"), request.state.request_id)


async def _wrong_method(request: Request, _: Exception) -> Response:
    error = AgentError("method_not_allowed", f"{request.url.path} does not take {request.method}")
    request.state.outcome = error.code
    return _answer(error, request.state.request_id)


def _answer(error: AgentError, request_id: str) -> Response:
    headers = {"retry-after": str(error.retry_after_seconds)} if error.retry_after_seconds else None
    return JSONResponse(error.body(request_id), error.status, headers)


class _Receiving:
    """A request's `receive` that knows whether all of it has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.whole = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.whole = self.whole or not message.get("more_body", False)
        return message


class RequestScope:
    """Gives each request its id, turns errors into answers with a code, counts, and closes connections in a drain.

    `short_cuts` go from here straight to their endpoints, past the router: all that the router adds is CPU.
    """

    def __init__(
        self, app: ASGIApp, *, runtime: Runtime, metrics: Metrics, short_cuts: Mapping[tuple[str, str], ASGIApp]
    ) -> None:
        self._app = app
        self._short_cuts = short_cuts
        self._runtime = runtime
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other kinds of scope pass through."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                scope.setdefault("state", {})["request_id"] = _request_id(scope)
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, outcome="ok")
        begun, receiving = False, _Receiving(receive)

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = [
                    *message.get("headers", []),
                    *state.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
                if self._runtime.leaving:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            try:
                app = self._short_cuts.get((scope["method"], scope["path"]), self._app)
                await app(scope, receiving, send_with_id)
            except ClientDisconnect:
                state["outcome"] = "cancelled"
            except asyncio.CancelledError:
                # By the server, at its end.
                if begun or not self._runtime.leaving:
                    raise
                what = "its turn was finished" if receiving.whole else "the request was sent; ask again"
                error = AgentError("not_ready", f"the agent shut down before {what}")
                state["outcome"] = error.code
                await _answer(error, request_id)(scope, receive, send_with_id)
            except Exception as error:
                if begun:
                    raise
                if not isinstance(error, AgentError):
                    _log.exception("request failed", extra={"fields": {"request_id": request_id}})
                    error = internal_error()
                elif state["outcome"] == "ok":  # else it was a turn, which has a line of its own (routes/turns.py)
                    _log.info("request refused", extra={"fields": {"request_id": request_id, "outcome": error.code}})
                state["outcome"] = error.code
                await _answer(error, request_id)(scope, receive, send_with_id)
        finally:
            if scope["path"] in _COUNTED_ENDPOINTS:
                self._metrics.requests.labels(endpoint=scope["path"], outcome=state["outcome"]).inc()
                duration = self._metrics.request_duration.labels(endpoint=scope["path"])
                # The server's span, where there is one (routes/traced.py), gives an example of such a duration.
                duration.observe(time.monotonic() - started, state.get("exemplar"))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name in _REQUEST_ID_HEADERS and _REQUEST_ID.match(value):
            return bytes(value).decode()
    return f"{_ids.getrandbits(128):032x}"
