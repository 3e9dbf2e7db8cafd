"""Conversations that outlive pods: in a Redis that all replicas share, and in files on a volume."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from e2e_cluster import Workspace, agent, kubectl
from e2e_redis import redis, redis_sessions
from waiting import until


@pytest.fixture(scope="module")
def shared(space: Workspace) -> Workspace:
    """The namespace with a Redis, and an agent of two pods that keep their sessions in it."""
    space.apply(*redis())
    space.kubectl("rollout", "status", "deployment/redis", "--timeout=60s")
    space.apply(agent("shared", replicas=2, sessions=redis_sessions()))
    space.wait("agent/shared")
    return space


def _addresses(space: Workspace, name: str) -> dict[str, str]:
    """The base URL of each pod of an agent, by the pod's name."""
    return {
        str(pod["metadata"]["name"]): f"http://{pod['status']['podIP']}:8080"
        for pod in space.pods(f"ropewalk.dev/agent={name}")
        if pod["status"].get("podIP")
    }


def _ask(url: str, query: str) -> httpx.Response:
    return httpx.post(f"{url}/query", json={"query": query, "session_id": "tour", "user_id": "me"}, timeout=60)


def _history(url: str) -> list[str]:
    """What was asked in the session so far, as this pod tells it."""
    answer = httpx.get(f"{url}/sessions/tour", params={"user_id": "me"}, timeout=10)
    assert answer.status_code == 200, answer.text
    return [turn["text"] for turn in answer.json()["turns"] if turn["role"] == "user"]


def test_any_replica_goes_on_with_any_session(shared: Workspace) -> None:
    one, other = _addresses(shared, "shared").values()
    for number, url in enumerate((one, other, one, other)):
        assert _ask(url, f"question {number}").status_code == 200
    assert _history(one) == _history(other) == [f"question {number}" for number in range(4)]


def test_a_pod_killed_in_a_turn_loses_no_session_and_frees_it_for_the_others(shared: Workspace) -> None:
    (doomed, url), (_, survivor) = _addresses(shared, "shared").items()
    before = _history(survivor)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(_ask, url, "demo:slow=30 never answered")
        until(lambda: "requests_in_flight 1.0" in httpx.get(f"{url}/metrics").text, "the turn runs")
        shared.kubectl("delete", f"pod/{doomed}", "--grace-period=0", "--force")
        # The dead pod's lock ends with its lease; until then the other pod waits for it.
        assert _ask(survivor, "still there?").status_code == 200
        with pytest.raises(httpx.HTTPError):
            pending.result()
    assert _history(survivor) == [*before, "still there?"]


def test_kubectl_scale_adds_replicas(shared: Workspace) -> None:
    shared.kubectl("scale", "agent/shared", "--replicas=3")
    until(lambda: shared.get("agent/shared").get("status", {}).get("readyReplicas") == 3, "three ready replicas")


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume of this machine that any claim without a class may bind."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # a hostPath keeps its owner, whatever the pod's fsGroup
        manifest = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "ropewalk-e2e"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": folder, "type": "Directory"},
            },
        }
        kubectl("apply", "-f", "-", text=json.dumps(manifest))
        try:
            yield folder
        finally:
            kubectl("delete", "persistentvolume/ropewalk-e2e", "--wait=false")


def test_sessions_in_files_outlive_the_pod(space: Workspace, volume: str) -> None:
    space.apply(agent("filed", sessions={"store": "file"}))
    space.wait("agent/filed")
    ((old, url),) = _addresses(space, "filed").items()
    assert _ask(url, "remember me").status_code == 200
    space.kubectl("delete", f"pod/{old}", "--wait")
    space.wait("agent/filed")
    new = until(lambda: [u for name, u in _addresses(space, "filed").items() if name != old], "the new pod")[0]
    until(lambda: httpx.get(f"{new}/ready").status_code == 200, "the new pod is ready")
    assert _history(new) == ["remember me"]
