"""MCP's streamable HTTP, of both eras, as a plain ASGI application; and /health, /ready and /metrics.

It knows HTTP and nothing of children: what a message does is decided by the mode. A thin layer of our own, because
the SDK's session and transport classes cost more than the rest of the way to the child (docs/adr/0005-stdio-bridge.md).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from ropewalk_mcp_process.hosts import OwnNames
from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call, Caller
from ropewalk_mcp_stdio.envelope import caller_of, check_headers
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.metrics import REQUESTS, SECONDS
from ropewalk_mcp_stdio.operations import operate
from ropewalk_mcp_stdio.protocol import (
    HEADER_MISMATCH,
    METHODS,
    MISSING_CAPABILITY,
    SESSION_VERSIONS,
    UNSUPPORTED_VERSION,
)
from ropewalk_mcp_stdio.sessions import Session
from ropewalk_mcp_stdio.wire import (
    EVENTS,
    JSON,
    Headers,
    Receive,
    Scope,
    Send,
    accepts,
    disconnected,
    event,
    headers_of,
    message_of,
    refuse,
    respond,
    write_json,
)

# An idle stream says so this often, before a proxy takes it for dead.
_KEEP_ALIVE_SECONDS = 15.0
_STATUS = {
    jsonrpc.PARSE_ERROR: 400, jsonrpc.INVALID_REQUEST: 400, jsonrpc.INVALID_PARAMS: 400, HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400, UNSUPPORTED_VERSION: 400, jsonrpc.METHOD_NOT_FOUND: 404,
}  # fmt: skip
_OUTCOMES = {jsonrpc.BUSY: "busy", jsonrpc.UNAVAILABLE: "unavailable", jsonrpc.CANCELLED: "cancelled"}


class Mode(Protocol):
    """What the messages of clients do: shared or perSession."""

    @property
    def problem(self) -> str | None:
        """What keeps the bridge from being ready, or None."""

    @property
    def links(self) -> list[Link]:
        """The connections to children."""

    def session(self, name: str) -> Session:
        """Return a session; Refusal where it is not known."""

    async def initialize(self, call: Call) -> Session:
        """Answer the call, which is initialize, and return the session that it opens."""

    async def request(self, session: Session, call: Call) -> None:
        """Start a call of a session."""

    def notify(self, session: Session, message: Message) -> None:
        """Take a notification of a client."""

    def respond(self, session: Session, message: Message) -> None:
        """Take a client's answer to a question of the child."""

    async def end(self, session: Session) -> None:
        """End a session."""

    async def stateless(self, caller: Caller, call: Call) -> None:
        """Start a call of the stateless era."""

    async def start(self, fail: Callable[[], None]) -> None:
        """Start what is needed before the first client; `fail` is called where it cannot go on."""

    async def stop(self) -> None:
        """End all children."""

    def done(self, call: Call) -> None:
        """Take the end of a call's HTTP request."""


