"""Two operators: how long nothing is done after the leader was killed, and after it was stopped.

Measured from the signal to the change of a child that a user has asked for at that moment, through a real API server.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from apiserver import serving_crds
from operator_namespace import MODEL, Namespace
from operator_pair import Operators
from operator_process import OperatorProcess
from waiting import until

_KILLS, _STOPS, _KILLS_OF_MANY = 10, 10, 3
_MANY = 1000


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    rows = []
    with serving_crds() as server, tempfile.TemporaryDirectory() as folder:
        namespace = Namespace(server, "bench")
        operators = Operators(server, namespace, Path(folder))
        try:
            leader = operators.start_leader()
            namespace.agent("calc")
            until(lambda: namespace.get("deployment", "calc-agent"), "the Agent has its children")
            times, leader = _takeovers(operators, namespace, leader, _KILLS, OperatorProcess.kill)
            what = "the leader is killed: until the standby has written what a user asked for"
            rows.append((f"{what}, {_KILLS} kills: each", ", ".join(f"{each:.1f}" for each in times) + " s", "—"))
            rows.append((f"{what}: median, maximum", _figure(times), "≤ 30 s"))
            times, leader = _takeovers(operators, namespace, leader, _STOPS, OperatorProcess.stop)
            rows.append((f"the same when it is stopped (SIGTERM), of {_STOPS}", _figure(times), "≤ 2 s"))
            _make_many(server.kubectl)
            until(lambda: _all_done(leader), f"{_MANY} Agents have their children", 600)
            times, leader = _takeovers(operators, namespace, leader, _KILLS_OF_MANY, OperatorProcess.kill)
            rows.append((f"killed, with {_MANY:,} Agents more, of {_KILLS_OF_MANY}", _figure(times), "≤ 30 s"))
            times, leader = _takeovers(operators, namespace, leader, _KILLS_OF_MANY, OperatorProcess.stop)
            rows.append((f"stopped, with {_MANY:,} Agents more, of {_KILLS_OF_MANY}", _figure(times), "≤ 2 s"))
        finally:
            operators.kill_all()
    return rows


def _takeovers(
    operators: Operators,
    namespace: Namespace,
    leader: OperatorProcess,
    count: int,
    end: Callable[[OperatorProcess], object],
) -> tuple[list[float], OperatorProcess]:
    """Seconds of each, and who leads then."""
    times = []
    for number in range(count):
        standby = operators.start()
        wanted = f"{end.__name__} {number} {time.time()}"
        namespace.kubectl(
            "patch", "agent", "calc", "--type=merge", "-p", json.dumps({"spec": {"systemPrompt": "before"}})
        )
        _until_prompt(namespace, "before")
        began = time.perf_counter()
        end(leader)
        namespace.kubectl(
            "patch", "agent", "calc", "--type=merge", "-p", json.dumps({"spec": {"systemPrompt": wanted}})
        )
        _until_prompt(namespace, wanted)
        times.append(time.perf_counter() - began)
        leader = standby
    return times, leader


def _until_prompt(namespace: Namespace, wanted: str) -> None:
    until(lambda: _prompt(namespace) == wanted, "whoever leads has written it")


def _prompt(namespace: Namespace) -> str:
    child = namespace.get("configmap", "calc-agent")
    return str(json.loads(child["data"]["agent.json"])["systemPrompt"]) if child else ""


def _make_many(kubectl: Callable[..., str]) -> None:
    spec = {"systemPrompt": "You are a calculator.", "model": MODEL}
    items = [
        {
            "apiVersion": "ropewalk.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": f"agent-{number:04}", "namespace": "bench"},
            "spec": spec,
        }
        for number in range(_MANY)
    ]
    kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _all_done(leader: OperatorProcess) -> bool:
    seen = leader.metric("ropewalk_resource_condition", condition="Accepted")
    return seen >= _MANY and leader.metric("ropewalk_operator_workqueue_depth") == 0


def _figure(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s, {max(times):.2f} s"
