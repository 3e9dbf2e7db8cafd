"""A circuit breaker as a pure state machine: what it lets through, and what each outcome makes of it. Has no clock.

Closed, it lets every call through. Failures in a row open it: then it lets none through for a while. After the pause it
is half-open: one call is let through as a probe, whose outcome closes it or opens it again for longer.
"""

from dataclasses import dataclass, replace
from typing import Literal

FAILURES_TO_OPEN = 5
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 60.0

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """One state; each method returns the next. Times are seconds of whatever clock the caller uses."""

    state: State = "closed"
    failures: int = 0
    """Failures in a row while closed."""
    pause_seconds: float = PAUSE_SECONDS
    """How long the next opening lasts; doubled by each without a success between."""
    until: float = 0.0
    """When an open one may be probed."""

    def admit(self, now: float) -> tuple["Breaker", bool]:
        """Return the state after somebody asked, and whether the call may be made.

        A call that is made in the state half-open is the probe.
        """
        if self.state == "open" and now >= self.until:
            return replace(self, state="half-open"), True
        return self, self.state == "closed"

    def succeeded(self) -> "Breaker":
        """After the server answered a call, be it one from before the opening."""
        return _CLOSED

    def failed(self, now: float, *, probe: bool) -> "Breaker":
        """After a call failed. Calls from before the opening change nothing any more."""
        if self.state == "closed" and self.failures + 1 < FAILURES_TO_OPEN:
            return replace(self, failures=self.failures + 1)
        if self.state == "closed" or (self.state == "half-open" and probe):
            longer = min(2 * self.pause_seconds, LONGEST_PAUSE_SECONDS)
            return Breaker("open", pause_seconds=longer, until=now + self.pause_seconds)
        return self

    def abandoned(self, *, probe: bool) -> "Breaker":
        """After a call was given up by its caller, which says nothing of the server: the next may be the probe."""
        return replace(self, state="open") if self.state == "half-open" and probe else self

    def reconnected(self, now: float) -> "Breaker":
        """After a new connection was made: an open one is probed without waiting for the end of its pause."""
        return replace(self, until=now) if self.state == "open" else self


_CLOSED = Breaker()
