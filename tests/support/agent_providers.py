"""Local servers that speak the wire protocols of model providers, over real HTTP on loopback.

Each plays a list of steps, one for a request, and every later request with the last one; it remembers what it was
asked. The bodies follow the providers' published protocols, so that the providers' own clients must read them.
"""

import asyncio
import binascii
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request

from ports import free_port
from waiting import eventually

INPUT_TOKENS, OUTPUT_TOKENS = 11, 7


@dataclass(frozen=True)
class Says:
    """The model writes these pieces of text."""

    pieces: tuple[str, ...]
    hold: asyncio.Event | None = None
    """What to wait for after the first piece."""


@dataclass(frozen=True)
class Calls:
    """The model asks for a tool."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Refuses:
    """The provider answers with this status, in its own form of an error."""

    status: int
    words: str
    code: str = "some_code"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Breaks:
    """The connection breaks after these pieces; without any, before an answer."""

    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class IsSilent:
    """Nothing comes until the event is set."""

    until: asyncio.Event


@dataclass(frozen=True)
class Raw:
    """A stream of these bytes, with status 200."""

    body: bytes


Step = Says | Calls | Refuses | Breaks | IsSilent | Raw


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    query: str = ""


@dataclass(frozen=True)
class Protocol:
    """How one provider writes its answers."""

    media_type: str
    start: Callable[[], list[bytes]]
    text: Callable[[str], bytes]
    end: Callable[[bool], list[bytes]]
    """The end of an answer in text, or of a tool call."""
    tool: Callable[[str, dict[str, Any]], list[bytes]]
    refusal: Callable[[Refuses], dict[str, Any]]
    key: Callable[[dict[str, str]], str]


@dataclass
class Provider:
    """A running server; change `steps` as you like."""

    protocol: Protocol
    port: int
    steps: list[Step]
    asked: list[Asked] = field(default_factory=list)
    listing: Step = field(default_factory=lambda: Raw(b"{}"))
    """The answer to who asks for the list of models."""
    listed: list[Asked] = field(default_factory=list)
    """Who asked for it; not among `asked`."""
    empty_chat: Step | None = None
    """The answer to a request without anything in it; None: as for the list."""
    empty_chats: list[Asked] = field(default_factory=list)
    """Who sent one; not among `asked`."""

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> list[str]:
        """The key of each request."""
        return [self.protocol.key(asked.headers) for asked in self.asked]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as an ASGI application."""
        body = await Request(scope, receive).body()
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        if scope["method"] == "GET":
            self.listed.append(Asked(scope["path"], headers, {}, query))
            await self._play(self.listing, send)
            return
        if body == b"{}":
            self.empty_chats.append(Asked(scope["path"], headers, {}, query))
            await self._play(self.empty_chat or self.listing, send)
            return
        self.asked.append(Asked(scope["path"], headers, json.loads(body or b"{}"), query))
        step = self.steps[min(len(self.asked), len(self.steps)) - 1]
        await self._play(step, send)

    async def _play(self, step: Step, send: Any) -> None:
        if isinstance(step, Refuses):
            answer = json.dumps(self.protocol.refusal(step)).encode()
            extra = [(name.encode(), value.encode()) for name, value in step.headers]
            started = [(b"content-type", b"application/json"), *extra]
            await send({"type": "http.response.start", "status": step.status, "headers": started})
            await send({"type": "http.response.body", "body": answer})
            return
        if isinstance(step, IsSilent):
            await step.until.wait()
        if isinstance(step, IsSilent) or (isinstance(step, Breaks) and not step.pieces):
            send.__self__.transport.abort()
            return
        media = [(b"content-type", self.protocol.media_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": media})

        async def write(*parts: bytes) -> None:
            for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})

        if isinstance(step, Raw):
            await send({"type": "http.response.body", "body": step.body})
            return
        await write(*self.protocol.start())
        if isinstance(step, Calls):
            await write(*self.protocol.tool(step.tool, step.arguments), *self.protocol.end(True))
        else:
            for i, piece in enumerate(step.pieces):
                await write(self.protocol.text(piece))
                if i == 0 and isinstance(step, Says) and step.hold is not None:
                    await step.hold.wait()
            if isinstance(step, Breaks):
                send.__self__.transport.abort()
                return
            await write(*self.protocol.end(False))
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def provider(protocol: str, *steps: Step, ssl_files: tuple[str, str] | None = None) -> AsyncIterator[Provider]:
    """Serve the protocol of this name until the block ends; `ssl_files` are key and certificate for https."""
    running = Provider(PROTOCOLS[protocol], free_port(), list(steps or (Says(("Hello", " there.")),)))
    tls = {"ssl_keyfile": ssl_files[0], "ssl_certfile": ssl_files[1]} if ssl_files else {}
    options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None, **tls}
    server = uvicorn.Server(uvicorn.Config(running, port=running.port, timeout_graceful_shutdown=1, **options))
    serving = asyncio.create_task(server._serve())
    try:
        await eventually(lambda: server.started)
        yield running
    finally:
        server.should_exit = server.force_exit = True
        await serving


