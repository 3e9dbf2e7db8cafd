"""Since when this process has seen that a resource is being deleted, and how long that may take without a word.

By a clock of its own: the stamp in the resource is of another machine's. Never talks to anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ropewalk_operator.checks import COLLECTORS
from ropewalk_operator.kinds import Key

SLOW_SECONDS = 5.0
"""With nothing in its way a deletion is over sooner."""
COLLECTION_IS_SLOW_SECONDS = 60.0
"""Kubernetes' garbage collector is behind at times, and catches up."""


class Deletions:
    """`clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[Key, tuple[str, float]] = {}

    def wait_seconds(self, key: Key, uid: str, finalizers: Collection[str]) -> float:
        """How much longer to wait before its deletion is called blocked; 0 or less where it is."""
        now = self._clock()
        if key not in self._since or self._since[key][0] != uid:
            self._since[key] = uid, now
        longest = SLOW_SECONDS if set(finalizers) - COLLECTORS else COLLECTION_IS_SLOW_SECONDS
        return self._since[key][1] + longest - now

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._since.pop(key, None)
