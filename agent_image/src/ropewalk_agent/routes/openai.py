"""POST /v1/chat/completions and GET /v1/models: OpenAI's protocol, so that its clients work unchanged.

Stateless, unless the caller names a session. The shapes are those of OpenAI's API reference (Chat Completions); an
error has our code and request_id beside OpenAI's type and param. Never logs what was asked or said.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, NotRequired

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict  # pydantic reads the one of typing from Python 3.12 on only

from ropewalk_agent.config import AgentConfig
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TextDelta, ToolEnded, TurnEvent, TurnRequest
from ropewalk_agent.routes import turns
from ropewalk_agent.routes.openai_messages import conversation
from ropewalk_agent.routes.openai_request import BadRequest, ChatCompletionBody, parsed
from ropewalk_agent.runtime import Runtime

FinishReason = Literal["stop", "length", "content_filter"]
_FINISH_REASONS: dict[str, FinishReason] = {
    "max_tokens": "length",
    "limit_tokens": "length",
    # Not finished either: whoever checks for `stop` must not take it for a whole answer.
    "limit_turns": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}
"""Every other stop reason is `stop`."""

_TYPES = {429: "rate_limit_error"}
_WORTH_REPEATING = ("queue_full", "not_ready")
"""After these a client may repeat its request unasked, unless the turn had begun: then its tools may have run."""


class Usage(TypedDict):
    """Tokens, as the model counted them, over all its calls in the turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Said(TypedDict):
    """The agent's answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(TypedDict):
    """The one answer, and why it ended; `stop_reason` is the one of POST /query."""

    index: Literal[0]
    message: Said
    logprobs: None
    finish_reason: FinishReason
    stop_reason: str


class ChatCompletion(TypedDict):
    """What POST /v1/chat/completions answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(TypedDict):
    """What a chunk adds; the role comes with the first."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChunkChoice(TypedDict):
    """A piece of the one answer; the last has a finish_reason and a stop_reason."""

    index: Literal[0]
    delta: Delta
    logprobs: None
    finish_reason: FinishReason | None
    stop_reason: NotRequired[str]


class ChatCompletionChunk(TypedDict):
    """One server-sent event of a stream; `usage` is there with stream_options.include_usage, and set in the last."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]


class ServedModel(TypedDict):
    """The agent, as a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ServedModels(TypedDict):
    """All models that the agent offers: itself."""

    object: Literal["list"]
    data: list[ServedModel]


class OpenAIErrorDetails(TypedDict):
    """What went wrong; `param` names the field."""

    code: str
    message: str
    request_id: str
    type: str
    param: str | None
    raw: NotRequired[str]


class OpenAIError(TypedDict):
    """An error in OpenAI's shape, with our code and request_id."""

    error: OpenAIErrorDetails


