"""POST /query: one turn, answered as JSON or as a stream of server-sent events. Never logs what was asked or said."""

import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import Message, Receive, Scope, Send

from ropewalk_agent.config import Limits
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TextDelta, ToolEnded, ToolStarted, TurnEvent, TurnRequest
from ropewalk_agent.routes import turns
from ropewalk_agent.runtime import Runtime

Frame = Callable[[str, dict[str, Any]], Message]
"""How a protocol writes an event, given its name and its fields, into a stream."""


class QueryBody(BaseModel):
    """What POST /query takes: `query` (or `message`, the same), and optionally whose session it is.

    `output_schema` asks for a structured answer, `tool_servers` and `tools` leave only some of the agent's tools.
    """

    model_config = ConfigDict(extra="forbid")

    query: str | None = Field(default=None, min_length=1)
    message: str | None = Field(default=None, min_length=1)
    session_id: turns.Identifier | None = None
    user_id: turns.Identifier | None = None
    timeout_seconds: float | None = Field(default=None, gt=0)
    wait_for_session: bool = True
    output_schema: dict[str, Any] | None = None
    tool_servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.query is None) == (self.message is None):
            raise ValueError("query is missing; send exactly one of query and message")
        return self

    @property
    def question(self) -> str:
        """The one of `query` and `message` that was sent."""
        return self.query or self.message or ""

    def turn(self, request_id: str, *, streaming: bool) -> TurnRequest:
        """Return the turn that was asked for."""
        return TurnRequest(
            query=self.question,
            # Unlike a request's id, a session's must not be guessed: where no user is named it is all that guards it.
            session_id=self.session_id or uuid.uuid4().hex,
            user_id=self.user_id or "",
            request_id=request_id,
            streaming=streaming,
            wait_for_session=self.wait_for_session,
            output_schema=self.output_schema,
            tool_servers=self.tool_servers,
            tools=self.tools,
        )


class QueryEndpoint:
    """The ASGI application of POST /query. The middleware of app.py gives `scope["state"]["request_id"]`."""

    def __init__(self, runtime: Runtime, limits: Limits) -> None:
        self._runtime = runtime
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves cancels its turn."""
        body = turns.parsed(QueryBody, await turns.read(receive))
        turn = body.turn(scope["state"]["request_id"], streaming=turns.wants_stream(scope))
        write = partial(write_stream, frame=_frame) if turn.streaming else write_json
        timeout_seconds = turns.timeout_seconds(body.timeout_seconds, self._limits)
        async with aclosing(turns.events(self._runtime, turn, timeout_seconds, scope)) as events:
            await turns.unless_client_leaves(receive, write(events, turn, send))


async def write_json(events: AsyncGenerator[TurnEvent, None], turn: TurnRequest, send: Send) -> None:
    """Answer with the turn's end as one JSON object."""
    async for event in events:
        if isinstance(event, Answer):
            await turns.send_json(send, answer_body(event, turn.request_id))


async def write_stream(events: AsyncGenerator[TurnEvent, None], turn: TurnRequest, send: Send, frame: Frame) -> None:
    """Write each event as it comes, in the protocol's own `frame`.

    `send` waits for a slow client, and with it, in the end, the turn.
    """
    begun = False
    try:
        async for event in events:
            if not begun:
                begun = True
                await send({"type": "http.response.start", "status": 200, "headers": turns.STREAM_HEADERS})
            await send(frame(*named(event, turn.request_id)))
    except AgentError as error:
        if not begun:
            raise  # an answer with a status of its own is still possible
        await send(frame("error", error.body(turn.request_id)))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def named(event: TurnEvent, request_id: str) -> tuple[str, dict[str, Any]]:
    """Return what clients are told of an event: its name and its fields."""
    match event:
        case TextDelta(text):
            return "text", {"text": text}
        case ToolStarted(tool, server, tool_use_id):
            return "tool_start", {"tool": tool, "server": server, "tool_use_id": tool_use_id}
        case ToolEnded(tool, server, tool_use_id, outcome):
            return "tool_end", {"tool": tool, "server": server, "tool_use_id": tool_use_id, "outcome": outcome}
        case Answer():
            return "result", answer_body(event, request_id)


def _frame(name: str, data: dict[str, Any]) -> Message:
    text = f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
    # Half a surrogate pair, which a model may well cut its text into, leaves as the JSON escape that it is.
    return {"type": "http.response.body", "body": text.encode(errors="backslashreplace"), "more_body": True}


def answer_body(answer: Answer, request_id: str) -> dict[str, Any]:
    """Return the answer as clients get it."""
    return {
        "response": answer.response,
        **({"structured": answer.structured} if answer.is_structured else {}),
        "session_id": answer.session_id,
        "stop_reason": answer.stop_reason,
        "usage": turns.usage(answer),
        "tools_used": answer.tools_used,
        "timings": turns.timings(answer),
        "request_id": request_id,
    }
