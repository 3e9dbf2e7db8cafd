"""POST /invocations, GET /ping and WS /ws: the contract of containers in Amazon Bedrock AgentCore Runtime.

The package bedrock-agentcore (its `runtime`) is the authority on it, and the tests compare with that. Never logs what
was asked or said.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from itertools import count
from typing import Any, Self
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from ropewalk_agent.config import AgentConfig, Limits
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import turns
from ropewalk_agent.routes.query import named, write_json, write_stream
from ropewalk_agent.runtime import STUCK_SECONDS_UNHEALTHY, Runtime

_log = logging.getLogger("ropewalk.agentcore")

SESSION_HEADER = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
USER_HEADER = "X-Amzn-Bedrock-AgentCore-Runtime-User-Id"
_SESSION_HEADER = SESSION_HEADER.lower().encode()
_USER_HEADER = USER_HEADER.lower().encode()
_SESSION_ID = re.compile(r"[\x21-\x7e]{33,256}")
_USER_ID = re.compile(r"[\x21-\x7e]{1,256}")
_MOST_WAITING = 16
"""How many messages of one socket may wait for their turn; they have LARGEST_BODY bytes in all at most."""
SPARE_SOCKETS = 64
"""How many sockets may be open beyond those whose turns could wait in the queue."""

# RFC 6455, section 7.4.1.
_GOING_AWAY = 1001
_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011


_QUESTIONS = ("prompt", "query", "message", "input")


class InvocationBody(BaseModel):
    """What an invocation holds: the question under one of four names, the first that is not empty, `prompt` before all.

    The other fields are those of /query. Payloads are free in AgentCore; what is not known here is ignored.
    """

    model_config = ConfigDict(extra="ignore")

    prompt: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)
    message: str | None = Field(default=None, min_length=1)
    input: str | None = Field(default=None, min_length=1)
    stream: bool | None = None
    timeout_seconds: float | None = Field(default=None, gt=0)
    wait_for_session: bool = True
    output_schema: dict[str, Any] | None = None
    tool_servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_the_first_question(cls, payload: Any) -> Any:
        if not isinstance(payload, dict):
            return payload
        there = [name for name in _QUESTIONS if payload.get(name) not in (None, "")]
        return {name: value for name, value in payload.items() if name not in _QUESTIONS or name in there[:1]}

    @model_validator(mode="after")
    def _a_question(self) -> Self:
        if not self.question:
            raise ValueError("prompt is missing; send it as a text (query, message and input are taken too)")
        return self

    @property
    def question(self) -> str:
        """What is asked."""
        return self.prompt or self.query or self.message or self.input or ""


def routes(config: AgentConfig, runtime: Runtime, metrics: Metrics) -> list[BaseRoute]:
    """Return the routes."""
    most_sockets = SPARE_SOCKETS + config.queue.max_length
    return [
        Route("/invocations", Invocations(runtime, config.limits), methods=["POST"]),
        Route("/ping", Ping(runtime).answer),
        WebSocketRoute("/ws", Sockets(runtime, config.limits, metrics, most_sockets)),
    ]


class Ping:
    """GET /ping: Healthy, or HealthyBusy while turns run or wait, and since when."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._runtime = runtime
        self._clock = clock
        self._status = "Healthy"
        self._since = int(clock())

    async def answer(self, _: Request) -> Response:
        """Answer; 503 where /health says so too, because the contract knows no word for an agent that is not well."""
        stuck = self._runtime.stuck_seconds()
        if stuck > STUCK_SECONDS_UNHEALTHY:
            raise AgentError("not_ready", f"the worker has not answered for {stuck:.0f} s")
        status = "HealthyBusy" if self._runtime.busy else "Healthy"
        if status != self._status:
            self._status, self._since = status, int(self._clock())
        return JSONResponse({"status": self._status, "time_of_last_update": self._since})


class Invocations:
    """The ASGI application of POST /invocations."""

    def __init__(self, runtime: Runtime, limits: Limits) -> None:
        self._runtime = runtime
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves cancels its turn."""
        session_id = _session_id(scope)
        scope["state"]["headers"] = [(_SESSION_HEADER, session_id.encode())]
        user_id = _user_id(scope)
        body = turns.parsed(InvocationBody, await turns.read(receive))
        streaming = turns.wants_stream(scope) if body.stream is None else body.stream
        turn = _turn(body, session_id, user_id, scope["state"]["request_id"], streaming)
        write = partial(write_stream, frame=_frame) if streaming else write_json
        timeout_seconds = turns.timeout_seconds(body.timeout_seconds, self._limits)
        async with aclosing(turns.events(self._runtime, turn, timeout_seconds, scope)) as events:
            await turns.unless_client_leaves(receive, write(events, turn, send))


class _Inbox:
    """The messages of one socket that wait for their turn, within bounds."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
        self._bytes = 0

    def put(self, message: bytes) -> None:
        """Add a message; raises QueueFull where too many wait, or too much."""
        if self._bytes + len(message) > turns.LARGEST_BODY:
            raise asyncio.QueueFull
        self._messages.put_nowait(message)
        self._bytes += len(message)

    async def get(self) -> bytes:
        """Take the next message, when there is one."""
        message = await self._messages.get()
        self._bytes -= len(message)
        return message

    def answered(self) -> None:
        """Tell that the message taken last is answered."""
        self._messages.task_done()

    async def all_answered(self) -> None:
        """Wait until every message is answered."""
        await self._messages.join()


