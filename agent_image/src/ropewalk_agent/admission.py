"""Who may run now, who waits and who is turned away. Pure bookkeeping: no clock, no thread, no I/O.

Up to `concurrency` turns run at once and never two of one session; up to `queue_length` wait. Whoever waits is
taken in order of arrival, but a turn whose session is busy does not hold up other sessions behind it.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable


class Admission:
    """The places of one worker. Every method returns at once; a waiting turn is told through its callback."""

    def __init__(self, *, concurrency: int, queue_length: int) -> None:
        self._concurrency = concurrency
        self._queue_length = queue_length
        self._busy: set[Hashable] = set()
        self._waiting: OrderedDict[object, tuple[Hashable, Callable[[], None]]] = OrderedDict()

    @property
    def running(self) -> int:
        """How many turns hold a place."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many turns wait for one."""
        return len(self._waiting)

    def is_busy(self, session: Hashable) -> bool:
        """Whether a turn of the session holds a place or waits for one."""
        return session in self._busy or any(session == waiting for waiting, _ in self._waiting.values())

    def is_waiting(self, ticket: object) -> bool:
        """Whether this ticket waits."""
        return ticket in self._waiting

    def take(self, session: Hashable) -> bool:
        """Take a place if one is free for `session` at this moment.

        A free place means that everyone who waits is held up by a busy session of their own, so nobody is overtaken.
        """
        if session in self._busy or len(self._busy) >= self._concurrency:
            return False
        self._busy.add(session)
        return True

    def wait(self, ticket: object, session: Hashable, admitted: Callable[[], None]) -> bool:
        """Queue `ticket`; `admitted` is called once, when it holds a place. False: the queue is full."""
        if len(self._waiting) >= self._queue_length:
            return False
        self._waiting[ticket] = (session, admitted)
        return True

    def give_up(self, ticket: object) -> bool:
        """Forget a ticket that still waits. False: it does not wait, and nothing happens."""
        return self._waiting.pop(ticket, None) is not None

    def leave(self, session: Hashable) -> None:
        """Give the session's place back and hand free places to those who have waited longest."""
        self._busy.discard(session)
        if not self._waiting:
            return
        free = self._concurrency - len(self._busy)
        admitted: list[Callable[[], None]] = []
        for ticket, (waiting_session, callback) in list(self._waiting.items()):
            if free == 0:
                break
            if waiting_session not in self._busy:
                self._busy.add(waiting_session)
                del self._waiting[ticket]
                admitted.append(callback)
                free -= 1
        for callback in admitted:
            callback()
