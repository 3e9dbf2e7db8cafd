"""The previous release to this one, back, and to this one again, in real pods, while agents are asked without end.

BENCH_UPGRADE_FROM names the git revision that is the previous release; without it, the newest tag before this commit.
Its programs are built from a copy of that revision, its chart installs them, and the resources are made for it. Each
chart brings its own CRDs.

It goes on to and fro until there were BENCH_UPGRADE_QUERIES queries (default: 10,000), at most for
BENCH_UPGRADE_MINUTES (default: 30), but three times at least. The cluster's CRDs are changed meanwhile, and the release
of ropewalk-system is away, since its operator works in all namespaces. In the end both are what they were.
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from bench.given_back import crds_given_back, release_given_back
from bench.pods import namespace
from bench.progress import say
from bench.upgrade_watch import PodsSeen, differences, owned, settled
from bench.watching import watching
from cluster import images
from cluster.layout import IMAGE_PREFIX, REPOSITORY, Layout
from e2e_cluster import RELEASE, Json, Workspace, agent, helm, mcpserver, must_be_alone
from e2e_queries import RIGHT, Queries, constant_queries
from e2e_redis import redis, redis_sessions
from waiting import until

_PROGRAMS = ("operator", "agent", "mcp-math", "mcp-stdio")
_SPACE = "ropewalk-bench-upgrade"
_QUERIES = int(os.environ.get("BENCH_UPGRADE_QUERIES", "10000"))
_MINUTES = float(os.environ.get("BENCH_UPGRADE_MINUTES", "30"))
_MOVES = 3
_PEOPLE = 2
_SESSIONS = 20
_QUERIES_AFTER, _WITHIN_SECONDS = 200, 300
"""After each move, of each stream."""
_TOLD = 3
"""So many ways to fail are told of each stream, and so much of each."""
_TOLD_CHARACTERS = 200

Row = tuple[str, str, str]
Outcomes = dict[str, Counter[str]]
"""How often each outcome came, by stream."""


@dataclass(frozen=True)
class _Release:
    chart: Path
    tag: str


def run() -> Iterator[Row]:
    """Rows of (measure, figure, goal)."""
    revision = (
        os.environ.get("BENCH_UPGRADE_FROM") or _git("tag", "--merged", "HEAD^", "--sort=-creatordate").split("\n")[0]
    )
    if not revision:
        yield "upgrade and back", "not measured: there is no tag; name a revision in BENCH_UPGRADE_FROM", "0 failed"
        return
    short = _git("rev-parse", "--short", revision)
    with tempfile.TemporaryDirectory() as folder:
        say(f"Loads the programs of {short}")
        with redirect_stdout(sys.stderr):
            before = _previous(revision, Path(folder))
        after = _Release(REPOSITORY / "charts" / "ropewalk", images.tag())
        with release_given_back(), crds_given_back(), namespace(_SPACE) as space:
            must_be_alone()
            with _installed(space, before):
                yield from _to_and_fro(space, short, before, after)


def _place(space: Workspace) -> tuple[str, ...]:
    return "--namespace", space.name, "--wait", "--timeout=5m"


@contextmanager
def _installed(space: Workspace, release: _Release) -> Iterator[None]:
    """The release, for one namespace, until the end of the block; where that fails, the state of its pods is told."""
    try:
        say(f"Installs {release.tag}")
        helm("install", RELEASE, str(release.chart), *_place(space), "--take-ownership",
             f"--set=image.tag={release.tag}", f"--set=watchNamespaces={{{space.name}}}")  # fmt: skip
        yield
    except Exception:
        say("FAILED; the pods, and what is told of them:\n" + space.kubectl("get", "pods,events"))
        raise
    finally:
        say("Uninstalls")
        helm("uninstall", RELEASE, *_place(space), "--ignore-not-found")


def _to_and_fro(space: Workspace, revision: str, before: _Release, after: _Release) -> Iterator[Row]:
    _make_resources(space, before.tag)

    def upgrade() -> None:
        helm("upgrade", RELEASE, str(after.chart), *_place(space), "--take-ownership",
             "--reset-then-reuse-values", f"--set=image.tag={after.tag}")  # fmt: skip
        settled(space, after.tag)

    def back() -> None:
        helm("rollback", RELEASE, *_place(space))
        settled(space, before.tag)

    way_there, way_back = _Leg(f"{revision} → this one", space, upgrade), _Leg(f"this one → {revision}", space, back)
    legs = itertools.cycle((way_there, way_back))
    leg, moves, ends = way_there, 0, time.monotonic() + _MINUTES * 60
    failure: Exception | None = None
    original, pods = owned(space), PodsSeen()
    with watching(f"/api/v1/namespaces/{space.name}/pods", pods.see) as goes_on, _asked(space) as streams:
        try:
            until(lambda: pods.replaced() != "none", "the watch names the pods")
            streams.more()
            while moves < _MOVES or (streams.total() < _QUERIES and time.monotonic() < ends):
                leg, moves = next(legs), moves + 1
                leg.go(streams, pods, goes_on, original)
        except Exception as error:
            # What was seen until then is told all the same.
            failure = error
    # Those that were under way at the end.
    leg.count(streams)
    for each in (way_there, way_back):
        yield from each.rows()
    yield _queries_row(f"all queries, in {moves} moves", streams.outcomes())
    if failure:
        raise failure


def _make_resources(space: Workspace, tag: str) -> None:
    """Return when all of them are Ready, and people have told their names."""
    say("Makes the agents")
    space.apply(*redis())
    space.kubectl("rollout", "status", "deployment/redis", "--timeout=120s")
    space.apply(*_resources(tag))
    for name in ("shared", "alone"):
        space.wait(f"agent/{name}", seconds=300)
    for number in range(_SESSIONS):
        until(partial(space.ask, "shared", f"My name is Guest-{number}.", session_id=f"guest-{number}"))


class _Streams:
    """Queries by the name of their stream, and how many of each have been counted."""

    def __init__(self, queries: dict[str, Queries]) -> None:
        self._queries = queries
        self._counted = dict.fromkeys(queries, 0)

    def more(self) -> None:
        """Wait until some further ones of each stream were answered."""
        for queries in self._queries.values():
            queries.more(_QUERIES_AFTER, seconds=_WITHIN_SECONDS)

    def total(self) -> int:
        """How many have ended."""
        return sum(len(queries.outcomes) for queries in self._queries.values())

    def failed(self) -> int:
        """How many of these not with the right answer."""
        return sum(counted.total() - counted[RIGHT] for counted in self.outcomes().values())

    def outcomes(self) -> Outcomes:
        """Of all that have ended."""
        return {name: Counter(queries.outcomes) for name, queries in self._queries.items()}

    def new(self) -> Outcomes:
        """Of those that have ended since this was asked last, so that each is told once."""
        found = {}
        for name, queries in self._queries.items():
            outcomes = queries.outcomes[self._counted[name] :]
            self._counted[name] += len(outcomes)
            found[name] = Counter(outcomes)
        return found


class _Leg:
    """What was seen of one direction, in all its rounds."""

    def __init__(self, name: str, space: Workspace, move: Callable[[], None]) -> None:
        self._name = name
        self._space = space
        self._move = move
        self._outcomes: Outcomes = {}
        self._pods: list[str] = []
        self._seconds: list[float] = []
        self._known: list[int] = []
        self._differences: set[str] = set()

    def go(
        self, streams: _Streams, pods: PodsSeen, watch_goes_on: Callable[[], bool], original: dict[str, Json]
    ) -> None:
        """One round: the move, some queries after it, and a look at everything.

        All queries count that have ended since the round before, those while it was looked included.
        """
        say(f"Begins: {self._name}; {streams.total()} queries so far, {streams.failed()} failed")
        try:
            pods.forget()
            began = time.monotonic()
            self._move()
            self._seconds.append(time.monotonic() - began)
            say(f"All is settled after {self._seconds[-1]:.0f} s")
            streams.more()
            # Of a watch that has ended, pods may have been missed.
            self._pods.append(pods.replaced() if watch_goes_on() else "NOT KNOWN, as the watch of the pods has ended")
            self._known.append(sum(_is_known(self._space, number) for number in range(_SESSIONS)))
            self._differences |= differences(original, owned(self._space))
        finally:
            self.count(streams)

    def count(self, streams: _Streams) -> None:
        """Take what has ended and was not counted yet for this direction's."""
        for name, outcomes in streams.new().items():
            self._outcomes.setdefault(name, Counter()).update(outcomes)

    def rows(self) -> Iterator[Row]:
        """What is told of this direction."""
        yield _queries_row(f"{self._name}, {len(self._seconds)} times: queries", self._outcomes)
        seconds = ", ".join(f"{each:.0f}" for each in self._seconds)
        yield f"{self._name}: seconds until all is settled", seconds, "—"
        yield f"{self._name}: pods made", "; ".join(self._pods), "each replaced at most once"
        known = ", ".join(map(str, self._known))
        yield f"{self._name}: of {_SESSIONS} sessions in Redis known", known, str(_SESSIONS)
        # A round that broke off has not looked.
        same = "the same" if self._known else ""
        yield f"{self._name}: resources and children", ", ".join(sorted(self._differences)) or same, "the same"


