"""A keyed work queue: each key waits at most once and is in flight at most once.

Urgent keys go first. A key added while it is in flight runs once more afterwards. Errors back off exponentially with
jitter; a key that was told to wait is not run earlier, whoever adds it. Never knows what a key means.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

BASE_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 60.0
JITTER = 0.25


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """Make it not happen."""


class Clock(Protocol):
    """The two methods of an event loop that the queue needs."""

    def time(self) -> float:
        """Seconds of a clock that never goes back."""

    def call_later(self, delay: float, callback: Callable[[K], None], key: K, /) -> Timer:
        """Call `callback(key)` after `delay` seconds."""


class WorkQueue(Generic[K]):
    """Used from one event loop only; nothing in it awaits but `get` and `pressed`."""

    def __init__(self, clock: Clock | None = None, jitter: Callable[[], float] = random.random) -> None:
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._jitter = jitter
        self._urgent: deque[K] = deque()
        self._ordinary: OrderedDict[K, None] = OrderedDict()
        self._hurried: set[K] = set()
        self._waiting: set[K] = set()
        self._in_flight: set[K] = set()
        self._timers: dict[K, tuple[float, Timer]] = {}
        self._held: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._pressed = asyncio.Event()
        self.retries = 0

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Run the key as soon as a worker is free; urgent ones before the others."""
        if urgent:
            self._hurried.add(key)
        if key in self._waiting:
            if urgent and key in self._ordinary:
                del self._ordinary[key]
                self._hurry(key)
            return
        self._waiting.add(key)
        if key not in self._in_flight:
            self._offer(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Run the key after a delay, or earlier if anything adds it before. Of several delays the shortest counts."""
        due = self._clock.time() + seconds
        if (timer := self._timers.get(key)) is not None:
            if timer[0] <= due:
                return
            timer[1].cancel()
        self._timers[key] = (due, self._clock.call_later(seconds, self._fire, key))

    def retry(self, key: K, *, at_least: float = 0.0, at_most: float = MAX_DELAY_SECONDS) -> float:
        """Run the key again after a delay that doubles with each failure, within bounds; the delay, all in seconds.

        With `at_least` nothing that is added runs it earlier: the edit of its user too would only be refused again.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        delay = max(min(BASE_DELAY_SECONDS * float(2 ** min(failures, 16)), at_most), at_least)
        delay *= 1 + JITTER * self._jitter()
        if at_least:
            self._held[key] = self._clock.time() + delay
        self.add_after(key, delay)
        return delay

    def forgive(self, key: K) -> None:
        """The key has worked: its next failure backs off from the beginning."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key, which is then in flight until `done`."""
        while not self.depth:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except BaseException:
                # A worker that is cancelled must not swallow the wake-up that another one waits for.
                if getter in self._getters:
                    self._getters.remove(getter)
                elif self.depth:
                    self._wake()
                raise
        key = self._urgent.popleft() if self._urgent else self._ordinary.popitem(last=False)[0]
        if not self._urgent:
            self._pressed.clear()
        self._waiting.discard(key)
        self._hurried.discard(key)
        self._in_flight.add(key)
        self._held.pop(key, None)
        # The run that begins now decides anew when the next one is due.
        if (timer := self._timers.pop(key, None)) is not None:
            timer[1].cancel()
        return key

    def done(self, key: K) -> None:
        """The run of the key is over; a run that was asked for meanwhile begins."""
        self._in_flight.discard(key)
        if key in self._waiting:
            self._offer(key)

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._urgent) + len(self._ordinary)

    @property
    def is_pressed(self) -> bool:
        """True while urgent keys wait."""
        return bool(self._urgent)

    async def pressed(self) -> None:
        """Return when an urgent key waits."""
        await self._pressed.wait()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _offer(self, key: K) -> None:
        if (seconds := self._held.get(key, 0.0) - self._clock.time()) > 0:
            self._waiting.discard(key)
            self.add_after(key, seconds)
            return
        if key in self._hurried:
            self._hurry(key)
        else:
            self._ordinary[key] = None
        self._wake()

    def _hurry(self, key: K) -> None:
        self._urgent.append(key)
        self._pressed.set()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
