"""A Lease of coordination.k8s.io/v1 as a lock: what it says, when it may be taken, what its next holder writes. Pure.

Times in a Lease are only ever written: they are of another machine's clock. What counts is how long this process has
seen the Lease unchanged, by its own clock, as in Kubernetes' own leader election (client-go, tools/leaderelection).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

DURATION_SECONDS = 15
"""How long others wait, once they see no change of the Lease any more."""
RELEASED_SECONDS = 1
"""The API server wants a duration above 0 also of a Lease that nobody holds."""


@dataclass(frozen=True)
class Lease:
    """What a Lease says."""

    holder: str
    """Empty: nobody."""
    duration_seconds: int
    acquired: str
    transitions: int
    uid: str
    version: str


def lease(body: Mapping[str, Any]) -> Lease:
    """From the API server's object; a field that is missing says nothing."""
    spec = body.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        duration_seconds=spec.get("leaseDurationSeconds") or DURATION_SECONDS,
        acquired=spec.get("acquireTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        uid=body["metadata"]["uid"],
        version=body["metadata"]["resourceVersion"],
    )


class Sight:
    """What one process has seen of a Lease, and since when it has seen no change of it."""

    def __init__(self) -> None:
        self._last: Lease | None = None
        self._since = 0.0

    @property
    def holder(self) -> str:
        """Who held it when it was last seen; empty for nobody."""
        return self._last.holder if self._last else ""

    def see(self, found: Lease | None, now: float) -> None:
        """Take in what the API server has just said; `now` is the time of its answer."""
        # A Lease that somebody has deleted is held as long as it would have been otherwise: its holder may not know.
        if found is not None and found != self._last:
            self._last, self._since = found, now

    def wait_seconds(self, identity: str, now: float) -> float:
        """After which time without a change `identity` may take it; 0: now."""
        if self._last is None or self._last.holder in ("", identity):
            return 0.0
        return max(0.0, self._since + self._last.duration_seconds - now)


def held(found: Lease | None, identity: str, now: float) -> dict[str, Any]:
    """The spec that takes a Lease, or renews one that is held; `now` in seconds since the epoch."""
    is_renewal = found is not None and found.holder == identity
    before = found.transitions if found else 0
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION_SECONDS,
        "acquireTime": found.acquired if found and is_renewal and found.acquired else micro_time(now),
        "renewTime": micro_time(now),
        "leaseTransitions": before if found is None or is_renewal else before + 1,
    }


def released(found: Lease, now: float) -> dict[str, Any]:
    """The spec that gives a Lease up: whoever sees it may take it at once; `now` in seconds since the epoch."""
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_SECONDS,
        "renewTime": micro_time(now),
        "leaseTransitions": found.transitions,
    }


def micro_time(seconds: float) -> str:
    """Seconds since the epoch as Kubernetes' MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
