"""Why a pod does not start, out of one listing of Events for all pods of its namespace that are asked about at once.

The API server finds the Events of a pod by looking at all Events of its namespace. With thousands of pods that start at
once, a listing for each would be the square of that. Of a listing only each pod's last word is kept, and only until
the next one or for a while. No worker waits for a listing that takes its time. Reads only.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ropewalk_operator.kinds import EVENT, Key, Kind
from ropewalk_operator.kube import ApiError
from ropewalk_operator.pods import Pod

logger = logging.getLogger(__name__)

WARNINGS_OF_PODS = "fieldSelector=involvedObject.kind%3DPod%2Ctype%3DWarning"
FRESH_SECONDS = 1.0
REST = 20
"""A listing that took long is good for so many times as long: it may cost the API server a twentieth of the time."""
LONGEST_SECONDS = 30.0
"""However long it took: nobody is to be without news for minutes because the API server has stalled once."""
KEPT_SECONDS = 60.0
"""So much longer its words stand in for those of the next one, where that fails or takes its time."""
PATIENCE_SECONDS = 1.0
"""No worker waits longer for a listing, counted from where that began; whom it concerns is told when it comes."""
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


@dataclass(frozen=True, slots=True)
class _Known:
    until: float
    found: dict[str, Hindrance]
    end: asyncio.TimerHandle


class PodEvents:
    """Asks `reader`, remembers its last answers, and calls `tell` with the owner of a pod of which there is news that
    came late.
    """

    def __init__(self, reader: Reader, tell: Callable[[Key], None]) -> None:
        self._reader = reader
        self._tell = tell
        self._asking: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self._known: dict[str, _Known] = {}
        self._late: defaultdict[str, dict[str, Key]] = defaultdict(dict)

    async def hindrance(self, pod: Pod) -> Hindrance | None:
        """What the last Event that tells of one says; None where none does, or where none is known yet."""
        loop = asyncio.get_running_loop()
        known = self._known.get(pod.namespace)
        if known is None or loop.time() >= known.until:
            if pod.namespace not in self._asking:
                self._asking[pod.namespace] = loop.time(), asyncio.create_task(self._ask(pod.namespace))
            began, question = self._asking[pod.namespace]
            left = max(began + PATIENCE_SECONDS - loop.time(), 0.0)
            if (await asyncio.wait({question}, timeout=left))[0]:
                question.result()
            else:
                self._late[pod.namespace][pod.uid] = Key(pod.owner_kind, pod.namespace, pod.owner_name)
        return self._found(pod.namespace).get(pod.uid)

    async def _ask(self, namespace: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        found: dict[str, Hindrance] = {}
        pause = 0.0
        try:
            await self._reader.list_all(EVENT, namespace, WARNINGS_OF_PODS, keep=lambda event: _keep(found, event))
        except ApiError as error:
            # Remembered as an answer is: each pod that starts would ask anew, in the middle of the trouble.
            found, pause = self._found(namespace), error.retry_after_seconds
            logger.debug("events were not read", extra={"fields": {"namespace": namespace, "error": str(error)}})
        finally:
            del self._asking[namespace]
            late = self._late.pop(namespace, {})
        before = self._found(namespace)
        good_for = max(min(max(FRESH_SECONDS, REST * (loop.time() - began)), LONGEST_SECONDS), pause)
        if namespace in self._known:
            self._known[namespace].end.cancel()
        # By itself: nobody may ever ask about this namespace again.
        end = loop.call_later(good_for + KEPT_SECONDS, self._known.pop, namespace)
        self._known[namespace] = _Known(loop.time() + good_for, found, end)
        for uid, owner in late.items():
            if found.get(uid) != before.get(uid):
                self._tell(owner)

    def _found(self, namespace: str) -> dict[str, Hindrance]:
        known = self._known.get(namespace)
        return known.found if known is not None else {}


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
