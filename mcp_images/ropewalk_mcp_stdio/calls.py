"""A call: one request of a client on its way to the child and back, and all that the client gets meanwhile."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.jsonrpc import Message, RequestId

if TYPE_CHECKING:
    from ropewalk_mcp_stdio.link import Link

# What a client has not read yet of one answer, in messages. More notifications are left out; a result never is.
_LONGEST_OUTBOX = 1000


class Caller:
    """Who calls: a session of the older era, or a single request of the stateless one."""

    def __init__(self, capabilities: Message, *, stateless: bool) -> None:
        self.capabilities = capabilities
        self.stateless = stateless
        # The least severe log level that it wants, or None for what the child sends by default.
        self.log_level: str | None = None
        # Of a stateless request.
        self.headers: dict[bytes, bytes] = {}
        self.calls: dict[tuple[type, RequestId], Call] = {}

    def cancel(self, params: Message) -> None:
        """Cancel the call that the parameters of a client's notifications/cancelled name."""
        wanted = params.get("requestId")
        call = self.calls.get((type(wanted), wanted)) if isinstance(wanted, int | str) else None
        if call is not None and call.link is not None:
            call.link.cancel(call, str(params.get("reason", "cancelled by the client")))
        elif call is not None:
            call.finish(cancelled(call))


class Call:
    """One request. `put` adds what comes before the answer, `finish` adds the answer, `take` takes them in order."""

    __slots__ = (
        "after", "answered", "asked", "caller", "left", "link", "long", "lost", "message", "method", "outbox",
        "request_id", "started", "state", "sub_id", "token", "waiter",
    )  # fmt: skip

    def __init__(self, caller: Caller | None, message: Message, *, long: bool = False) -> None:
        self.caller = caller
        self.message = message
        self.request_id: RequestId = message["id"]
        self.method: str = message["method"]
        # Long calls (subscriptions) hold no place among the calls in flight.
        self.long = long
        self.started = time.perf_counter()
        self.token: Any = None
        self.sub_id = 0
        self.link: Link | None = None
        self.outbox: deque[Message] = deque()
        self.answered = False
        # Its client has gone; its child has gone.
        self.left = False
        self.lost = False
        # Requests of the child to the client that await its answer: their ids in the child's words.
        self.asked: dict[str, RequestId] = {}
        self.state = "new"
        # Told the answer before the client gets it, and may change it.
        self.after: Callable[[Message], None] | None = None
        self.waiter: asyncio.Future[None] | None = None

    def put(self, message: Message) -> bool:
        """Add a message for the client; False where it has too many unread ones, or its answer already."""
        if self.answered or len(self.outbox) >= _LONGEST_OUTBOX:
            return False
        self.outbox.append(message)
        self.wake()
        return True

    def finish(self, answer: Message) -> None:
        """Add the answer, the last message; later ones are ignored."""
        if self.answered:
            return
        self.answered = True
        answer["id"] = self.request_id
        if self.after is not None:
            self.after(answer)
        self.outbox.append(answer)
        self.wake()

    def take(self) -> tuple[Message | None, bool]:
        """Return the next message, if there is one; True with it where it is the answer."""
        if not self.outbox:
            return None, False
        message = self.outbox.popleft()
        return message, self.answered and not self.outbox

    async def changed(self, timeout_seconds: float) -> None:
        """Wait for a message, for `wake`, or for the time to pass."""
        loop = asyncio.get_running_loop()
        self.waiter = loop.create_future()
        timer = loop.call_later(timeout_seconds, self.wake)
        try:
            await self.waiter
        finally:
            timer.cancel()

    async def answer(self) -> Message:
        """Wait for the answer, and leave it there to be taken."""
        while not self.answered:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return self.outbox[-1]

    def leave(self, _: object = None) -> None:
        """Take that the client has gone, so that nothing waits for the answer any more."""
        if not self.answered:
            self.left = True
            self.finish(cancelled(self))

    def wake(self) -> None:
        """End the wait of `changed`."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


def cancelled(call: Call) -> Message:
    """Return the answer to a call that was given up."""
    return jsonrpc.error(call.request_id, jsonrpc.CANCELLED, "Request cancelled")
