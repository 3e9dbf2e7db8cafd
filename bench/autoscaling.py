"""Kubernetes' autoscaler with a real metrics-server, and `kubectl scale`, while the operator reconciles without end.

Three Agents beside each other in the local cluster: one with spec.autoscaling, one that an autoscaler of the user's own
scales, and one that was scaled by hand. The first two get load until they are at their maximum, then a trickle until
they are at their minimum, and that again while there is time. BENCH_AUTOSCALING_MINUTES: how long, at most 50 (default:
30).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

import e2e_cluster
from bench.metrics_server import metrics_server
from bench.pods import namespace
from bench.progress import say
from bench.replicas import Replicas, watched_replicas
from bench.shared_queries import Pace, paced_queries
from e2e_cluster import Workspace, agent, install_chart
from e2e_redis import redis, redis_sessions
from waiting import until

_AUTOMATIC, _DRIVEN, _BY_HAND = "automatic", "driven", "by-hand"
_LEAST, _MOST = 1, 3
_HELD = 2
# Few are requested, so that all pods find room on a small node; the target is 35 millicores.
_POD = {"resources": {"requests": {"cpu": "5m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}}
_CPU_PERCENT = 700
# By the default of its target memory would keep all pods: an agent holds nearly as much when it has nothing to do.
_TARGETS = {"targetCPUPercent": _CPU_PERCENT, "targetMemoryPercent": 1000}
_RESYNC_SECONDS = 10
_TOUCH_SECONDS = 2
# 20 queries a second for each agent, and fewer than one, which a single pod answers below its target.
_LOAD_PAUSE_SECONDS, _TRICKLE_PAUSE_SECONDS = 0.2, 5.0
_MOST_MINUTES = 50
_UP_SECONDS = 420
# Autoscalers remove no pods for five minutes after the last figure that asked for them.
_DOWN_SECONDS = 900
_SCALED = {f"deployment/{_AUTOMATIC}-agent": f"{_AUTOMATIC}-agent", f"agent/{_DRIVEN}": _DRIVEN}
"""What autoscalers scale, and their names."""
_WRITERS = {
    f"deployment/{_AUTOMATIC}-agent": "kube-controller-manager",
    f"agent/{_DRIVEN}": "kube-controller-manager",
    f"deployment/{_DRIVEN}-agent": "ropewalk-operator",
}
"""Who may change replicas, as the API server notes it; nobody those of anything else."""


@dataclass(frozen=True)
class Round:
    """Seconds from the load's begin and from its end, of one agent."""

    first_pod: float
    at_most: float
    at_least: float
    """Until so many pods were asked for."""


def run() -> Iterator[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    minutes = float(os.environ.get("BENCH_AUTOSCALING_MINUTES", "30"))
    if minutes > _MOST_MINUTES:
        raise ValueError(
            f"BENCH_AUTOSCALING_MINUTES is {minutes:g}; use {_MOST_MINUTES} or less: what autoscalers did is read from "
            "their Events in the end, and those live an hour"
        )
    install_chart(f"--set=operator.resyncSeconds={_RESYNC_SECONDS}")
    with metrics_server(), namespace("ropewalk-bench-autoscaling") as space:
        _start(space)
        began = time.monotonic()
        with watched_replicas(space) as replicas, _touched_again_and_again(space) as touched:
            rounds, paces = _rounds(space, replicas, began + minutes * 60)
            until(lambda: time.monotonic() > began + minutes * 60, "the time is over", minutes * 60 + 60)
        rescales = {what: _rescales(space, autoscaler) for what, autoscaler in _SCALED.items()}
        yield from _scaling_rows(rounds, paces)
        yield from _fighting_rows(replicas, rescales, minutes, touched)


def _start(space: Workspace) -> None:
    space.apply(*redis())
    space.kubectl("rollout", "status", "deployment/redis", f"--timeout={_UP_SECONDS}s")
    sessions = redis_sessions()
    bounds = {"minReplicas": _LEAST, "maxReplicas": _MOST}
    space.apply(
        agent(_AUTOMATIC, sessions=sessions, pod=_POD, autoscaling={**bounds, **_TARGETS}),
        agent(_DRIVEN, sessions=sessions, pod=_POD),
        agent(_BY_HAND, sessions=sessions, pod=_POD),
        _own_autoscaler(bounds),
    )
    space.kubectl("scale", f"agent/{_BY_HAND}", f"--replicas={_HELD}")
    for name in (_AUTOMATIC, _DRIVEN, _BY_HAND):
        space.wait(f"agent/{name}", seconds=_UP_SECONDS)
    until(lambda: _ready(space, _BY_HAND) == _HELD, "the one that was scaled by hand has its pods", _UP_SECONDS)
    for name in (f"{_AUTOMATIC}-agent", _DRIVEN):
        until(partial(_is_active, space, name), f"the autoscaler {name} has figures", _UP_SECONDS)


def _own_autoscaler(bounds: dict[str, int]) -> dict[str, Any]:
    use = {"type": "Utilization", "averageUtilization": _CPU_PERCENT}
    target = {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "name": _DRIVEN}
    metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": use}}]
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": _DRIVEN},
        "spec": {"scaleTargetRef": target, **bounds, "metrics": metrics},
    }  # fmt: skip


