"""What time it is at the API server, by what its answers say: ages of objects are counted from stamps that it has made.

The clock of this machine may be off, and may jump. Never asks anything.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime


class ServerClock:
    """`uptime` gives seconds that never go back; before there is an answer it is as late as `wall_clock` says."""

    def __init__(self, uptime: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._uptime = uptime
        self._ahead = wall_clock() - uptime()

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self._uptime() + self._ahead

    def heed(self, date: str) -> None:
        """An answer has come with this header Date (RFC 9110 section 6.6.1), which has whole seconds, rounded down."""
        try:
            said = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        if not said <= self() < said + 1:
            self._ahead = said - self._uptime()
