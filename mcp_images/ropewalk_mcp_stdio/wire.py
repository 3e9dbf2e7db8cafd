"""Reads requests and writes responses of streamable HTTP, on plain ASGI."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.jsonrpc import LARGEST_MESSAGE_BYTES, Message, Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


async def disconnected(receive: Receive) -> None:
    """Wait for the end of the connection, or of the answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return the request's headers; a doubled one has all its values."""
    headers: dict[bytes, bytes] = {}
    for name, padded in scope["headers"]:
        # RFC 9110, 5.5: the white space around a value is no part of it. Not every parser takes it off.
        value = padded.strip(b" \t")
        # A doubled header joins its values, which then match nothing: two readers might disagree on which one counts.
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def accepts(headers: dict[bytes, bytes], *kinds: bytes) -> None:
    """Refuse a client that takes none of these kinds of answer."""
    accepted = {part.split(b";")[0].strip().lower() for part in headers.get(b"accept", b"").split(b",")}
    if not accepted.intersection((*kinds, b"*/*")):
        problem = f"the header Accept must name {kinds[0].decode()}"
        raise Refusal(jsonrpc.INVALID_REQUEST, problem, 406)


async def message_of(headers: dict[bytes, bytes], receive: Receive) -> Message:
    """Return the JSON-RPC message that the client POSTs; Refusal where it is none, or too large."""
    accepts(headers, b"application/json", b"application/*")
    accepts(headers, b"text/event-stream", b"text/*")
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(jsonrpc.INVALID_REQUEST, "the header Content-Type must be application/json", 415)
    body = await _body(headers, receive)
    try:
        message = jsonrpc.decoded(body)
    except ValueError:
        raise Refusal(jsonrpc.PARSE_ERROR, "the body is no JSON", 400) from None
    if not jsonrpc.is_message(message):
        raise Refusal(jsonrpc.INVALID_REQUEST, "the body is not one JSON-RPC 2.0 message", 400)
    return dict(message)


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length", b"")
    size = int(length) if length.isdigit() else 0
    chunks: list[bytes] = []
    more = True
    while more and size <= LARGEST_MESSAGE_BYTES:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refusal(jsonrpc.INVALID_REQUEST, "the body is incomplete", 400)
        chunks.append(event.get("body", b""))
        more = event.get("more_body", False)
        size = max(size, sum(map(len, chunks)) if more else 0)
    body = b"".join(chunks)
    if max(size, len(body)) > LARGEST_MESSAGE_BYTES:
        problem = f"the message has {max(size, len(body))} bytes or more; at most {LARGEST_MESSAGE_BYTES} pass"
        raise Refusal(jsonrpc.TOO_LARGE, problem, 413)
    return body


def event(message: Message | None) -> bytes:
    """Return a message as an event of a stream; without one, a sign of life."""
    return b": alive\n\n" if message is None else b"event: message\ndata: " + jsonrpc.encoded(message) + b"\n\n"


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def write_json(send: Send, status: int, value: Message) -> None:
    """Send an object as JSON."""
    await respond(send, status, JSON, json.dumps(value).encode())


async def refuse(send: Send, request_id: Any, refusal: Refusal, more: Headers | None = None) -> None:
    """Send a refusal as a JSON-RPC error with its HTTP status."""
    headers = JSON + (more or [])
    if refusal.retry_after_seconds is not None:
        headers = [*headers, (b"retry-after", str(refusal.retry_after_seconds).encode())]
    answer = jsonrpc.error(request_id, refusal.code, refusal.message, refusal.data)
    await respond(send, refusal.status, headers, jsonrpc.encoded(answer))
