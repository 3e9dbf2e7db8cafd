"""Every fault between the operator and the API server, with the time limits of production, and every kill point.

20 Agents are edited while the fault lasts; no controllers run, so that every write is the operator's.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import faulty_proxy as faulty
from apiserver import ApiServer, serving_crds
from faulty_proxy import Call, Rule, Spoil, refused
from operator_fault_world import AGENTS, WATCHED_KINDS, FaultWorld, fault_world, verbs
from operator_kill_points import SCENARIOS, KillPoints, needless
from operator_process import OperatorProcess
from operator_with_clock import OperatorWithClock
from waiting import until

_OUTAGE_SECONDS = 30.0
_WITHIN_SECONDS = 300.0
_GOAL = "all in step, nothing twice"
_WRITES = 40
_BEGUN_AGAIN = 2 * WATCHED_KINDS

Row = tuple[str, str, str]


def run() -> Iterator[Row]:
    """Rows of (measure, figure, goal)."""
    with serving_crds(controllers=False) as server:
        with _world(server) as world:
            yield from _spoiled(world)
            yield from _crashes(server, world)
        with _world(server, OperatorWithClock) as world:
            yield from _jumps(world)
        with _world(server) as world:
            yield from _kills(KillPoints(world))


@contextmanager
def _world(server: ApiServer, start: type[OperatorProcess] = OperatorProcess) -> Iterator[FaultWorld]:
    with tempfile.TemporaryDirectory() as folder, fault_world(server, Path(folder), start=start) as world:
        yield world


def _spoiled(world: FaultWorld) -> Iterator[Row]:
    world.apply("at first")
    world.converges(_WITHIN_SECONDS)
    yield _edited(world, "no fault", lambda: None)
    writes: tuple[tuple[str, Spoil, int], ...] = (
        ("409", refused(409, "Conflict"), _WRITES),
        ("429 with Retry-After 2 s", refused(429, "TooManyRequests", retry_after_seconds=2), _WRITES),
        ("500", refused(500, "InternalError"), _WRITES),
        ("connection reset before the API server", faulty.reset_before, _WRITES),
        ("done, connection reset before the answer", faulty.reset_after, _WRITES),
        ("done, half the answer and a reset", faulty.half_sent, _WRITES),
        ("done, half the JSON as a whole answer", faulty.truncated, _WRITES),
        ("no answer at all", faulty.stalled, 8),
    )
    for name, spoil, times in writes:
        with world.proxy.spoiling(spoil, lambda call: call.is_write, times) as rule:
            yield _edited(world, f"{times} writes: {name}", lambda: None, rule)
    reading: tuple[tuple[str, Spoil, Callable[[Call], bool]], ...] = (
        ("410 Gone", refused(410, "Expired"), verbs("LIST", "WATCH")),
        ("410 as an event of the watch", faulty.watch_expired, verbs("WATCH")),
        ("429 with Retry-After 2 s", refused(429, retry_after_seconds=2), verbs("LIST", "WATCH")),
        ("500", refused(500), verbs("LIST", "WATCH")),
        ("connection reset", faulty.reset_before, verbs("LIST", "WATCH")),
        ("watch that ends at once", faulty.watch_ended_at_once, verbs("WATCH")),
        ("half an event", faulty.watch_line_truncated, verbs("WATCH")),
    )
    for name, spoil, fits in reading:
        with world.proxy.spoiling(spoil, fits, _BEGUN_AGAIN) as rule:
            yield _edited(world, f"{_BEGUN_AGAIN} listings and watches: {name}", world.proxy.break_connections, rule)
    yield _edited(world, "all watches go silent, connections stay open", world.proxy.silence_watches)
    for name, spoil in (("stalls", faulty.stalled), ("is refused with 503", refused(503))):
        yield _outage(world, f"every call {name} for {_OUTAGE_SECONDS:.0f} s", spoil)


def _edited(world: FaultWorld, name: str, begin: Callable[[], None], rule: Rule | None = None) -> Row:
    """Edit all Agents while the fault lasts."""
    mark, began = len(world.proxy.calls), time.monotonic()
    begin()
    world.apply(f"edit at {began}")
    world.converges(_WITHIN_SECONDS)
    seconds = time.monotonic() - began
    if rule is not None:
        until(lambda: rule.hits == rule.times, f"{name}: every fault has happened", _WITHIN_SECONDS)
    return name, f"in step after {seconds:.1f} s; {_calls(world, mark)}", _GOAL


def _outage(world: FaultWorld, name: str, spoil: Spoil) -> Row:
    """Edit all Agents while nothing works, and see how long it takes from the end of that on."""
    mark = len(world.proxy.calls)
    with ExitStack() as stack:
        stack.enter_context(world.proxy.spoiling(spoil, lambda _call: True))
        world.proxy.break_connections()
        world.apply(f"edit at {time.monotonic()}")
        time.sleep(_OUTAGE_SECONDS)
    meanwhile = _calls(world, mark)
    began = time.monotonic()
    world.converges(_WITHIN_SECONDS)
    figure = (
        f"in step {time.monotonic() - began:.1f} s after its end; {meanwhile} meanwhile, then {_calls(world, mark)}"
    )
    return name, figure, _GOAL


def _crashes(server: ApiServer, world: FaultWorld) -> Iterator[Row]:
    for ended in (("apiserver",), ("etcd",), ("apiserver", "etcd")):
        mark = len(world.proxy.calls)
        world.apply(f"edit at {time.monotonic()}")
        server.crash(*ended)
        server.come_back()
        began = time.monotonic()
        world.converges(_WITHIN_SECONDS)
        figure = f"in step {time.monotonic() - began:.1f} s after it was ready again; {_calls(world, mark)}"
        yield f"SIGKILL of {' and '.join(ended)}, and a start with the same data", figure, _GOAL


def _jumps(world: FaultWorld) -> Iterator[Row]:
    world.apply("at first")
    world.converges(_WITHIN_SECONDS)
    for name, number in (("forward", signal.SIGUSR1), ("back", signal.SIGUSR2)):
        yield _edited(world, f"the operator's clock jumps {name} by an hour", lambda n=number: world.operator.send(n))  # type: ignore[misc]


def _kills(points: KillPoints) -> Iterator[Row]:
    for scenario in SCENARIOS:
        wanted = points.undisturbed(scenario)
        for after, write in enumerate(wanted.writes, start=1):
            for seen in (False, True):
                run = points.killed(scenario, after, seen=seen, wanted=wanted)
                extra = needless(run, wanted)
                when = "after its answer" if seen else "before its answer"
                yield (
                    f"{scenario.name}: SIGKILL after write {after} of {len(wanted.writes)} ({write}), {when}",
                    f"same state {run.seconds:.1f} s after the restart; {len(extra)} writes too many, "
                    f"{run.idle - wanted.idle} more that change nothing",
                    "same state, 0 too many, at most 1 that changes nothing",
                )


def _calls(world: FaultWorld, mark: int) -> str:
    calls = world.proxy.calls[mark:]
    failed = sum(1 for call in calls if not 200 <= call.status < 300 and call.verb != "WATCH")
    return f"{len(calls)} calls, {failed} failed, {len(world.proxy.writes(mark))} writes of {3 * AGENTS}"
