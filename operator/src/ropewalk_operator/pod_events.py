"""The Events about one pod, out of one listing for all pods of its namespace that are asked about at about this time.

The API server finds the Events of a pod by looking at all Events of its namespace. With thousands of pods that start at
once, a listing for each would be the square of that. Reads only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from ropewalk_operator.kinds import Kind

OF_ONE = "fieldSelector=involvedObject.uid%3D"
OF_ALL = "fieldSelector=involvedObject.kind%3DPod%2Ctype%3DWarning"
FRESH_SECONDS = 1.0
REST = 20
"""A listing that took long is good for so many times as long: it may cost the API server a twentieth of the time."""
LONGEST_SECONDS = 30.0
"""However long it took: nobody is to be without news for minutes because the API server has stalled once."""

Events = list[dict[str, Any]]


class Reader(Protocol):
    """What is needed of the connection."""

    async def list_all(self, kind: Kind, namespace: str | None, query: str = "") -> tuple[Events, int]:
        """The objects and the version of the listing."""


class PodEvents:
    """Asks `reader`, and remembers its last answers for as long as they are fresh. `clock` never goes back."""

    def __init__(self, reader: Reader, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._asking: dict[str | None, asyncio.Task[tuple[Events, int]]] = {}
        self._known: dict[str | None, tuple[float, tuple[Events, int]]] = {}

    async def list_all(self, kind: Kind, namespace: str | None, query: str = "") -> tuple[Events, int]:
        """The warnings about the pod whose uid `query` selects by, and the version of the listing. Raises ApiError."""
        found, version = await self._of_all(kind, namespace)
        uid = query.removeprefix(OF_ONE)
        return [event for event in found if event["involvedObject"].get("uid") == uid], version

    async def _of_all(self, kind: Kind, namespace: str | None) -> tuple[Events, int]:
        now = self._clock()
        self._known = {place: known for place, known in self._known.items() if now < known[0]}
        if namespace in self._known:
            return self._known[namespace][1]
        if namespace not in self._asking:
            self._asking[namespace] = asyncio.create_task(self._ask(kind, namespace))
        # Whoever is cancelled leaves the others their answer.
        return await asyncio.shield(self._asking[namespace])

    async def _ask(self, kind: Kind, namespace: str | None) -> tuple[Events, int]:
        began = self._clock()
        try:
            answer = await self._reader.list_all(kind, namespace, OF_ALL)
        finally:
            del self._asking[namespace]
        now = self._clock()
        good_for = min(max(FRESH_SECONDS, REST * (now - began)), LONGEST_SECONDS)
        self._known[namespace] = (now + good_for, answer)
        return answer