class Sockets:
    """The ASGI application of WS /ws: turns of one session, one after the other; at most `most` at a time."""

    def __init__(self, runtime: Runtime, limits: Limits, metrics: Metrics, most: int) -> None:
        self._runtime = runtime
        self._limits = limits
        self._metrics = metrics
        self._most = most
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Talk with one client until it leaves or the agent shuts down."""
        await receive()  # websocket.connect
        request_id: str = scope["state"]["request_id"]
        try:
            if self._runtime.leaving:
                raise AgentError("not_ready", "the agent is shutting down; connect again, another pod will answer")
            if self._open >= self._most:
                raise AgentError("queue_full", f"{self._most} websockets are open already", retry_after_seconds=1)
            session_id, user_id = _session_id(scope), _user_id(scope)
        except AgentError as error:
            await _refuse(error, request_id, send)
            return
        self._open += 1
        try:
            headers = [(_SESSION_HEADER, session_id.encode()), (b"x-request-id", request_id.encode())]
            await send({"type": "websocket.accept", "headers": headers})
            answered = partial(self._answer, session_id, user_id, send)
            code = await self._talk(answered, request_id, receive)
            if code is not None:
                await send({"type": "websocket.close", "code": code})
        finally:
            self._open -= 1

    async def _talk(
        self, answered: Callable[[str, bytes], Awaitable[None]], request_id: str, receive: Receive
    ) -> int | None:
        """Return the code to close the socket with; None where the client has closed it."""
        inbox = _Inbox()

        async def read() -> None:
            while (message := await receive())["type"] != "websocket.disconnect":
                inbox.put(message.get("bytes") or (message.get("text") or "").encode())

        async def answer() -> None:
            for number in count(1):
                await answered(f"{request_id}-{number}", await inbox.get())
                inbox.answered()

        async def drained() -> None:
            await self._runtime.wait_until_draining()
            await inbox.all_answered()

        reading, answering, draining = (asyncio.ensure_future(work()) for work in (read, answer, drained))
        try:
            await asyncio.wait({reading, answering, draining}, return_when=asyncio.FIRST_COMPLETED)
            ended = {task: task.exception() for task in (reading, answering, draining) if task.done()}
        finally:
            for task in (reading, answering, draining):
                task.cancel()
            await asyncio.gather(reading, answering, draining, return_exceptions=True)
        if reading in ended:
            return _POLICY_VIOLATION if isinstance(ended[reading], asyncio.QueueFull) else None
        if draining in ended:
            return _GOING_AWAY
        if isinstance(ended[answering], OSError):  # the client was gone before we read it
            return None
        _log.error("a websocket failed", exc_info=ended[answering])
        return _INTERNAL_ERROR

    async def _answer(self, session_id: str, user_id: str, send: Send, request_id: str, message: bytes) -> None:
        started = time.monotonic()
        scope: Scope = {"state": {"outcome": "ok"}}

        async def tell(name: str, data: dict[str, Any]) -> None:
            await send({"type": "websocket.send", "text": _json(name, data).decode()})

        try:
            body = turns.parsed(InvocationBody, message)
            turn = _turn(body, session_id, user_id, request_id, body.stream is not False)
            timeout_seconds = turns.timeout_seconds(body.timeout_seconds, self._limits)
            async with aclosing(turns.events(self._runtime, turn, timeout_seconds, scope)) as events:
                async for event in events:
                    await tell(*named(event, request_id))
        except AgentError as error:
            scope["state"]["outcome"] = error.code
            await tell("error", error.body(request_id))
        finally:
            self._metrics.requests.labels(endpoint="/ws", outcome=scope["state"]["outcome"]).inc()
            self._metrics.request_duration.labels(endpoint="/ws").observe(time.monotonic() - started)


def _turn(body: InvocationBody, session_id: str, user_id: str, request_id: str, streaming: bool) -> TurnRequest:
    return TurnRequest(
        query=body.question,
        session_id=session_id,
        user_id=user_id,
        request_id=request_id,
        streaming=streaming,
        wait_for_session=body.wait_for_session,
        output_schema=body.output_schema,
        tool_servers=body.tool_servers,
        tools=body.tools,
    )


def _session_id(scope: Scope) -> str:
    """Return the session that the caller names; one of its own where it names none. Raises invalid_request.

    Browsers cannot set headers on a WebSocket, so AgentCore's own client puts the name into the address as well.
    """
    session_id = _header(scope, _SESSION_HEADER)
    if session_id is None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        session_id = query.get(SESSION_HEADER, [None])[0]
    if session_id is None:
        return str(uuid.uuid4())
    if not _SESSION_ID.fullmatch(session_id):
        raise AgentError(
            "invalid_request",
            f"{SESSION_HEADER} has {len(session_id)} characters; use 33 to 256, printable ASCII without spaces",
        )
    return session_id


def _user_id(scope: Scope) -> str:
    user_id = _header(scope, _USER_HEADER)
    if user_id is None:
        return ""
    if not _USER_ID.fullmatch(user_id):
        message = f"{USER_HEADER} has {len(user_id)} characters; use 1 to 256, printable ASCII without spaces"
        raise AgentError("invalid_request", message)
    return user_id


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value).decode("latin-1")
    return None


def _frame(name: str, data: dict[str, Any]) -> Message:
    return {"type": "http.response.body", "body": b"data: " + _json(name, data) + b"\n\n", "more_body": True}


def _json(name: str, data: dict[str, Any]) -> bytes:
    # Half a character, which models do write, becomes its JSON escape.
    return json.dumps({"type": name, **data}, ensure_ascii=False).encode(errors="backslashreplace")


async def _refuse(error: AgentError, request_id: str, send: Send) -> None:
    """Answer the handshake with an error, as HTTP (ASGI's extension websocket.http.response)."""
    body = json.dumps(error.body(request_id)).encode()
    headers = [(b"content-type", b"application/json")]
    if error.retry_after_seconds:
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