class Application:
    """The ASGI application."""

    def __init__(self, mode: Mode, path: str, name: str, own_names: OwnNames) -> None:
        self._mode, self._path, self._name, self._own_names = mode, path, name, own_names
        self.draining = False
        self.active = 0
        self._nothing_active = asyncio.Event()
        self._nothing_active.set()
        self._streams: set[Session] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path == self._path:
            headers = headers_of(scope)
            host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
            refused = self._own_names.refusal(host, origin)
            try:
                if refused is not None:
                    raise Refusal(jsonrpc.INVALID_REQUEST, refused[1], refused[0])
                await self._mcp(method, headers, receive, send)
            except Refusal as refusal:
                await refuse(send, None, refusal)
        elif path in ("/health", "/ready", "/metrics") and method in ("GET", "HEAD"):
            await operate(path, headers_of(scope), send, self._mode, self._problem())
        else:
            allowed = f"there is nothing at {path[:200]}; MCP is at {self._path}"
            await write_json(send, 404, {"error": {"code": "NOT_FOUND", "message": allowed}})

    async def drained(self) -> None:
        """Wait until no call is active."""
        await self._nothing_active.wait()

    def end_streams(self) -> None:
        """End the streams that wait for what a child might send, for the bridge ends."""
        for session in self._streams:
            session.stream.close()

    def _problem(self) -> str | None:
        problem = "it is shutting down" if self.draining else self._mode.problem
        return None if problem is None else f"server {self._name!r}: {problem}"

    async def _mcp(self, method: str, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        stateless = bool(version) and version not in SESSION_VERSIONS
        if method == "POST":
            message = await message_of(headers, receive)
            if stateless:
                await self._post_stateless(message, version, headers, receive, send)
            else:
                await self._post(message, headers, receive, send)
        elif method == "GET" and not stateless:
            await self._stream(self._session_of(headers), headers, receive, send)
        elif method == "DELETE" and not stateless:
            await self._mode.end(self._session_of(headers))
            await respond(send, 200, JSON, b"")
        else:
            allow = b"POST" if stateless else b"GET, POST, DELETE"
            await respond(send, 405, [(b"allow", allow)], b"")

    def _session_of(self, headers: dict[bytes, bytes]) -> Session:
        name = headers.get(b"mcp-session-id")
        if name is None:
            raise Refusal(jsonrpc.INVALID_REQUEST, "the header Mcp-Session-Id is missing; initialize first", 400)
        return self._mode.session(name.decode("latin-1"))

    async def _post(self, message: Message, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if message.get("method") == "initialize" and "id" in message:
            await self._initialize(Call(None, message, long=True), receive, send)
            return
        session = self._session_of(headers)
        if "id" not in message:
            self._mode.notify(session, message)
            await respond(send, 202, JSON, b"")
        elif "method" not in message:
            self._mode.respond(session, message)
            await respond(send, 202, JSON, b"")
        else:
            request_id = message["id"]
            key = (type(request_id), request_id)
            if key in session.calls:
                problem = "a request with this id is in flight in this session; give every request its own"
                await refuse(send, request_id, Refusal(jsonrpc.INVALID_REQUEST, problem, 400))
                return
            name = (b"mcp-session-id", session.name.encode())
            call = Call(session, message)
            await self._call(session, call, self._mode.request(session, call), receive, send, more=[name])

    async def _initialize(self, call: Call, receive: Receive, send: Send) -> None:
        outcome = "error"
        left = _left(call, receive)
        try:
            session = await self._mode.initialize(call)
            failed = "error" in await call.answer()
            if left.done() and not failed:
                # Nobody will know of the session.
                await self._mode.end(session)
            outcome = await self._answer(call, [] if failed else [(b"mcp-session-id", session.name.encode())], send)
        except Refusal as refusal:
            outcome = _OUTCOMES.get(refusal.code, "error")
            await refuse(send, call.request_id, refusal)
        finally:
            left.cancel()
            _count(call, outcome)

    async def _post_stateless(
        self, message: Message, version: str, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        request_id = message.get("id")
        try:
            if "method" not in message:
                raise Refusal(jsonrpc.INVALID_REQUEST, "a stateless client has no questions to answer", 400)
            if "id" not in message:
                await respond(send, 202, [], b"")
                return
            check_headers(message, version, headers)
            if message["method"] == "initialize":
                # A child would name the versions that it speaks; over HTTP the method is one that is not there.
                raise Refusal(jsonrpc.METHOD_NOT_FOUND, "Method not found", 404, data="initialize")
        except Refusal as refusal:
            await refuse(send, request_id, refusal)
            return
        caller = caller_of(message, headers)
        call = Call(caller, message, long=message["method"] == "subscriptions/listen")
        await self._call(caller, call, self._mode.stateless(caller, call), receive, send, more=[])

    async def _call(
        self,
        caller: Caller,
        call: Call,
        starting: Awaitable[None],
        receive: Receive,
        send: Send,
        *,
        more: Headers,
    ) -> None:
        key = (type(call.request_id), call.request_id)
        caller.calls[key] = call
        outcome = "error"
        # A subscription has no end of its own that the end of the bridge could wait for.
        self.active += not call.long
        if self.active:
            self._nothing_active.clear()
        left = _left(call, receive)
        try:
            await starting
            outcome = await self._answer(call, more, send)
        except Refusal as refusal:
            outcome = _OUTCOMES.get(refusal.code, "error")
            await refuse(send, call.request_id, refusal, more)
        finally:
            self.active -= not call.long
            if not self.active:
                self._nothing_active.set()
            left.cancel()
            del caller.calls[key]
            self._mode.done(call)
            _count(call, outcome)

    async def _answer(self, call: Call, more: Headers, send: Send) -> str:
        """Send what the call brings; as JSON where that is the answer alone, else as a stream of events."""
        streaming = False
        while True:
            if not call.outbox:
                await call.changed(_KEEP_ALIVE_SECONDS)
            message, last = call.take()
            if last and message is not None and not streaming:
                status = 200
                if call.lost:
                    status, more = 503, [*more, (b"retry-after", b"1")]
                elif "error" in message and call.caller is not None and call.caller.stateless:
                    status = _STATUS.get(jsonrpc.error_code(message) or 0, 200)
                await respond(send, status, JSON + more, jsonrpc.encoded(message))
                return _outcome(message)
            if not streaming:
                await send({"type": "http.response.start", "status": 200, "headers": EVENTS + more})
                streaming = True
            await send({"type": "http.response.body", "body": event(message), "more_body": not last})
            if last and message is not None:
                return _outcome(message)

    async def _stream(self, session: Session, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        accepts(headers, b"text/event-stream", b"text/*")
        if session.stream.open:
            problem = "this session has a stream open already; one at a time"
            raise Refusal(jsonrpc.INVALID_REQUEST, problem, 409)
        stream = session.stream
        stream.open = True
        self._streams.add(session)
        left = asyncio.ensure_future(disconnected(receive))
        left.add_done_callback(stream.wake)
        try:
            name = (b"mcp-session-id", session.name.encode())
            await send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, name]})
            # Something has to be sent, or the client waits for the headers too.
            await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
            while not left.done():
                message = stream.take()
                if message is not None:
                    await send({"type": "http.response.body", "body": event(message), "more_body": True})
                elif stream.closed:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                elif not await stream.changed(_KEEP_ALIVE_SECONDS):
                    await send({"type": "http.response.body", "body": event(None), "more_body": True})
        finally:
            left.cancel()
            stream.open = False
            session.used = asyncio.get_running_loop().time()
            self._streams.discard(session)


def _outcome(answer: Message) -> str:
    return "ok" if "error" not in answer else _OUTCOMES.get(jsonrpc.error_code(answer) or 0, "error")


def _left(call: Call, receive: Receive) -> "asyncio.Future[None]":
    # The body is read: what comes now is the end of the connection.
    left = asyncio.ensure_future(disconnected(receive))
    left.add_done_callback(call.leave)
    return left


def _count(call: Call, outcome: str) -> None:
    label = call.method if call.method in METHODS else "other"
    REQUESTS.labels(label, outcome).inc()
    SECONDS.labels(label).observe(time.perf_counter() - call.started)
