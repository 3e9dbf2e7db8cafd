"""Why a pod does not start, out of one listing of Events for all pods of its namespace that are asked about at once.

The API server finds the Events of a pod by looking at all Events of its namespace. With thousands of pods that start at
once, a listing for each would be the square of that. Of a listing only each pod's last word is kept, and only for as
long as it is fresh. Reads only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ropewalk_operator.kinds import EVENT, Kind
from ropewalk_operator.pods import Pod

WARNINGS_OF_PODS = "fieldSelector=involvedObject.kind%3DPod%2Ctype%3DWarning"
FRESH_SECONDS = 1.0
REST = 20
"""A listing that took long is good for so many times as long: it may cost the API server a twentieth of the time."""
LONGEST_SECONDS = 30.0
"""However long it took: nobody is to be without news for minutes because the API server has stalled once."""
MESSAGE_CHARACTERS = 1000

# Warnings about a pod that has not started; others, such as a failed probe, the pod's own answer tells better.
STARTING_REASONS = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "FailedSync"}
)

# The kubelet's own caches, which lag behind what has just been made: the next attempt finds it.
PASSING_WORDS = re.compile(r'object "[^"]*"/"[^"]*" not registered|failed to sync \w+ cache')


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What an Event says of a pod that does not start."""

    at: str
    reason: str
    message: str


class Reader(Protocol):
    """What is needed of the connection."""

    async def list_all(
        self, kind: Kind, namespace: str | None, query: str = "", *, keep: Callable[[dict[str, Any]], Any]
    ) -> tuple[list[Any], int]:
        """What `keep` makes of each object, and the version of the listing."""


class PodEvents:
    """Asks `reader`, and remembers its last answers for as long as they are fresh."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._asking: dict[str, asyncio.Task[dict[str, Hindrance]]] = {}
        self._known: dict[str, dict[str, Hindrance]] = {}

    async def hindrance(self, pod: Pod) -> Hindrance | None:
        """What the last Event that tells of one says; None where none does. Raises ApiError."""
        found = self._known.get(pod.namespace)
        if found is None:
            if pod.namespace not in self._asking:
                self._asking[pod.namespace] = asyncio.create_task(self._ask(pod.namespace))
            # Whoever is cancelled leaves the others their answer.
            found = await asyncio.shield(self._asking[pod.namespace])
        return found.get(pod.uid)

    async def _ask(self, namespace: str) -> dict[str, Hindrance]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        found: dict[str, Hindrance] = {}
        try:
            await self._reader.list_all(EVENT, namespace, WARNINGS_OF_PODS, keep=lambda event: _keep(found, event))
        finally:
            del self._asking[namespace]
        self._known[namespace] = found
        good_for = min(max(FRESH_SECONDS, REST * (loop.time() - began)), LONGEST_SECONDS)
        # By itself: nobody may ever ask about this namespace again.
        loop.call_later(good_for, self._known.pop, namespace)
        return found


def _keep(found: dict[str, Hindrance], event: Mapping[str, Any]) -> None:
    reason, message = str(event.get("reason", "")), str(event.get("message", ""))
    if reason not in STARTING_REASONS or PASSING_WORDS.search(message):
        return
    uid = str(event["involvedObject"].get("uid", ""))
    said = Hindrance(
        str(event.get("lastTimestamp") or event.get("eventTime") or ""), reason, message[:MESSAGE_CHARACTERS]
    )
    if uid not in found or found[uid].at <= said.at:
        found[uid] = said
