"""What every endpoint that runs turns shares: reading and checking a body, following the client, the turn's log line.

Never logs what was asked or said. The middleware of app.py gives `scope["state"]["request_id"]` and counts by
`scope["state"]["outcome"]`.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ropewalk_agent.config import Limits
from ropewalk_agent.errors import AgentError, internal_error
from ropewalk_agent.events import Answer, TurnEvent, TurnRequest
from ropewalk_agent.runtime import Runtime

_log = logging.getLogger("ropewalk.query")

LARGEST_BODY = 1024 * 1024
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
Identifier = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]
"""A session's or a user's name: printable ASCII without spaces."""

BodyT = TypeVar("BodyT", bound=BaseModel)


def wants_stream(scope: Scope) -> bool:
    """Whether the client asked for server-sent events by its Accept header."""
    return any(name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"])


def timeout_seconds(asked: float | None, limits: Limits) -> float:
    """Return how long a turn may take: what was asked for, and never more than the agent's limit."""
    most = float(limits.request_timeout_seconds)
    return most if asked is None else min(most, asked)


async def events(
    runtime: Runtime, turn: TurnRequest, timeout_seconds: float, scope: Scope
) -> AsyncGenerator[TurnEvent, None]:
    """Yield the turn's events and write its log line; every error leaves as an AgentError."""
    started = time.monotonic()
    outcome, answer = "cancelled", None
    try:
        async with aclosing(runtime.run(turn, timeout_seconds=timeout_seconds)) as events:
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


def usage(answer: Answer) -> dict[str, int]:
    """Return the tokens of the turn, as the model counted them."""
    return {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}


def timings(answer: Answer) -> dict[str, float]:
    """Return where the turn's time went, in seconds."""
    spent = answer.timings
    return {
        "queue_seconds": round(spent.queue, 4),
        "model_seconds": round(spent.model, 4),
        "tools_seconds": round(spent.tools, 4),
        "total_seconds": round(spent.total, 4),
    }


def _log_turn(turn: TurnRequest, outcome: str, answer: Answer | None, seconds: float) -> None:
    fields: dict[str, Any] = {"request_id": turn.request_id, "session_id": turn.session_id, "outcome": outcome}
    fields["seconds"] = round(seconds, 4)
    if answer is not None:
        fields.update(
            stop_reason=answer.stop_reason, tools_used=answer.tools_used, usage=usage(answer), timings=timings(answer)
        )
    _log.info("turn ended", extra={"fields": fields})


async def read(receive: Receive) -> bytes:
    """Return the whole body; raises ClientDisconnect, and AgentError invalid_request where it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise AgentError("invalid_request", f"the body is larger than {LARGEST_BODY} bytes; send less")
        if not message.get("more_body", False):
            return bytes(body)


def parsed(model: type[BodyT], body: bytes) -> BodyT:
    """Return the request that `body` holds; raises AgentError invalid_request with every problem."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = [_problem(model, problem) for problem in error.errors(include_url=False, include_input=False)]
    raise AgentError("invalid_request", "; ".join(problems))


def _problem(model: type[BaseModel], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = f"; it takes {', '.join(model.model_fields)}" if len(problem["loc"]) == 1 else ""
        return f"{where} is not a field of this endpoint{known}"
    text = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
    return f"{where}: {text}" if where else text


async def send_json(send: Send, data: Any) -> None:
    """Answer with status 200 and `data` as JSON."""
    # Half a character, which models do write, becomes its JSON escape.
    body = json.dumps(data, ensure_ascii=False).encode(errors="backslashreplace")
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
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
