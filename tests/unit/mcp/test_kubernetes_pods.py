"""What is told of a pod: the status word of kubectl, ages, tables."""

from datetime import UTC, datetime

import pytest

import mcp_kube_api as kube
from ropewalk_mcp_kubernetes import pods

RUNNING = {"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}}
DONE = {
    "name": "main",
    "ready": False,
    "restartCount": 0,
    "state": {"terminated": {"reason": "Completed", "exitCode": 0}},
}


def waiting(reason: str, name: str = "main") -> kube.Json:
    return {"name": name, "ready": False, "restartCount": 1, "state": {"waiting": {"reason": reason}}}


@pytest.mark.parametrize(
    ("status", "metadata", "word"),
    [
        ({"containerStatuses": [RUNNING]}, {}, "Running"),
        ({"containerStatuses": [RUNNING]}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "Terminating"),
        ({"phase": "Pending", "containerStatuses": []}, {}, "Pending"),
        ({"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff")]}, {}, "ImagePullBackOff"),
        ({"phase": "Succeeded", "containerStatuses": [DONE]}, {}, "Completed"),
        ({"containerStatuses": [DONE, RUNNING]}, {}, "Running"),
        ({"phase": "Failed", "reason": "Evicted", "containerStatuses": []}, {}, "Evicted"),
        ({"containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 3}}}]}, {}, "ExitCode:3"),
        ({"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing")]}, {}, "Init:0/1"),
        ({"phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff")]}, {}, "Init:CrashLoopBackOff"),
        ({"initContainerStatuses": [{"name": "side", "started": True, "state": {"running": {}}}]}, {}, "Running"),
        ({"initContainerStatuses": [DONE]}, {}, "Running"),
    ],
)
def test_the_status_is_the_word_of_kubectl(status: kube.Json, metadata: kube.Json, word: str) -> None:
    assert pods.summary(kube.pod("web-1", status=status, metadata=metadata)).status == word


def test_a_pod_that_has_just_been_made_can_be_shown() -> None:
    pod = {"metadata": {"name": "web-1", "namespace": "default"}, "spec": {"containers": [{"name": "main"}]}}
    shown = pods.detail(pod)
    assert shown.containers
    assert (shown.ready, shown.status, shown.containers[0].state) == ("0/1", "Unknown", "waiting (not started)")
    assert "IP: none yet" in pods.detail_text(shown, datetime(2026, 1, 1, tzinfo=UTC))


def test_init_containers_are_shown_as_such() -> None:
    pod = kube.pod(
        "web-1",
        spec={"initContainers": [{"name": "prepare", "image": "busybox"}]},
        status={"initContainerStatuses": [DONE | {"name": "prepare"}]},
    )
    text = pods.detail_text(pods.detail(pod), datetime(2026, 1, 1, tzinfo=UTC))
    assert "Init container prepare (busybox): terminated (Completed, exit code 0)" in text


@pytest.mark.parametrize(
    ("created", "age"),
    [
        ("2026-01-09T12:00:00Z", "0s"),
        ("2026-01-09T11:59:20Z", "40s"),
        ("2026-01-09T11:30:00.123456Z", "29m"),
        ("2026-01-09T10:00:00Z", "2h"),
        ("2026-01-01T12:00:00Z", "8d"),
        ("2026-01-09T12:00:05Z", "0s"),
        ("", "?"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(created: str, age: str) -> None:
    assert pods.age(created, datetime(2026, 1, 9, 12, tzinfo=UTC)) == age