def _ready(space: Workspace, name: str) -> int:
    return int(space.get(f"agent/{name}").get("status", {}).get("readyReplicas", 0))


def _is_active(space: Workspace, autoscaler: str) -> bool:
    conditions = space.get(f"hpa/{autoscaler}").get("status", {}).get("conditions", [])
    return any(each["type"] == "ScalingActive" and each["status"] == "True" for each in conditions)


def _rounds(space: Workspace, replicas: Replicas, ends: float) -> tuple[list[dict[str, Round]], dict[str, Pace]]:
    """As many as there is time for, one at least."""
    done: list[dict[str, Round]] = []
    with ExitStack() as stack:
        paces = {
            name: stack.enter_context(paced_queries(space.url(f"{name}-agent"), _TRICKLE_PAUSE_SECONDS))
            for name in (_AUTOMATIC, _DRIVEN)
        }
        longest = 0.0
        while not done or time.monotonic() + longest < ends:
            began = time.monotonic()
            done.append(_round(space, replicas, paces))
            longest = max(longest, 1.2 * (time.monotonic() - began))
            say(f"{done[-1]}; failed: {[pace.at(_TRICKLE_PAUSE_SECONDS) for pace in paces.values()]}")
    return done, paces


def _round(space: Workspace, replicas: Replicas, paces: dict[str, Pace]) -> dict[str, Round]:
    began = time.monotonic()
    _set(paces, _LOAD_PAUSE_SECONDS)
    first: dict[str, float] = {}
    most: dict[str, float] = {}
    least: dict[str, float] = {}

    def are_grown() -> bool:
        for name in paces:
            ready, after = replicas.ready[f"deployment/{name}-agent"], time.monotonic() - began
            if ready > _LEAST:
                first.setdefault(name, after)
            if ready == _MOST:
                most.setdefault(name, after)
        return len(most) == len(paces)

    until(are_grown, "all agents have their most pods", _UP_SECONDS)
    ended = time.monotonic()
    _set(paces, _TRICKLE_PAUSE_SECONDS)

    def are_back() -> bool:
        for name in paces:
            if replicas.now[f"deployment/{name}-agent"] == _LEAST:
                least.setdefault(name, time.monotonic() - ended)
        return len(least) == len(paces)

    until(are_back, "all agents are back at their least pods", _DOWN_SECONDS)
    if ending := _ending_pods(space):
        # They go on answering for some seconds.
        space.kubectl("wait", "--for=delete", *ending, "--timeout=120s")
    return {name: Round(first[name], most[name], least[name]) for name in paces}


def _ending_pods(space: Workspace) -> list[str]:
    pods = space.get("pods", "-l", "ropewalk.dev/agent")["items"]
    return [f"pod/{pod['metadata']['name']}" for pod in pods if "deletionTimestamp" in pod["metadata"]]


def _set(paces: dict[str, Pace], seconds: float) -> None:
    for pace in paces.values():
        pace.seconds = seconds


@dataclass
class _Touched:
    """How often all Agents were annotated, and the reconciles of Agents meanwhile, by the operator's own count."""

    times: int = 0
    reconciles: int = 0
    restarts: int = 0
    _last: int = 0

    def look(self, *, first: bool = False) -> None:
        """Add what was counted since the last time; a count that is smaller than it was has begun anew."""
        counted = _reconciles()
        if first:
            self._last = counted
        self.restarts += counted < self._last
        self.reconciles += counted - (self._last if counted >= self._last else 0)
        self._last = counted


