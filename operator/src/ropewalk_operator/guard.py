"""Whether this process may write just now: asked before every write.

Closed until somebody opens it, and then open for a time only. Never talks to anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UNANSWERED_SECONDS = 10.0
"""How long a write without an answer may still be under way at the API server, though its connection is closed."""

_REFUSAL = "the operator may not write: it is not the leader, or not sure of it any more"


class NotLeading(OSError):
    """This process may not write, or not any more. To a connection that asks, it is an error of its socket."""


class Guard:
    """`clock` gives seconds that never go back, and that count also while the process or the machine is stopped."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._is_closed = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._unanswered_at = float("-inf")

    def open_until(self, until: float) -> None:
        """Allow writes that are over at this time of the clock; without effect once it is closed or has run out.

        Whoever was refused in between may have ended for good, and another may have written.
        """
        if self._clock() >= self._until > float("-inf"):
            self.close()
        else:
            self._until = until

    def close(self) -> None:
        """Allow no write any more."""
        self._is_closed = True

    @property
    def is_open(self) -> bool:
        """Whether a write may begin now."""
        return not self._is_closed and self._clock() < self._until

    def seconds_left(self) -> float:
        """How long a write that begins now may take. Raises NotLeading where none may begin."""
        if self._is_closed:
            raise NotLeading(_REFUSAL)
        return self.seconds_to_send()

    def seconds_to_send(self) -> float:
        """How long what has begun may go on to be sent, also when it is closed: the Lease is held until all have their
        answers. Raises NotLeading where nothing may be sent any more.
        """
        left = self._until - self._clock()
        if left <= 0:
            raise NotLeading(_REFUSAL)
        return left

    @contextmanager
    def writing(self) -> Iterator[float]:
        """Around a write, until its answer: how long it may take. Raises NotLeading where none may begin."""
        left = self.seconds_left()
        self._in_flight += 1
        self._idle.clear()
        try:
            yield left
        except BaseException:
            # Also a refusal of the socket: it may have been asked for its farewell, and the whole request be there.
            self._unanswered_at = self._clock()
            raise
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def is_settled(self, seconds: float) -> bool:
        """Close it, and wait so long for the writes under way: True when all have been answered."""
        self.close()
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return self._clock() - self._unanswered_at > UNANSWERED_SECONDS