# OpenAI's chat completions, which Mistral's, llama.cpp's and many others resemble.


def _sse(data: dict[str, Any] | str, event: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


def _openai_chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return _sse({**head, "choices": [choice], **more})


_USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


def _openai_tool(name: str, arguments: dict[str, Any]) -> list[bytes]:
    text = json.dumps(arguments)
    first = {"index": 0, "id": "call_123456", "type": "function", "function": {"name": name, "arguments": text[:3]}}
    rest = {"index": 0, "function": {"arguments": text[3:]}}
    return [_openai_chunk({"tool_calls": [first]}), _openai_chunk({"tool_calls": [rest]})]


def _openai_end(tool: bool) -> list[bytes]:
    usage = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": _USAGE}
    return [_openai_chunk({}, "tool_calls" if tool else "stop"), _sse(usage), _sse("[DONE]")]


def _openai_refusal(step: Refuses) -> dict[str, Any]:
    return {"error": {"message": step.words, "type": "invalid_request_error", "param": None, "code": step.code}}


def _bearer(headers: dict[str, str]) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


_OPENAI = Protocol(
    media_type="text/event-stream",
    start=lambda: [_openai_chunk({"role": "assistant", "content": ""})],
    text=lambda piece: _openai_chunk({"content": piece}),
    end=_openai_end,
    tool=_openai_tool,
    refusal=_openai_refusal,
    key=_bearer,
)


def _mistral_tool(name: str, arguments: dict[str, Any]) -> list[bytes]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": "call12345", "function": function}
    return [_openai_chunk({"tool_calls": [call]}, "tool_calls", usage=_USAGE), _sse("[DONE]")]


_MISTRAL = Protocol(
    media_type="text/event-stream",
    start=_OPENAI.start,
    text=_OPENAI.text,
    # Mistral sends the usage with the last piece, and a tool call in one piece with the end.
    end=lambda tool: [] if tool else [_openai_chunk({"content": ""}, "stop", usage=_USAGE), _sse("[DONE]")],
    tool=_mistral_tool,
    refusal=lambda step: {"object": "error", "message": step.words, "type": step.code, "code": step.code},
    key=_bearer,
)


# Anthropic's messages.


def _anthropic(data: dict[str, Any]) -> bytes:
    return _sse(data, data["type"])


def _anthropic_start() -> list[bytes]:
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
    message = {"id": "m1", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": usage}
    return [_anthropic({"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}})]


def _anthropic_block(block: dict[str, Any], delta: dict[str, Any]) -> list[bytes]:
    return [
        _anthropic({"type": "content_block_start", "index": 0, "content_block": block}),
        _anthropic({"type": "content_block_delta", "index": 0, "delta": delta}),
    ]


def _anthropic_end(tool: bool) -> list[bytes]:
    delta = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    return [
        _anthropic({"type": "content_block_stop", "index": 0}),
        _anthropic({"type": "message_delta", "delta": delta, "usage": {"output_tokens": OUTPUT_TOKENS}}),
        _anthropic({"type": "message_stop"}),
    ]


_ANTHROPIC = Protocol(
    media_type="text/event-stream",
    start=lambda: [
        *_anthropic_start(),
        _anthropic({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ],
    text=lambda piece: _anthropic(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    ),
    end=_anthropic_end,
    tool=lambda name, arguments: [
        _anthropic({"type": "content_block_stop", "index": 0}),
        *(
            part.replace(b'"index": 0', b'"index": 1')
            for part in _anthropic_block(
                {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(arguments)},
            )
        ),
    ],
    refusal=lambda step: {"type": "error", "error": {"type": step.code, "message": step.words}, "request_id": "r1"},
    key=lambda headers: headers.get("x-api-key", ""),
)


# Gemini's streamGenerateContent.


def _gemini_chunk(*parts: dict[str, Any], **more: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    usage = {
        "promptTokenCount": INPUT_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS,
        "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return _sse({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"})


_GEMINI = Protocol(
    media_type="text/event-stream",
    start=lambda: [],
    text=lambda piece: _gemini_chunk({"text": piece}),
    end=lambda tool: [_gemini_chunk({"text": ""}, finishReason="STOP")],
    tool=lambda name, arguments: [_gemini_chunk({"functionCall": {"name": name, "args": arguments}})],
    refusal=lambda step: {"error": {"code": step.status, "message": step.words, "status": step.code}},
    key=lambda headers: headers.get("x-goog-api-key", ""),
)


# Ollama's /api/chat: a JSON object a line.


def _ollama_line(message: dict[str, Any], **more: Any) -> bytes:
    head = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "done": False}
    return json.dumps({**head, "message": {"role": "assistant", **message}, **more}).encode() + b"\n"


_OLLAMA = Protocol(
    media_type="application/x-ndjson",
    start=lambda: [],
    text=lambda piece: _ollama_line({"content": piece}),
    end=lambda tool: [
        _ollama_line(
            {"content": ""},
            done=True,
            done_reason="stop",
            total_duration=1,
            prompt_eval_count=INPUT_TOKENS,
            eval_count=OUTPUT_TOKENS,
        )
    ],
    tool=lambda name, arguments: [
        _ollama_line({"content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
    ],
    refusal=lambda step: {"error": step.words},
    key=_bearer,
)


# Bedrock's ConverseStream: frames of application/vnd.amazon.eventstream.


def _frame(event: str, payload: dict[str, Any]) -> bytes:
    body = json.dumps(payload).encode()
    headers = b""
    for name, value in ((":event-type", event), (":content-type", "application/json"), (":message-type", "event")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + body
    return message + struct.pack(">I", binascii.crc32(message))


def _bedrock_end(tool: bool) -> list[bytes]:
    usage = {
        "inputTokens": INPUT_TOKENS,
        "outputTokens": OUTPUT_TOKENS,
        "totalTokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return [
        _frame("contentBlockStop", {"contentBlockIndex": 0}),
        _frame("messageStop", {"stopReason": "tool_use" if tool else "end_turn"}),
        _frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    ]


_BEDROCK = Protocol(
    media_type="application/vnd.amazon.eventstream",
    start=lambda: [_frame("messageStart", {"role": "assistant"})],
    text=lambda piece: _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}),
    end=_bedrock_end,
    tool=lambda name, arguments: [
        _frame("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t1", "name": name}}}),
        _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": json.dumps(arguments)}}}),
    ],
    refusal=lambda step: {"message": step.words, "__type": step.code},
    key=_bearer,
)

PROTOCOLS = {
    "openai": _OPENAI,
    "openai-compatible": _OPENAI,
    "anthropic": _ANTHROPIC,
    "bedrock": _BEDROCK,
    "gemini": _GEMINI,
    "mistral": _MISTRAL,
    "ollama": _OLLAMA,
    "litellm": _OPENAI,
    "llamacpp": _OPENAI,
}