@contextmanager
def _touched_again_and_again(space: Workspace) -> Iterator[_Touched]:
    """Annotate all Agents until the end of the block."""
    touched, done = _Touched(), threading.Event()
    touched.look(first=True)

    def keep_touching() -> None:
        while not done.wait(_TOUCH_SECONDS):
            space.kubectl("annotate", "agent", "--all", "--overwrite", f"touched={touched.times}")
            touched.times += 1
            # While it starts again it does not answer.
            with suppress(httpx.HTTPError):
                touched.look()

    thread = threading.Thread(target=keep_touching)
    thread.start()
    try:
        yield touched
        if not thread.is_alive():
            raise RuntimeError("the Agents were not touched to the end, so nothing was shown; why stands above")
    finally:
        done.set()
        thread.join()


def _reconciles() -> int:
    """Of Agents, since the operator's start. Raises httpx.HTTPError where it does not answer."""
    pods = Workspace(e2e_cluster.SYSTEM).pods("app.kubernetes.io/name=ropewalk-operator")
    (pod,) = (each for each in pods if each["metadata"]["labels"]["app.kubernetes.io/instance"] == e2e_cluster.RELEASE)
    text = httpx.get(f"http://{pod['status']['podIP']}:8080/metrics", timeout=10).text
    lines = re.findall(r'^ropewalk_operator_reconcile_total\{.*kind="Agent".*\} (\S+)$', text, re.M)
    return int(sum(float(line) for line in lines))


def _scaling_rows(rounds: list[dict[str, Round]], paces: dict[str, Pace]) -> Iterator[tuple[str, str, str]]:
    words = {_AUTOMATIC: "spec.autoscaling", _DRIVEN: "an autoscaler of the user's own on the Agent"}
    for name, pace in paces.items():
        each = [round_[name] for round_ in rounds]
        yield (
            f"{words[name]}, {len(each)} rounds: load → first new pod Ready; → {_MOST} of {_MOST} pods Ready; "
            f"load's end → {_LEAST} pod asked for",
            "; ".join(f"{one.first_pod:.0f} s, {one.at_most:.0f} s, {one.at_least:.0f} s" for one in each),
            "",
        )
        for seconds, when in ((_LOAD_PAUSE_SECONDS, "under load"), (_TRICKLE_PAUSE_SECONDS, "while pods are removed")):
            count, failed = pace.at(seconds)
            yield f"the same: queries {when}, failed", f"{count}, {failed.total()}{_told(failed)}", "0 failed"
        yield "the same: the slowest query", f"{pace.slowest_seconds:.1f} s", ""


def _fighting_rows(
    replicas: Replicas, rescales: dict[str, Counter[int]], minutes: float, touched: _Touched
) -> Iterator[tuple[str, str, str]]:
    foreign = [str(change) for change in replicas.changes if _WRITERS.get(change.what) != change.writer]
    for what, ordered in rescales.items():
        made = Counter(change.replicas for change in replicas.of(what))
        foreign += [f"{what} to {count}, which its autoscaler has not told" for count in (made - ordered).elements()]
    counts = [len(replicas.of(what)) for what in _WRITERS]
    followed = [change.replicas for change in replicas.of(f"deployment/{_DRIVEN}-agent")]
    asked = [change.replicas for change in replicas.of(f"agent/{_DRIVEN}")]
    say(f"{replicas.changes}; {rescales}")
    yield (
        f"{minutes:.0f} minutes, {touched.reconciles} reconciles ({touched.times} edits of each Agent's annotations, a "
        f"resync every {_RESYNC_SECONDS} s, {touched.restarts} restarts of the operator): replicas changed by the "
        "autoscaler of spec.autoscaling; by the user's own; by the operator after that",
        f"{counts[0]}; {counts[1]}; {counts[2]} ({'the same numbers' if asked == followed else 'OTHER NUMBERS'})",
        "",
    )
    yield (
        "the same: replicas changed by anybody else, in all versions of Agents and Deployments",
        f"{len(foreign)} in {replicas.versions}{_told(Counter(foreign))}",
        "0",
    )
    yield (
        f"the same: changes of what `kubectl scale` had set to {_HELD}",
        str(len(replicas.of(f"agent/{_BY_HAND}")) + len(replicas.of(f"deployment/{_BY_HAND}-agent"))),
        "0",
    )


def _rescales(space: Workspace, autoscaler: str) -> Counter[int]:
    """To which numbers it has scaled, and how often, by its Events."""
    wanted = f"reason=SuccessfulRescale,involvedObject.name={autoscaler}"
    told: Counter[int] = Counter()
    for event in space.get("events", "--field-selector", wanted)["items"]:
        found = re.match(r"New size: (\d+);", event["message"])
        told[int(found[1]) if found else -1] += int(event.get("count") or 1)
    return told


def _told(what: Mapping[str, int]) -> str:
    return "".join(f"; {count} × {said}" for said, count in what.items())
