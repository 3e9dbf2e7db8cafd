"""The operator killed at random moments while Agents come, change and go: all converges, nothing is left or doubled."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, serving_crds
from operator_process import OperatorProcess
from waiting import until

KINDS = ("configmap", "serviceaccount", "service", "deployment", "networkpolicy")
AGENTS = 15
KILLS = 8
SEED = 20_240_607
MOST_WRITES = 30
"""Of a life that is ended: what an Agent needs takes seven."""
COLLECTED_SECONDS = 120
MANAGED = "app.kubernetes.io/managed-by=ropewalk-operator"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serving_crds() as started:
        yield started


class User(threading.Thread):
    """Creates, edits and deletes Agents in a seeded order until told to stop; `wanted` is what remains."""

    def __init__(self, server: ApiServer, seed: int) -> None:
        super().__init__(name="user")
        self._server = server
        self._random = random.Random(seed)
        self._enough = threading.Event()
        self.wanted: dict[str, str] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(AGENTS):
                self._apply(f"agent-{number:02}", "first")
            while not self._enough.is_set():
                self._one_step()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._enough.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _one_step(self) -> None:
        name = f"agent-{self._random.randrange(AGENTS):02}"
        if name in self.wanted and self._random.random() < 0.3:
            self._server.kubectl("delete", "agent", name, "--wait=false")
            del self.wanted[name]
        else:
            self._apply(name, f"edit {self._random.random()}")

    def _apply(self, name: str, prompt: str) -> None:
        model = {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"}
        spec = {"systemPrompt": prompt, "model": model}
        body = {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}
        self._server.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))
        self.wanted[name] = prompt


def items(server: ApiServer, kinds: str, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.kubectl("get", kinds, "-o", "json", *arguments))["items"]
    return found


def wrong(server: ApiServer, wanted: dict[str, str]) -> list[str]:
    """What differs from what is wanted: children missing, left over, or with yesterday's settings."""
    children = items(server, ",".join(KINDS), "-l", MANAGED)
    seen = sorted((child["kind"].lower(), child["metadata"]["name"]) for child in children)
    expected = sorted((kind, f"{name}-agent") for kind in KINDS for name in wanted)
    problems = [f"left over: {each}" for each in seen if each not in expected]
    problems += [f"missing: {each}" for each in expected if each not in seen]
    uids = {agent["metadata"]["uid"] for agent in items(server, "agents")}
    problems += [f"not ours: {c['metadata']['name']}" for c in children if owner_uid(c) not in uids]
    for child in children:
        name = child["metadata"]["name"].removesuffix("-agent")
        if child["kind"] == "ConfigMap" and name in wanted:
            prompt = json.loads(child["data"]["agent.json"])["systemPrompt"]
            problems += [] if prompt == wanted[name] else [f"{name} says {prompt!r}, not {wanted[name]!r}"]
    for agent in items(server, "agents"):
        observed = agent.get("status", {}).get("observedGeneration")
        if observed != agent["metadata"]["generation"]:
            problems.append(f"{agent['metadata']['name']} is judged for generation {observed}")
    return problems


def owner_uid(child: dict[str, Any]) -> str:
    (reference,) = child["metadata"]["ownerReferences"]
    return str(reference["uid"])


def live(operator: OperatorProcess, writes: int) -> None:
    """Return in the midst of its work: once it has written so often, of what the user gives it to do."""
    until(lambda: operator.is_ready() and operator.writes() >= writes, f"it writes {writes} times")


@pytest.mark.timeout(400)
def test_killed_at_random_moments_everything_converges(server: ApiServer, tmp_path: Path) -> None:
    lives = random.Random(SEED)
    user = User(server, SEED)
    operator = OperatorProcess(server.kubeconfig, tmp_path / "log")
    user.start()
    try:
        for _ in range(KILLS):
            operator.start(wait=False)
            live(operator, writes=lives.randint(1, MOST_WRITES))
            operator.kill()
        user.stop()
        operator.start()
        assert user.wanted, "some Agents remain"
        seen: list[list[str]] = []

        def converged() -> bool:
            seen.append(wrong(server, user.wanted))
            return not seen[-1]

        try:
            until(converged, "everything converges", COLLECTED_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[-1]}") from None
        deployments = {each["metadata"]["uid"] for each in items(server, "deployments")}
        until(lambda: {owner_uid(each) for each in items(server, "replicasets")} <= deployments, "nothing is orphaned")
    finally:
        user.stop()
        operator.kill()
