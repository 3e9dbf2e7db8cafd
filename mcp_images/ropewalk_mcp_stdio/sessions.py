"""Sessions of the older era: what the bridge keeps of a client between its requests, and the names of sessions.

In shared mode a session's id says all that has to be known of it, so that any replica, also one that has just started,
goes on with a session that another has opened.
"""

import asyncio
import re
import secrets
from collections import deque

from ropewalk_mcp_stdio.calls import Call, Caller
from ropewalk_mcp_stdio.jsonrpc import Message, RequestId
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.protocol import SESSION_VERSIONS

# What a client that has no open stream, or reads slowly, gets later; more is left out, oldest first.
_LONGEST_STREAM = 256
_ABILITIES = {"s": "sampling", "e": "elicitation", "r": "roots"}
_NAME = re.compile(r"[0-9a-f]{32}\.(\d)([ser]*)")


class Stream:
    """What the child sends to a client outside of any call, until the client's GET stream takes it."""

    def __init__(self) -> None:
        self.open = False
        self.closed = False
        self._messages: deque[Message] = deque(maxlen=_LONGEST_STREAM)
        self._waiter: asyncio.Future[bool] | None = None

    def put(self, message: Message) -> None:
        """Add a message; one that says the same as the last unread one is left out."""
        if not self._messages or self._messages[-1] != message:
            self._messages.append(message)
        self.wake()

    def close(self) -> None:
        """End the stream once everything is read."""
        self.closed = True
        self.wake()

    def take(self) -> Message | None:
        """Return the next message, if there is one."""
        return self._messages.popleft() if self._messages else None

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for a message, the end or `wake`; False where the time has passed instead."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_later(timeout_seconds, _give_up, waiter)
        try:
            await waiter
            return waiter.result()
        finally:
            timer.cancel()

    def wake(self, _: object = None) -> None:
        """End the wait of `changed`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


def _give_up(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)


class Session(Caller):
    """One client of the older era."""

    def __init__(self, name: str, capabilities: Message) -> None:
        super().__init__(capabilities, stateless=False)
        self.name = name
        self.stream = Stream()
        self.subscriptions: set[str] = set()
        # Questions of the child that the client has not answered: whose they are, their ids in the child's words, and
        # in which call they were asked.
        self.asked: dict[str, tuple[Link, RequestId, Call | None]] = {}
        self.used = asyncio.get_running_loop().time()

    @property
    def idle(self) -> bool:
        """Tell whether nothing of the client is open here."""
        return not self.calls and not self.stream.open


def new_name(version: str, capabilities: Message) -> str:
    """Return a fresh id that tells the session's version and what the client is able to do."""
    index = SESSION_VERSIONS.index(version) if version in SESSION_VERSIONS else len(SESSION_VERSIONS) - 1
    abilities = "".join(letter for letter, name in _ABILITIES.items() if name in capabilities)
    return f"{secrets.token_hex(16)}.{index}{abilities}"


def named_session(name: str) -> Session | None:
    """Return the session that the id tells of, or None where it is no id of this bridge."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) >= len(SESSION_VERSIONS):
        return None
    capabilities: Message = {_ABILITIES[letter]: {} for letter in match[2]}
    if "elicitation" in capabilities:
        capabilities["elicitation"] = {"form": {}, "url": {}}
    return Session(name, capabilities)