def routes(config: AgentConfig, runtime: Runtime) -> list[Route]:
    """Return the routes."""
    model = ServedModel(id=config.name, object="model", created=int(time.time()), owned_by="ropewalk")

    async def models(_: Request) -> Response:
        return JSONResponse(ServedModels(object="list", data=[model]))

    async def one_model(request: Request) -> Response:
        wanted: str = request.path_params["model"]
        if wanted == config.name:
            return JSONResponse(model)
        error = _no_such_model(wanted, config.name)
        return JSONResponse(_error(error, request.state.request_id), error.status)

    return [
        Route("/v1/chat/completions", ChatCompletions(config, runtime), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", one_model),
    ]


class ChatCompletions:
    """The ASGI application of POST /v1/chat/completions."""

    def __init__(self, config: AgentConfig, runtime: Runtime) -> None:
        self._config = config
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves cancels its turn."""
        request_id: str = scope["state"]["request_id"]
        try:
            body = parsed(await turns.read(receive))
            if body.model != self._config.name:
                raise _no_such_model(body.model, self._config.name)
            turn = _turn(body, request_id)
            writer = _Writer(self._config, body, request_id, send)
            write = writer.stream if turn.streaming else writer.json
            seconds = float(self._config.limits.request_timeout_seconds)
            async with aclosing(turns.events(self._runtime, turn, seconds, scope)) as events:
                await turns.unless_client_leaves(receive, write(events))
        except AgentError as error:
            scope["state"]["outcome"] = error.code
            repeatable = error.code in _WORTH_REPEATING and not error.begun
            headers = {"x-should-retry": "true" if repeatable else "false"}
            if error.retry_after_seconds:
                headers["retry-after"] = str(error.retry_after_seconds)
            await JSONResponse(_error(error, request_id), error.status, headers)(scope, receive, send)


def _turn(body: ChatCompletionBody, request_id: str) -> TurnRequest:
    said = conversation(body.messages)
    session_id = body.metadata.session_id if body.metadata else None
    if session_id is not None and (said.history or said.content):
        message = "with metadata.session_id the agent keeps the history: send the new question alone, as text"
        raise BadRequest(f"messages: {message}", "messages")
    return TurnRequest(
        query=said.query,
        session_id=session_id or uuid.uuid4().hex,
        user_id=body.user or "",
        request_id=request_id,
        streaming=bool(body.stream),
        history=said.history if session_id is None else None,
        instructions=said.instructions,
        content=said.content,
        output_schema=body.output_schema,
    )


class _Writer:
    """Writes one turn's events in OpenAI's shapes."""

    def __init__(self, config: AgentConfig, body: ChatCompletionBody, request_id: str, send: Send) -> None:
        self._send = send
        self._request_id = request_id
        self._structured = config.output_schema is not None or body.output_schema is not None
        self._with_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._id = f"chatcmpl-{request_id}"
        self._created = int(time.time())
        self._model = config.name

    async def json(self, events: AsyncGenerator[TurnEvent, None]) -> None:
        """Answer when the turn has ended."""
        async for event in events:
            if isinstance(event, Answer):
                await turns.send_json(self._send, self._completion(event))

    async def stream(self, events: AsyncGenerator[TurnEvent, None]) -> None:
        """Write each piece as it comes. `send` waits for a slow client, and with it, in the end, the turn."""
        begun = said = after_tool = False
        try:
            async for event in events:
                if not begun:
                    begun = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": turns.STREAM_HEADERS})
                    await self._chunk({"role": "assistant", "content": ""})
                match event:
                    case TextDelta(text) if not self._structured:
                        # What the agent says before a tool call and after it are paragraphs of one answer here.
                        await self._chunk({"content": f"\n\n{text}" if said and after_tool else text})
                        said, after_tool = True, False
                    case ToolEnded():
                        after_tool = True
                    case Answer():
                        if not said:
                            await self._chunk({"content": _content(event)})
                        await self._end(event)
        except AgentError as error:
            if not begun:
                raise  # an answer with a status of its own is still possible
            await self._frame(json.dumps(_error(error, self._request_id)))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _completion(self, answer: Answer) -> ChatCompletion:
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": _content(answer), "refusal": None},
                    "logprobs": None,
                    "finish_reason": _finish_reason(answer),
                    "stop_reason": answer.stop_reason,
                }
            ],
            "usage": _usage(answer),
        }

    async def _end(self, answer: Answer) -> None:
        await self._chunk({}, answer)
        if self._with_usage:
            await self._frame(json.dumps({**self._chunk_of([]), "usage": _usage(answer)}))
        await self._frame("[DONE]")

    async def _chunk(self, delta: Delta, end: Answer | None = None) -> None:
        choice = ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=_finish_reason(end) if end else None)
        if end is not None:
            choice["stop_reason"] = end.stop_reason
        chunk = self._chunk_of([choice])
        if self._with_usage:
            chunk["usage"] = None
        await self._frame(json.dumps(chunk))

    def _chunk_of(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    async def _frame(self, data: str) -> None:
        # The JSON is ASCII: clients exist that end a line of a stream at each of Unicode's line separators.
        await self._send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})


def _content(answer: Answer) -> str:
    return json.dumps(answer.structured, ensure_ascii=False) if answer.is_structured else answer.response


def _finish_reason(answer: Answer) -> FinishReason:
    return _FINISH_REASONS.get(answer.stop_reason, "stop")


def _usage(answer: Answer) -> Usage:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _no_such_model(wanted: str, name: str) -> AgentError:
    return AgentError("not_found", f"there is no model {wanted[:100]!r} here; use {name!r}, the agent's name")


def _error(error: AgentError, request_id: str) -> OpenAIError:
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    param = error.param if isinstance(error, BadRequest) else "model" if error.code == "not_found" else None
    details: Any = {**error.body(request_id)["error"], "type": kind, "param": param}
    return {"error": details}
