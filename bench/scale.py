"""Thousands of Agents at once: the operator beside a bare client that applies the very same objects.

BENCH_SCALE_AGENTS: how many, several with spaces between (default: 1000). BENCH_SCALE_ROUNDS: of how many runs the best
counts where the two are compared (default: 2).
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.bare_client import NAMESPACE, BareClient
from bench.edits import EDITS, MODEL_SPEC, edit, edit_model, model, share_a_model, users
from bench.simulated import Cluster, cpu_seconds, memory_mib
from cluster.layout import REPOSITORY
from operator_process import OperatorProcess

_KINDS = ("ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "Deployment")
_WRITES = ("APPLY", "PATCH", "POST", "DELETE")
_SERVER_MADE = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences")
_RESYNC_SECONDS = 30
_SCRAPE_SECONDS = 15
_REST_SECONDS = 1.0
_LONGEST_SECONDS = 2400


@dataclass
class Run:
    """What one run has shown."""

    agents: int
    children_seconds: float = 0.0
    settled_seconds: float = 0.0
    bare_agents_seconds: float = 0.0
    bare_seconds: float = 0.0
    cpu: float = 0.0
    settled_cpu: float = 0.0
    api_cpu: float = 0.0
    bare_agents_api_cpu: float = 0.0
    bare_api_cpu: float = 0.0
    requests: dict[str, float] = field(default_factory=dict)
    reconciles: float = 0.0
    rss_mib: float = 0.0
    peak_mib: float = 0.0
    filled_seconds: float = 0.0
    restart_seconds: float = 0.0
    restart_cpu: float = 0.0
    restart_writes: float = 0.0
    restart_rss_mib: float = 0.0
    resync_cpu: float = 0.0
    resync_writes: float = 0.0
    resync_rss_mib: float = 0.0
    resync_peak_mib: float = 0.0
    edit_seconds: list[float] = field(default_factory=list)
    bare_edit_seconds: list[float] = field(default_factory=list)
    model_seconds: float = 0.0
    model_writes: float = 0.0
    bare_model_seconds: float = 0.0


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    sizes = [int(size) for size in os.environ.get("BENCH_SCALE_AGENTS", "1000").split()]
    rounds = int(os.environ.get("BENCH_SCALE_ROUNDS", "2"))
    rows: list[tuple[str, str, str]] = []
    for size in sizes:
        for pods in (False, True):
            runs = [asyncio.run(_compare(size, pods=pods)) for _ in range(rounds)]
            where = "pods simulated" if pods else "no controllers"
            rows += _compared(runs, where)
            rows += _kept(min(runs, key=lambda each: each.settled_cpu), where)
    return rows


def _compared(runs: list[Run], where: str) -> list[tuple[str, str, str]]:
    size = runs[0].agents
    best = min(runs, key=lambda each: each.children_seconds / each.bare_seconds)
    both = best.bare_agents_seconds + best.bare_seconds
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    of = f"{size} Agents, {where}"
    return [
        (
            f"{of}: until the last of {size * len(_KINDS)} children exists, best of {len(runs)}",
            f"{best.children_seconds:.1f} s; the bare client {best.bare_seconds:.1f} s, with the Agents {both:.1f} s: "
            f"{best.children_seconds / best.bare_seconds:.2f} ×, {best.children_seconds / both:.2f} × (load {load})",
            "≤ 1.25 ×",
        ),
        (
            f"{of}: CPU of the API server, CPU of the operator, for each Agent until then",
            f"{best.api_cpu / size * 1000:.1f} ms (bare client {best.bare_api_cpu / size * 1000:.1f}, with the Agents "
            f"{(best.bare_api_cpu + best.bare_agents_api_cpu) / size * 1000:.1f}), {best.cpu / size * 1000:.1f} ms",
            "",
        ),
        (
            f"{of}: requests and reconciles for each Agent until all is settled",
            ", ".join(f"{verb} {count / size:.2f}" for verb, count in best.requests.items())
            + f"; {best.reconciles / size:.1f}",
            "",
        ),
        (
            f"{of}: all settled, CPU of the operator until then, for each Agent",
            f"{best.settled_seconds:.0f} s, {best.settled_cpu / size * 1000:.1f} ms",
            "flat",
        ),
    ]


def _kept(each: Run, where: str) -> list[tuple[str, str, str]]:
    return [
        (
            f"{each.agents} Agents, {where}: memory of the operator (RSS) when all is settled, at most so far",
            f"{each.rss_mib:.0f} MiB, {each.peak_mib:.0f} MiB",
            "≤ 200 MiB at 5000",
        ),
        (
            f"{each.agents} Agents, {where}: an edit until its Deployment is changed, p50 and p99 of {EDITS}",
            f"{_percentiles(each.edit_seconds)}; the bare client {_percentiles(each.bare_edit_seconds)}",
            "≤ 50 ms, ≤ 250 ms",
        ),
        (
            f"{each.agents} Agents, {where}: an edit of a Model until the Deployments of all {len(users(each.agents))} "
            "Agents that use it are changed, writes for each",
            f"{each.model_seconds:.1f} s, {each.model_writes / len(users(each.agents)):.2f}; the bare client "
            f"{each.bare_model_seconds:.1f} s",
            "",
        ),
        (
            f"{each.agents} Agents, {where}: a restart until every one was looked at (caches filled), CPU, writes, RSS",
            f"{each.restart_seconds:.1f} s ({each.filled_seconds:.1f} s), {each.restart_cpu:.1f} s, "
            f"{each.restart_writes:.0f}, {each.restart_rss_mib:.0f} MiB",
            "≤ 20 s, 0 writes",
        ),
        (
            f"{each.agents} Agents, {where}: a resync: CPU, writes, RSS, at most so far",
            f"{each.resync_cpu:.1f} s, {each.resync_writes:.0f}, {each.resync_rss_mib:.0f} MiB, "
            f"{each.resync_peak_mib:.0f} MiB",
            "0 writes",
        ),
    ]


def _percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.0f} and {ordered[int(len(ordered) * 0.99) - 1] * 1000:.0f} ms"


async def _compare(size: int, *, pods: bool) -> Run:
    done = Run(size)
    # An API server for each, so that neither pays for what the other has left to do.
    async with _cluster(pods) as (cluster, user):
        with TemporaryDirectory() as folder:
            operator = _operator(cluster, folder)
            try:
                children = await _create(done, cluster, user, operator, pods)
                done.edit_seconds = await edit(size, user, bare=False)
                await _until(partial(_is_settled, user, "True" if pods else None), 2.0)
                await share_a_model(size, user)
                await _rolled(user, operator, pods)
                before = _writes(_by_verb(_figures(operator)))
                done.model_seconds = await edit_model(size, user, bare=False)
                await _rolled(user, operator, pods)
                done.model_writes = _writes(_by_verb(_figures(operator))) - before
                await asyncio.to_thread(_restart, done, cluster, operator, folder)
            finally:
                operator.kill()
    async with _cluster(pods) as (cluster, user):
        began, api_before = time.perf_counter(), cluster.cpu_seconds()
        await user.apply(_agents(size))
        done.bare_agents_seconds = time.perf_counter() - began
        began, done.bare_agents_api_cpu = time.perf_counter(), cluster.cpu_seconds() - api_before
        await user.apply(_in_order([_copy(child) for child in children]))
        done.bare_seconds = time.perf_counter() - began
        done.bare_api_cpu = cluster.cpu_seconds() - api_before
        done.bare_edit_seconds = await edit(size, user, bare=True)
        await user.apply([model()])
        done.bare_model_seconds = await edit_model(size, user, bare=True)
    return done


@asynccontextmanager
async def _cluster(pods: bool) -> AsyncIterator[tuple[Cluster, BareClient]]:
    cluster = Cluster(pods=pods)
    try:
        cluster.begin()
        cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        cluster.kubectl("create", "namespace", NAMESPACE)
        for other in ("serviceaccount/default", "configmap/kube-root-ca.crt") if pods else ():
            cluster.kubectl("wait", "-n", NAMESPACE, "--for=create", other, "--timeout=30s")
        async with BareClient.connected(cluster.kubeconfig) as user:
            yield cluster, user
    finally:
        cluster.stop()


def _operator(cluster: Cluster, folder: str, **environment: str) -> OperatorProcess:
    chosen = {"ROPEWALK_WATCH_NAMESPACES": NAMESPACE, "ROPEWALK_LOG_LEVEL": "warning", **environment}
    return OperatorProcess(cluster.kubeconfig, Path(folder) / "log", **chosen).start()


async def _create(
    done: Run, cluster: Cluster, user: BareClient, operator: OperatorProcess, pods: bool
) -> list[dict[str, Any]]:
    others = {kind: await user.count(kind) for kind in _KINDS}
    began, api_before, before = time.perf_counter(), cluster.cpu_seconds(), cpu_seconds(operator.pid)
    await user.apply(_agents(done.agents))
    for kind in reversed(_KINDS):  # the Deployments first: when they exist, so does all else
        await _until(partial(_has, user, kind, done.agents + others[kind]), 0.1)
    done.children_seconds = time.perf_counter() - began
    done.api_cpu, done.cpu = cluster.cpu_seconds() - api_before, cpu_seconds(operator.pid) - before
    children = [child for kind in _KINDS for child in await user.managed(kind)]
    await _until(partial(_is_settled, user, "True" if pods else None), 2.0)
    done.settled_seconds, done.settled_cpu = time.perf_counter() - began, cpu_seconds(operator.pid) - before
    done.rss_mib, done.peak_mib = memory_mib(operator.pid, "VmRSS"), memory_mib(operator.pid, "VmHWM")
    figures = _figures(operator)
    done.requests, done.reconciles = _by_verb(figures), _reconciles(figures)
    return children


def _restart(done: Run, cluster: Cluster, operator: OperatorProcess, folder: str) -> None:
    operator.stop()
    began = time.perf_counter()
    after = _operator(cluster, folder, ROPEWALK_RESYNC_SECONDS=str(_RESYNC_SECONDS))
    try:
        done.filled_seconds = time.perf_counter() - began
        figures, ended, done.restart_cpu = _looked_at(after, done.agents)
        done.restart_seconds = ended - began
        done.restart_writes, done.restart_rss_mib = _writes(_by_verb(figures)), memory_mib(after.pid, "VmRSS")
        before = cpu_seconds(after.pid)
        figures, _ended, used = _looked_at(after, done.agents * 2)
        done.resync_cpu = used - before
        done.resync_writes = _writes(_by_verb(figures)) - done.restart_writes
        done.resync_rss_mib, done.resync_peak_mib = memory_mib(after.pid, "VmRSS"), memory_mib(after.pid, "VmHWM")
    finally:
        after.kill()


def _looked_at(operator: OperatorProcess, times: int) -> tuple[str, float, float]:
    """The metrics, once there have been so many reconciles; when the work for them was over, and its CPU until then.

    To show the state of thousands of Agents is work for the operator, so it is asked only while it has nothing to do.
    """
    gives_up = time.monotonic() + _LONGEST_SECONDS
    while True:
        ended, used = _at_rest(operator)
        if _reconciles(figures := _figures(operator)) >= times:
            return figures, ended, used
        if time.monotonic() > gives_up:
            raise RuntimeError(f"{times} reconciles were not seen: {figures}")
        time.sleep(_SCRAPE_SECONDS)


def _at_rest(operator: OperatorProcess) -> tuple[float, float]:
    """Since when the operator has used next to no CPU for a second, and its CPU until then."""
    since, used = time.perf_counter(), cpu_seconds(operator.pid)
    while time.perf_counter() - since < _REST_SECONDS:
        time.sleep(0.1)
        if (now := cpu_seconds(operator.pid)) - used > _REST_SECONDS * 0.1:
            since, used = time.perf_counter(), now
    return since, used


def _figures(operator: OperatorProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def _reconciles(figures: str) -> float:
    return sum(float(value) for value in re.findall(r"^ropewalk_operator_reconcile_total{.*} (\S+)", figures, re.M))


def _by_verb(figures: str) -> dict[str, float]:
    counted: defaultdict[str, float] = defaultdict(float)
    for verb, value in re.findall(r'^ropewalk_operator_api_requests_total{.*verb="(\w+)".*} (\S+)', figures, re.M):
        counted[verb] += float(value)
    return dict(counted)


def _writes(requests: dict[str, float]) -> float:
    return sum(requests.get(verb, 0) for verb in _WRITES)


async def _has(user: BareClient, kind: str, count: int) -> bool:
    return await user.count(kind) >= count


async def _is_settled(user: BareClient, ready: str | None) -> bool:
    """Whether every Agent's status is of its spec, and says this of Ready."""
    for agent in await user.all("Agent"):
        status = agent.get("status") or {}
        if status.get("observedGeneration") != agent["metadata"]["generation"]:
            return False
        conditions = {each["type"]: each["status"] for each in status["conditions"]}
        if ready and conditions.get("Ready") != ready:
            return False
    return True


