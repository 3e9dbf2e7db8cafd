"""POST /query: one turn, answered as JSON or as a stream of server-sent events. Never logs what was asked or said."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ropewalk_agent.config import Limits
from ropewalk_agent.errors import AgentError, internal_error
from ropewalk_agent.events import Answer, TextDelta, ToolEnded, ToolStarted, TurnEvent, TurnRequest
from ropewalk_agent.runtime import Runtime

_log = logging.getLogger("ropewalk.query")

_LARGEST_BODY = 1024 * 1024
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_Id = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]


class QueryBody(BaseModel):
    """What POST /query takes: `query` (or `message`, the same), and optionally whose session it is."""

    model_config = ConfigDict(extra="forbid")

    query: str | None = Field(default=None, min_length=1)
    message: str | None = Field(default=None, min_length=1)
    session_id: _Id | None = None
    user_id: _Id | None = None
    timeout_seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.query is None) == (self.message is None):
            raise ValueError("query is missing; send exactly one of query and message")
        return self

    @property
    def question(self) -> str:
        """The one of `query` and `message` that was sent."""
        return self.query or self.message or ""


class QueryEndpoint:
    """The ASGI application of POST /query. The middleware of app.py gives `scope["state"]["request_id"]`."""

    def __init__(self, runtime: Runtime, limits: Limits) -> None:
        self._runtime = runtime
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves cancels its turn."""
        request_id: str = scope["state"]["request_id"]
        body = _parsed(await _read(receive))
        timeout_seconds = float(self._limits.request_timeout_seconds)
        if body.timeout_seconds is not None:
            timeout_seconds = min(timeout_seconds, body.timeout_seconds)
        turn = TurnRequest(
            query=body.question,
            # Unlike a request's id, a session's must not be guessed: where no user is named it is all that guards it.
            session_id=body.session_id or uuid.uuid4().hex,
            user_id=body.user_id or "",
            request_id=request_id,
            streaming=any(name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"]),
        )
        write = _write_stream if turn.streaming else _write_json
        async with aclosing(self._events(turn, timeout_seconds, scope)) as events:
            await _unless_client_leaves(receive, write(events, turn, send))

    async def _events(self, turn: TurnRequest, timeout_seconds: float, scope: Scope) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events and write its log line; every error leaves as an AgentError."""
        started = time.monotonic()
        outcome, answer = "cancelled", None
        try:
            async with aclosing(self._runtime.run(turn, timeout_seconds=timeout_seconds)) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        answer = event
                        outcome = answer.stop_reason if answer.stop_reason.startswith("limit_") else "ok"
                    yield event
            if answer is None:
                raise internal_error()
        except AgentError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = "internal"
            _log.exception("turn failed", extra={"fields": {"request_id": turn.request_id}})
            raise internal_error() from None
        finally:
            scope["state"]["outcome"] = outcome
            _log_turn(turn, outcome, answer, time.monotonic() - started)


async def _write_json(events: AsyncGenerator[TurnEvent, None], turn: TurnRequest, send: Send) -> None:
    data: dict[str, Any] = {}
    async for event in events:
        if isinstance(event, Answer):
            data = _answer_body(event, turn.request_id)
    body = json.dumps(data, ensure_ascii=False).encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _write_stream(events: AsyncGenerator[TurnEvent, None], turn: TurnRequest, send: Send) -> None:
    """Write each event as it comes. `send` waits for a slow client, and with it, in the end, the turn."""
    begun = False
    try:
        async for event in events:
            if not begun:
                begun = True
                await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            await send(_frame(*_named(event, turn.request_id)))
    except AgentError as error:
        if not begun:
            raise  # an answer with a status of its own is still possible
        await send(_frame("error", error.body(turn.request_id)))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _named(event: TurnEvent, request_id: str) -> tuple[str, dict[str, Any]]:
    match event:
        case TextDelta(text):
            return "text", {"text": text}
        case ToolStarted(tool, server, tool_use_id):
            return "tool_start", {"tool": tool, "server": server, "tool_use_id": tool_use_id}
        case ToolEnded(tool, server, tool_use_id, outcome):
            return "tool_end", {"tool": tool, "server": server, "tool_use_id": tool_use_id, "outcome": outcome}
        case Answer():
            return "result", _answer_body(event, request_id)


def _frame(name: str, data: dict[str, Any]) -> dict[str, Any]:
    text = f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


def _answer_body(answer: Answer, request_id: str) -> dict[str, Any]:
    return {
        "response": answer.response,
        "session_id": answer.session_id,
        "stop_reason": answer.stop_reason,
        "usage": _usage(answer),
        "tools_used": answer.tools_used,
        "timings": _timings(answer),
        "request_id": request_id,
    }


def _usage(answer: Answer) -> dict[str, int]:
    return {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}


def _timings(answer: Answer) -> dict[str, float]:
    timings = answer.timings
    return {
        "queue_seconds": round(timings.queue, 4),
        "model_seconds": round(timings.model, 4),
        "tools_seconds": round(timings.tools, 4),
        "total_seconds": round(timings.total, 4),
    }


def _log_turn(turn: TurnRequest, outcome: str, answer: Answer | None, seconds: float) -> None:
    fields: dict[str, Any] = {"request_id": turn.request_id, "session_id": turn.session_id, "outcome": outcome}
    fields["seconds"] = round(seconds, 4)
    if answer is not None:
        fields.update(
            stop_reason=answer.stop_reason, tools_used=answer.tools_used, usage=_usage(answer), timings=_timings(answer)
        )
    _log.info("turn ended", extra={"fields": fields})


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > _LARGEST_BODY:
            raise AgentError("invalid_request", f"the body is larger than {_LARGEST_BODY} bytes; send less")
        if not message.get("more_body", False):
            return bytes(body)


def _parsed(body: bytes) -> QueryBody:
    try:
        return QueryBody.model_validate_json(body)
    except ValidationError as error:
        problems = [_problem(problem) for problem in error.errors(include_url=False, include_input=False)]
    raise AgentError("invalid_request", "; ".join(problems))


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a field of this endpoint; it takes {', '.join(QueryBody.model_fields)}"
    text = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
    return f"{where}: {text}" if where else text


async def _unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it once the client has closed the connection. Reads `receive` in a task beside it."""
    task = asyncio.current_task()
    left = False

    def leave(_: asyncio.Task[None]) -> None:
        nonlocal left
        left = True
        if task is not None:
            task.cancel()

    leaving = asyncio.ensure_future(_disconnect(receive))
    leaving.add_done_callback(leave)
    try:
        await work
    except asyncio.CancelledError:
        # Somebody else may have cancelled us too (the server, at its end): that one is passed on.
        if not left or task is None or task.uncancel() > 0:
            raise
        raise ClientDisconnect from None
    finally:
        leaving.remove_done_callback(leave)
        leaving.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
