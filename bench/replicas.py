"""Who changes spec.replicas, seen by watches: every change, what it was changed to, and by whom. And who is ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from bench.watching import watching
from e2e_cluster import Json, Workspace
from waiting import until

_PATHS = {
    "agent": "/apis/ropewalk.dev/v1alpha1/namespaces/{}/agents",
    "deployment": "/apis/apps/v1/namespaces/{}/deployments",
}


@dataclass(frozen=True)
class Change:
    """`what` is a kind and a name, such as agent/desk; `writer` the field manager that has set the number."""

    at: float
    """Seconds of time.monotonic()."""
    what: str
    replicas: int
    writer: str


@dataclass
class Replicas:
    """What was seen so far. What was there at first counts as no change."""

    now: dict[str, int] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)
    """Of how many pods their status says that they are ready."""
    changes: list[Change] = field(default_factory=list)
    versions: int = 0
    """Versions of the objects that were looked at."""

    def of(self, what: str) -> list[Change]:
        """The changes of one of them, in their order."""
        return [change for change in self.changes if change.what == what]

    def see(self, kind: str, event: str, body: Json) -> None:
        """Look at what a watch has told of an object of this kind."""
        if event not in ("ADDED", "MODIFIED"):
            return
        what, count = f"{kind}/{body['metadata']['name']}", int(body["spec"].get("replicas", 1))
        self.versions += 1
        self.ready[what] = int(body.get("status", {}).get("readyReplicas", 0))
        if self.now.setdefault(what, count) != count:
            self.now[what] = count
            self.changes.append(Change(time.monotonic(), what, count, writer(body)))


def writer(body: Json) -> str:
    """Who owns spec.replicas: after a change nobody but who has made it.

    "nobody" where it is a default, and after `kubectl scale` of a custom resource: of a patch of its scale the API
    server notes no sender.
    """
    owners = {
        str(entry["manager"])
        for entry in body["metadata"].get("managedFields", ())
        if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
    }
    return " and ".join(sorted(owners)) or "nobody"


@contextmanager
def watched_replicas(space: Workspace) -> Iterator[Replicas]:
    """Watch the Agents and Deployments of a namespace, one at least of each, without a gap until the end of the block.

    Raises AssertionError at the end where a watch has ended before.
    """
    seen = Replicas()
    with ExitStack() as stack:
        watches = {
            kind: stack.enter_context(watching(path.format(space.name), partial(seen.see, kind)))
            for kind, path in _PATHS.items()
        }
        until(lambda: {what.partition("/")[0] for what in seen.now} == set(_PATHS), "both watches have begun")
        yield seen
        ended = [kind for kind, goes_on in watches.items() if not goes_on()]
        assert not ended, f"the watch of {ended} has ended early, so a change may have been missed"