async def _rolled(user: BareClient, operator: OperatorProcess, pods: bool) -> None:
    """Return when every pod is of its Deployment's newest template, and the operator has nothing left to do."""
    if pods:
        await _until(partial(_is_rolled, user), 2.0)
    await asyncio.to_thread(_at_rest, operator)


async def _is_rolled(user: BareClient) -> bool:
    for deployment in await user.all("Deployment"):
        status = deployment.get("status") or {}
        seen = [status.get(field) for field in ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas")]
        if seen != [deployment["metadata"]["generation"], *3 * [deployment["spec"]["replicas"]]]:
            return False
    return True


async def _until(look: Callable[[], Awaitable[bool]], pause_seconds: float) -> None:
    """Look seldom: it is the operator's time."""
    async with asyncio.timeout(_LONGEST_SECONDS):
        while not await look():  # noqa: ASYNC110 - what is looked at is in another process
            await asyncio.sleep(pause_seconds)


def _in_order(children: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Agent by Agent, each Deployment after its settings. Kind by kind would spare the bare client the controllers,
    which begin with the first Deployment.
    """
    return sorted(children, key=lambda each: (each["metadata"]["name"], each["kind"] == "Deployment"))


def _copy(child: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in child["metadata"].items() if name not in _SERVER_MADE}
    copy = {name: value for name, value in child.items() if name != "status"} | {"metadata": metadata}
    if copy["kind"] == "Service":
        copy["spec"] = {name: copy["spec"][name] for name in ("ports", "selector", "type") if name in copy["spec"]}
    return copy


def _agents(count: int) -> list[dict[str, Any]]:
    spec = {"systemPrompt": "You are a calculator.", "model": MODEL_SPEC}
    return [
        {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": f"agent-{n:05}"}, "spec": spec}
        for n in range(count)
    ]
