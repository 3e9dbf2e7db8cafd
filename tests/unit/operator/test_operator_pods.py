"""What pods say of containers that have to run before the main one."""

from __future__ import annotations

from typing import Any

import pytest

from operator_world import FakeApiServer, pod
from ropewalk_operator import observe, pods
from ropewalk_operator.pod_events import PodEvents

WAITING = {"name": "mcpserver", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}


def with_bridge(**status: Any) -> dict[str, Any]:
    """A pod of a stdio server whose first container is in this state."""
    body = pod("math", kind="MCPServer")
    body["spec"]["initContainers"] = [{"name": "bridge", "image": "ropewalk.dev/mcp-stdio:1"}]
    body["status"]["containerStatuses"] = [WAITING]
    body["status"]["initContainerStatuses"] = [{"name": "bridge", "ready": False, "restartCount": 0, **status}]
    return body


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}},
            "ImagePullFailed",
            "the image ropewalk.dev/mcp-stdio:1 cannot be pulled: not found; check its name",
        ),
        (
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no such key"}}},
            "CreateContainerConfigError",
            "the container cannot be made: no such key",
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "message": "no space left on device"}},
                "restartCount": 2,
            },
            "CrashLoop",
            "restarted 2 times; its last words: no space left on device",
        ),
    ],
)
def test_a_bridge_that_does_not_come_into_the_pod_says_why(status: dict[str, Any], reason: str, words: str) -> None:
    found = pods.pod(with_bridge(**status))
    assert found is not None
    assert found.trouble is not None
    assert found.trouble.reason == reason
    assert words in found.trouble.message


@pytest.mark.parametrize(
    "status",
    [
        {"state": {"running": {}}},
        {"state": {"waiting": {"reason": "PodInitializing"}}},
        {"state": {"terminated": {"exitCode": 0}}, "ready": True},
    ],
    ids=["running", "waiting", "done"],
)
def test_a_bridge_that_takes_its_time_or_is_done_is_no_trouble(status: dict[str, Any]) -> None:
    found = pods.pod(with_bridge(**status))
    assert found is not None
    assert found.trouble is None
    assert found.creating


def test_a_restarted_bridge_that_is_done_is_no_trouble() -> None:
    last = {"lastState": {"terminated": {"exitCode": 1}}, "state": {"terminated": {"exitCode": 0}}, "ready": True}
    found = pods.pod(with_bridge(**last))
    assert found is not None
    assert found.trouble is None


async def test_the_bridge_of_a_stdio_server_is_asked_what_is_wrong_and_quoted() -> None:
    body = with_bridge(state={"terminated": {"exitCode": 0}}, ready=True)
    probe = {"readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}, "ports": [{"containerPort": 9000}]}
    body["spec"]["containers"][0] |= probe
    body["status"]["containerStatuses"] = [{**WAITING, "state": {"running": {}}}]
    found = pods.pod(body)
    assert found is not None
    asked: list[tuple[str | None, int | None]] = []

    async def ready(pod: pods.Pod) -> list[str]:
        asked.append((pod.ip, pod.bridge_port))
        return ["server 'files': it ended with exit code 1"]

    (trouble,) = (
        await observe.extra_trouble([found], PodEvents(FakeApiServer(), lambda _owner: None), ready, 0.0)
    ).values()
    assert asked == [("10.0.0.9", 9000)]
    assert trouble == pods.Trouble(
        "NotReady",
        "not ready: server 'files': it ended with exit code 1; it becomes ready by itself once that is put right",
    )
