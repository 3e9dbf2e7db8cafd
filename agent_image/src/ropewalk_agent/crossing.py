"""What crosses between the worker's loop and the server's: calls in a mailbox, the events of a turn in an outlet.

To wake the other thread is what costs most in the bridge, so both wake it as seldom as they can. Neither knows what a
turn is.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

EventT = TypeVar("EventT")

_BUFFERED_EVENTS = 64
"""How many events of a turn may wait for a slow reader before the turn itself waits."""


class Mailbox:
    """Calls to make on another thread's loop, in order. One thread posts; many posts share one wake-up.

    The wake-up waits until the poster's loop has run what was ready: whatever is posted until then goes along.
    """

    def __init__(self, poster: asyncio.AbstractEventLoop, reader: asyncio.AbstractEventLoop) -> None:
        self._poster, self._reader = poster, reader
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wake_planned = False  # the poster's thread only
        self._woken = False

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have `function` called on the reader's loop; on the poster's thread only."""
        self._calls.append((function, arguments))
        if not self._wake_planned:
            self._wake_planned = True
            self._poster.call_soon(self._wake)

    def _wake(self) -> None:
        self._wake_planned = False
        if not self._woken:
            self._woken = True
            call_on(self._reader, self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first of all: what is posted from here on wakes again
        for _ in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            function(*arguments)


class Outlet(Generic[EventT]):
    """The events of one turn on their way from the worker's loop (`send`, `end`) to the server's (`events`, `cut`)."""

    def __init__(self, to_worker: Mailbox, to_server: Mailbox) -> None:
        self._to_worker, self._to_server = to_worker, to_server
        self._lock = threading.Lock()
        self._items: deque[EventT] = deque()
        self._error: Exception | None = None
        self._arrival = asyncio.Event()  # the server's loop only
        self._room = asyncio.Event()  # the worker's loop only
        self.ended = False

    async def send(self, event: EventT, *, may_wait: bool = True) -> None:
        """Hand over one event; waits, if it may, while the reader is far behind; drops it once nobody reads."""
        while True:
            with self._lock:
                if self.ended:
                    return
                if len(self._items) < _BUFFERED_EVENTS or not may_wait:
                    self._items.append(event)
                    wake_reader = len(self._items) == 1
                    break
                self._room.clear()
            await self._room.wait()
        if wake_reader:
            self._to_server.post(self._arrival.set)

    def end(self, error: Exception | None) -> None:
        """Close the stream behind what was sent; nothing happens to a stream that was cut."""
        with self._lock:
            if self.ended:
                return
            self.ended, self._error = True, error
        self._to_server.post(self._arrival.set)

    def cut(self, error: Exception | None) -> None:
        """Close the stream now, without what was not yet read; nothing happens to a stream that has ended."""
        with self._lock:
            if self.ended:
                return
            self.ended, self._error = True, error
            self._items.clear()
        self._arrival.set()
        self._to_worker.post(self._room.set)

    async def events(self) -> AsyncIterator[EventT]:
        """Yield the events in order, then raise the turn's error if it had one."""
        while True:
            with self._lock:
                if self._items:
                    event = self._items.popleft()
                    wake_worker = len(self._items) == _BUFFERED_EVENTS // 2
                elif self.ended:
                    if self._error is not None:
                        raise self._error
                    return
                else:
                    self._arrival.clear()
                    event, wake_worker = None, False
            if event is None:
                await self._arrival.wait()
                continue
            if wake_worker:
                self._to_worker.post(self._room.set)
            yield event


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function soon on another thread's loop; a loop that is closed already needs no telling."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
