"""How often somebody else's API is asked. Pure: it decides about waiting, and never waits."""

from collections.abc import Callable


class TooSoon(Exception):
    """No request may be made now; `seconds` says in how many one may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"wait {seconds:.1f} s")
        self.seconds = seconds


class TokenBucket:
    """Lets `burst` requests pass at once and `per_second` go on (the generic cell rate algorithm)."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._interval_seconds = 1 / per_second
        self._burst = burst
        self._clock = clock
        self._full_at = clock()
        self._paused_until = clock()

    def take(self, patience_seconds: float) -> float:
        """Take a token and return the seconds to wait before it may be used.

        Raises TooSoon, and takes none, where that is longer than `patience_seconds`, or where the bucket is paused.
        """
        self.check()
        now = self._clock()
        full_at = max(self._full_at, now)
        wait_seconds = full_at - now - (self._burst - 1) * self._interval_seconds
        if wait_seconds > patience_seconds:
            raise TooSoon(wait_seconds)
        self._full_at = full_at + self._interval_seconds
        return max(0.0, wait_seconds)

    def check(self) -> None:
        """Raise TooSoon while the bucket is paused."""
        if (left_seconds := self._paused_until - self._clock()) > 0:
            raise TooSoon(left_seconds)

    def pause(self, seconds: float) -> None:
        """Let nothing pass for so long, because the other side asked for it."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
