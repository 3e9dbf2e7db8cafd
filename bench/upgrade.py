"""The previous release to this one and back, in real pods, while agents are asked without end.

BENCH_UPGRADE_FROM names the git revision that is the previous release; without it, the newest tag before this commit.
Its programs are built from a copy of that revision, its chart installs them, and the resources are made for it.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.pods import namespace
from bench.upgrade_watch import PodsSeen, crds_by_the_chart, differences, owned, settled
from cluster import images
from cluster.layout import IMAGE_PREFIX, REPOSITORY, Layout
from e2e_cluster import RELEASE, SYSTEM, Json, Workspace, agent, helm, mcpserver
from e2e_queries import RIGHT, Queries, constant_queries
from e2e_redis import redis, redis_sessions
from waiting import until

_PROGRAMS = ("operator", "agent", "mcp-math", "mcp-stdio")
_SPACE = "ropewalk-bench-upgrade"
_QUERIES = int(os.environ.get("BENCH_UPGRADE_QUERIES", "10000"))
_PEOPLE = 2
_SESSIONS = 20


@dataclass(frozen=True)
class _Release:
    chart: Path
    tag: str


def run() -> Iterator[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    revision = (
        os.environ.get("BENCH_UPGRADE_FROM") or _git("tag", "--merged", "HEAD^", "--sort=-creatordate").split("\n")[0]
    )
    if not revision:
        yield "upgrade and back", "not measured: there is no tag; name a revision in BENCH_UPGRADE_FROM", "0 failed"
        return
    with tempfile.TemporaryDirectory() as folder, crds_by_the_chart() as with_crds:
        before = _previous(revision, Path(folder))
        after = _Release(REPOSITORY / "charts" / "ropewalk", images.tag())
        # An operator for all namespaces would work beside those of this one.
        helm("uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait")
        with namespace(_SPACE) as space:
            yield from _there_and_back(
                space, _git("rev-parse", "--short", revision), before, after, with_crds=with_crds
            )
            helm("uninstall", RELEASE, "--namespace", space.name, "--wait")


def _there_and_back(
    space: Workspace, revision: str, before: _Release, after: _Release, *, with_crds: bool
) -> Iterator[tuple[str, str, str]]:
    place = ("--namespace", space.name, "--wait", "--timeout=5m")
    helm("install", RELEASE, str(before.chart), *place, "--take-ownership",
         f"--set=image.tag={before.tag}", f"--set=watchNamespaces={{{space.name}}}",
         f"--set=crds.enabled={str(with_crds).lower()}")  # fmt: skip
    space.apply(*redis())
    space.kubectl("rollout", "status", "deployment/redis", "--timeout=60s")
    space.apply(*_resources(before.tag))
    for name in ("shared", "alone"):
        space.wait(f"agent/{name}", seconds=300)
    for number in range(_SESSIONS):
        until(partial(space.ask, "shared", f"My name is Guest-{number}.", session_id=f"guest-{number}"))

    def upgrade() -> None:
        helm("upgrade", RELEASE, str(after.chart), *place, "--take-ownership",
             "--reset-then-reuse-values", f"--set=image.tag={after.tag}")  # fmt: skip
        settled(space, after.tag)

    def back() -> None:
        helm("rollback", RELEASE, *place)
        settled(space, before.tag)

    original, way_there, way_back = owned(space), _Leg(space), _Leg(space)
    with PodsSeen(space) as pods, _asked(space) as streams:
        while sum(len(each.outcomes) for each in streams.values()) < _QUERIES:
            way_there.go(upgrade, pods, streams, original)
            way_back.go(back, pods, streams, original)
    yield from way_there.rows(f"{revision} → this one")
    yield from way_back.rows(f"this one → {revision}")


class _Leg:
    """What was seen of one direction, in all its rounds."""

    def __init__(self, space: Workspace) -> None:
        self._space = space
        self._outcomes: dict[str, Counter[str]] = {}
        self._pods: list[str] = []
        self._seconds: list[float] = []
        self._known: list[int] = []
        self._differences: set[str] = set()

    def go(
        self, move: Callable[[], None], pods: PodsSeen, streams: dict[str, Queries], original: dict[str, Json]
    ) -> None:
        """One round: some queries before, the move itself, and some queries after it."""
        already = {name: len(queries.outcomes) for name, queries in streams.items()}
        pods.forget()
        began = time.monotonic()
        move()
        self._seconds.append(time.monotonic() - began)
        for queries in streams.values():
            queries.more(200)
        for name, queries in streams.items():
            self._outcomes.setdefault(name, Counter()).update(queries.outcomes[already[name] :])
        self._pods.append(pods.replaced())
        self._known.append(_known_sessions(self._space))
        self._differences |= differences(original, owned(self._space))

    def rows(self, name: str) -> Iterator[tuple[str, str, str]]:
        """What is told of this direction."""
        total = sum((Counter(each) for each in self._outcomes.values()), Counter())
        failed = total.total() - total[RIGHT]
        words = "".join(
            f"; {count} × {said} ({stream})"
            for stream, counted in self._outcomes.items()
            for said, count in counted.items()
            if said != RIGHT
        )
        yield f"{name}, {len(self._seconds)} times: queries", f"{total.total()}, {failed} failed{words}", "0 failed"
        seconds = ", ".join(f"{each:.0f}" for each in self._seconds)
        yield f"{name}: seconds until all is settled", seconds, "—"
        yield f"{name}: pods made", "; ".join(self._pods), "each replaced at most once"
        known = ", ".join(map(str, self._known))
        yield f"{name}: of {_SESSIONS} sessions in Redis known", known, str(_SESSIONS)
        yield f"{name}: resources and children", ", ".join(sorted(self._differences)) or "the same", "the same"


def _resources(tag: str) -> list[Json]:
    math = f"{IMAGE_PREFIX}/mcp-math:{tag}"
    stdio = {"image": math, "command": ["/opt/ropewalk/bin/ropewalk-mcp"], "args": ["--stdio"]}
    # A roll needs room for one more pod of each, which a small machine has not for what agents ask for by default.
    modest = {"resources": {"requests": {"cpu": "10m"}}}
    return [
        mcpserver("math", image=math, pod=modest),
        mcpserver("piped", stdio=stdio, pod=modest),
        agent("shared", "math", replicas=2, sessions=redis_sessions(), pod=modest),
        agent("alone", "piped", pod=modest),
    ]


@contextmanager
def _asked(space: Workspace) -> Iterator[dict[str, Queries]]:
    """Each agent through its Service, by people who keep their connections and people who do not."""
    with ExitStack() as stack:
        yield {
            f"{name}, {'kept' if kept else 'new'} connections": stack.enter_context(
                constant_queries(
                    space.url(f"{name}-agent"), people=_PEOPLE, kept_connections=kept, session=f"{name}-{kept}"
                )
            )
            for name in ("shared", "alone")
            for kept in (True, False)
        }


def _known_sessions(space: Workspace) -> int:
    answers = [space.ask("shared", "What is my name?", session_id=f"guest-{number}") for number in range(_SESSIONS)]
    return sum(f"your name is Guest-{number}." in answer["response"] for number, answer in enumerate(answers))


def _previous(revision: str, folder: Path) -> _Release:
    """The release of a revision, unpacked into `folder`, and its images loaded."""
    packed = subprocess.run(["git", "archive", revision], cwd=REPOSITORY, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return _Release(folder / "charts" / "ropewalk", images.load_of(folder, _PROGRAMS, Layout.default()))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()
