"""A connection to one child: many calls at once over one pair of pipes.

Ids and progress tokens are the bridge's own on the way to the child and the client's own on the way back, so that
no two clients can meet. What a message means is decided elsewhere: the link tells its `events`.
"""

import asyncio
import logging
import re
from collections import deque
from typing import Any, Protocol

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call, Caller, cancelled
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal, RequestId
from ropewalk_mcp_stdio.lines import KEPT_BYTES
from ropewalk_mcp_stdio.process import Process
from ropewalk_mcp_stdio.stderr import ErrorLines

IN_FLIGHT = 128
QUEUE = 512
# A child may be at work on a call that was given up until it answers it, which many never do.
_GIVEN_UP_SECONDS = 300.0
_MOST_GIVEN_UP = 1000
_GARBAGE_SHOWN = 200
_ID_AT_START = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,15})\s*,')
_ID_AT_END = re.compile(rb',\s*"id"\s*:\s*(\d{1,15})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_log = logging.getLogger("ropewalk.mcp.stdio")


class Events(Protocol):
    """Who decides about what the child sends on its own account."""

    def on_notification(self, link: "Link", message: Message) -> None:
        """The child has notified of something other than the progress of a call."""

    def on_request(self, link: "Link", message: Message) -> None:
        """The child asks something of a client."""

    def on_gone(self, link: "Link") -> None:
        """The child has ended; its calls are refused already."""


class Link:
    """One child, its calls in flight and its queue."""

    def __init__(self, name: str, events: Events) -> None:
        self.name = name
        self.events = events
        self.process: Process | None = None
        self.calls: dict[int, Call] = {}
        # Whose the calls are that were given up after the child had got them, and until when that counts.
        self._given_up: dict[int, tuple[Caller, float]] = {}
        # The first whom the child has worked for; and whether it has worked for others too.
        self.first_caller: Caller | None = None
        self.several_callers = False
        self.queue: deque[Call] = deque()
        self.in_flight = 0
        self.heard = 0.0
        self.gone: str | None = None
        self.ended = asyncio.Event()
        self._last_id = 0
        self._watch: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self, command: list[str], environment: dict[str, str]) -> None:
        """Start the child; StartError says why it cannot be."""
        error_lines = ErrorLines(self.name)
        self.process = await Process.start(
            command,
            environment,
            on_line=self._receive,
            on_long=self._receive_long,
            on_error_line=error_lines.take,
            on_room=self._send_queued,
        )
        self.heard = self._loop.time()
        _log.info("started", extra={"server": self.name, "pid": self.process.pid})
        self._watch = asyncio.create_task(self._watch_exit(self.process))

    async def close(self, why: str, *, polite: bool = True) -> None:
        """End the child; calls that it has not answered are refused. One that hangs need not be asked politely."""
        self._end(why)
        if self.process is not None:
            await self.process.stop(polite=polite)
        if self._watch is not None:
            self._watch.cancel()

    def call(self, call: Call) -> None:
        """Send a request of a client, or let it wait; Refusal where too many wait already, or the child has gone."""
        if call.answered:
            return  # It was cancelled, or its client has gone, before the child was there.
        if self.gone is not None:
            raise self._refusal(self.gone)
        call.link = self
        if call.long or (self.in_flight < IN_FLIGHT and not self.queue and not self._clogged()):
            self._send(call)
        elif len(self.queue) < QUEUE:
            call.state = "queued"
            self.queue.append(call)
        else:
            raise Refusal(
                jsonrpc.BUSY,
                f"server {self.name!r} is busy: {self.in_flight} calls are in flight and {len(self.queue)} wait, "
                "which is the most; try again in a second, or run more replicas",
                429,
                1,
            )

    async def ask(self, method: str, params: Any = None, timeout_seconds: float = 10.0) -> Message:
        """Send a request of the bridge itself and return the response; TimeoutError where none comes in time."""
        call = Call(None, jsonrpc.request(0, method, params), long=True)
        self.call(call)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await call.answer()
        except TimeoutError:
            self.cancel(call, "no answer in time", answer=False)
            raise

    def tell(self, message: Message) -> None:
        """Send a notification or a response."""
        self._write(jsonrpc.encoded(message))

    def pass_on(self, message: Message) -> None:
        """Send a notification or a response of a client; Refusal where the child does not read."""
        if self._clogged():
            problem = f"server {self.name!r} is busy: it does not read what it is sent; try again in a second"
            raise Refusal(jsonrpc.BUSY, problem, 429, 1)
        self.tell(message)

    def cancel(self, call: Call, reason: str, *, answer: bool = True) -> None:
        """Give up a call: the child is told, and the client gets the error that says so."""
        if call.state == "queued":
            self.queue.remove(call)
        elif call.state in ("sent", "parked"):
            self.calls.pop(call.sub_id, None)
            if call.caller is not None:
                self._given_up[call.sub_id] = call.caller, self._loop.time() + _GIVEN_UP_SECONDS
            for child_id in call.asked.values():
                self.tell(jsonrpc.error(child_id, jsonrpc.INTERNAL_ERROR, "the client has gone"))
            # MCP forbids to cancel the handshake.
            if call.method not in ("initialize", "server/discover"):
                self.tell(jsonrpc.notification("notifications/cancelled", {"requestId": call.sub_id, "reason": reason}))
            self._leave(call)
        else:
            return
        call.state = "done"
        if answer:
            call.finish(cancelled(call))

    def given_up(self) -> list[Caller]:
        """Return whose calls the child may be at work on though they were given up."""
        while self._given_up:
            oldest, (_, until) = next(iter(self._given_up.items()))
            if until > self._loop.time() and len(self._given_up) <= _MOST_GIVEN_UP:
                break
            del self._given_up[oldest]
        return [caller for caller, _ in self._given_up.values()]

    def silent_seconds(self) -> float:
        """Return for how long the child has written nothing since a call was given up that it has not answered."""
        if not self.given_up():
            return 0.0
        _, until = next(iter(self._given_up.values()))
        return self._loop.time() - max(self.heard, until - _GIVEN_UP_SECONDS)

    def park(self, call: Call) -> None:
        """Let a call that waits for its client give up its place."""
        if call.state == "sent":
            self._leave(call)
            call.state = "parked"

    def unpark(self, call: Call) -> None:
        """Count a parked call again."""
        if call.state == "parked":
            call.state = "sent"
            if not call.long:
                self.in_flight += 1

    def _write(self, line: bytes) -> None:
        if self.process is not None and self.gone is None:
            self.process.write(line)

    def _clogged(self) -> bool:
        return self.process is not None and self.process.clogged

    def _send(self, call: Call) -> None:
        self._last_id += 1
        call.sub_id = self._last_id
        message, call.message = call.message, {}
        message["id"] = call.sub_id
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        if isinstance(meta, dict) and "progressToken" in meta:
            call.token = meta["progressToken"]
            meta["progressToken"] = call.sub_id
        try:
            line = jsonrpc.encoded(message)
        except ValueError as problem:
            call.state = "done"
            call.finish(jsonrpc.error(call.request_id, jsonrpc.INVALID_REQUEST, f"the request is {problem}"))
            return
        self.calls[call.sub_id] = call
        if call.caller is not None:
            self.first_caller = self.first_caller or call.caller
            self.several_callers |= call.caller is not self.first_caller
        if not call.long:
            self.in_flight += 1
        call.state = "sent"
        self._write(line)

    def _leave(self, call: Call) -> None:
        if not call.long and call.state == "sent":
            self.in_flight -= 1
            self._send_queued()

    def _send_queued(self) -> None:
        while self.queue and self.in_flight < IN_FLIGHT and not self._clogged() and self.gone is None:
            self._send(self.queue.popleft())

    def _receive(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = jsonrpc.decoded(line)
        except ValueError:
            message = None
        if not jsonrpc.is_message(message):
            # What looks like a broken message may hold a part of an answer, which no log is to have.
            shown = None if line.lstrip()[:1] in (b"{", b"[") else line[:_GARBAGE_SHOWN].decode(errors="replace")
            extra = {"server": self.name, "bytes": len(line)} | ({} if shown is None else {"line": shown})
            _log.warning("a line on stdout is no JSON-RPC", extra=extra)
            problem = f"the answer of server {self.name!r} is no JSON-RPC"
            self._fail(line[:KEPT_BYTES], line[-KEPT_BYTES:], jsonrpc.INTERNAL_ERROR, problem)
            return
        self.heard = self._loop.time()
        if "method" not in message:
            self._answer(message["id"], message)
        elif "id" in message:
            self.events.on_request(self, message)
        elif message["method"] == "notifications/progress":
            self._progress(message)
        else:
            self.events.on_notification(self, message)

    def _answer(self, sub_id: RequestId | None, message: Message) -> None:
        call = self.calls.pop(sub_id, None) if isinstance(sub_id, int) else None
        if call is None:
            if isinstance(sub_id, int):
                self._given_up.pop(sub_id, None)
            return
        self._leave(call)
        call.state = "done"
        call.finish(message)

    def _progress(self, message: Message) -> None:
        params = message.get("params")
        token = params.get("progressToken") if isinstance(params, dict) else None
        call = self.calls.get(token) if isinstance(token, int) else None
        if call is not None and call.token is not None and isinstance(params, dict):
            params["progressToken"] = call.token
            call.put(message)

    def _receive_long(self, head: bytes, tail: bytes, size: int) -> None:
        self.heard = self._loop.time()
        limit = jsonrpc.LARGEST_MESSAGE_BYTES
        _log.warning("a message is too large", extra={"server": self.name, "bytes": size, "limit_bytes": limit})
        problem = (
            f"the answer of server {self.name!r} has {size} bytes; at most {limit} pass: ask for less, or by pages"
        )
        self._fail(head, tail, jsonrpc.TOO_LARGE, problem)

    def _fail(self, head: bytes, tail: bytes, code: int, problem: str) -> None:
        """Answer the call that a line which cannot be passed on names, if it does."""
        match = _ID_AT_START.search(head) or _ID_AT_END.search(tail)
        if match:
            self._answer(int(match[1]), jsonrpc.error(None, code, problem))

    async def _watch_exit(self, process: Process) -> None:
        ending = await process.wait()
        self._end(ending)
        await process.stop()

    def _end(self, why: str) -> None:
        if self.gone is not None:
            return
        self.gone = why
        _log.log(
            logging.INFO if why.startswith("stopped") else logging.WARNING,
            "ended", extra={"server": self.name, "how": why, "calls": len(self.calls) + len(self.queue)},
        )  # fmt: skip
        refusal = self._refusal(why)
        for call in [*self.calls.values(), *self.queue]:
            call.state, call.lost = "done", True
            call.finish(jsonrpc.error(call.request_id, refusal.code, refusal.message))
        self.calls.clear()
        self.queue.clear()
        self._given_up.clear()
        self.in_flight = 0
        self.ended.set()
        self.events.on_gone(self)

    def _refusal(self, how: str) -> Refusal:
        problem = f"the process of server {self.name!r} {how}; whether the call took effect is not known"
        return Refusal(jsonrpc.UNAVAILABLE, problem, 503, 1)
