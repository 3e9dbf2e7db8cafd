"""When an agent opens a new connection to a server without sessions, so that its calls spread over the replicas.

A Service chooses a replica for each connection, not for each request: connections that are kept for ever stay with the
replicas that were there first. Decides only.
"""

from collections.abc import Callable

REQUESTS = 32
"""One in so many requests is the last of its connection."""
SECONDS = 5.0
"""And one after so many seconds, so that an agent with few calls finds new replicas too."""


class Spread:
    """One connection pool's. The clock returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._requests = 0

    def is_due(self) -> bool:
        """Count a request and tell whether its connection is to be closed behind it."""
        self._requests += 1
        now = self._clock()
        if self._requests < REQUESTS and now - self._since < SECONDS:
            return False
        self._requests, self._since = 0, now
        return True