def _queries_row(name: str, outcomes: Outcomes) -> Row:
    total = sum((Counter(each) for each in outcomes.values()), Counter[str]())
    words = "".join(f"; {said}" for stream, counted in outcomes.items() for said in _failures(stream, counted))
    return name, f"{total.total()}, {total.total() - total[RIGHT]} failed{words}", "0 failed"


def _failures(stream: str, counted: Counter[str]) -> Iterator[str]:
    failed = Counter({said: count for said, count in counted.items() if said != RIGHT}).most_common()
    for said, count in failed[:_TOLD]:
        yield f"{count} × {said[:_TOLD_CHARACTERS]} ({stream})"
    if rest := sum(count for _, count in failed[_TOLD:]):
        yield f"{rest} others ({stream})"


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
def _asked(space: Workspace) -> Iterator[_Streams]:
    """Each agent through its Service, by people who keep their connections and people who do not."""
    with ExitStack() as stack:
        yield _Streams(
            {
                f"{name}, {'kept' if kept else 'new'} connections": stack.enter_context(
                    constant_queries(
                        space.url(f"{name}-agent"), people=_PEOPLE, kept_connections=kept, session=f"{name}-{kept}"
                    )
                )
                for name in ("shared", "alone")
                for kept in (True, False)
            }
        )


def _is_known(space: Workspace, number: int) -> bool:
    try:
        answer = space.ask("shared", "What is my name?", session_id=f"guest-{number}")
    except (AssertionError, httpx.HTTPError):
        return False
    return f"your name is Guest-{number}." in answer["response"]


def _previous(revision: str, folder: Path) -> _Release:
    """The release of a revision, unpacked into `folder`, and its images loaded."""
    packed = subprocess.run(["git", "archive", revision], cwd=REPOSITORY, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return _Release(folder / "charts" / "ropewalk", images.load_of(folder, _PROGRAMS, Layout.default()))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()
