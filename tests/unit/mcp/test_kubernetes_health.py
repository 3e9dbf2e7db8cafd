"""Whether anything is wrong with pods, in one line, and why."""

from datetime import UTC, datetime

import pytest

import mcp_kube_api as kube
from ropewalk_mcp_kubernetes.health import Health, about_these, health

NOW = datetime(2026, 1, 3, tzinfo=UTC)
HERE = "in namespace web"
NOT_READY = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T23:55:00Z"}]


def judged(*pods: kube.Json, events: list[kube.Json] | None = None) -> Health:
    return health(list(pods), events if events is not None else [], HERE, NOW)


def unready(
    name: str, *containers: kube.Json, conditions: list[kube.Json] | None = None, **status: object
) -> kube.Json:
    more = {"containerStatuses": list(containers), "conditions": conditions or NOT_READY, **status}
    return kube.pod(name, "web", status=more)


def restarted(name: str, finished: str) -> kube.Json:
    last = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": finished}}
    container = {"name": "main", "ready": True, "restartCount": 4, "state": {"running": {}}, "lastState": last}
    return kube.pod(name, "web", status={"containerStatuses": [container]})


def test_all_is_well() -> None:
    assert judged(kube.pod("a", "web"), kube.pod("b", "web")).verdict == (
        "Nothing is wrong: all 2 pods in namespace web are ready; no warnings in the last hour."
    )


def test_a_completed_pod_is_not_broken() -> None:
    done = kube.pod("job", "web", status={"phase": "Succeeded", "conditions": NOT_READY})
    assert judged(kube.pod("a", "web"), done).verdict.startswith(
        "Nothing is wrong: all 2 pods in namespace web are ready or"
    )


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (
            unready(
                "a", {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
            ),
            "not ready for 5m: container main is waiting (ImagePullBackOff, no such image)",
        ),
        (
            unready(
                "a", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]
            ),
            "not ready for 2d: 0/1 nodes are available",
        ),
        (
            unready(
                "a",
                {"name": "main", "started": True, "state": {"running": {}}},
                conditions=[{**NOT_READY[0], "message": "containers with unready status: [main]"}],
            ),
            "not ready for 5m: containers with unready status: [main]",
        ),
        (
            unready("a", phase="Failed", reason="Evicted", message="The node was low"),
            "not ready for 5m: The node was low",
        ),
        (unready("a", phase="Unknown"), "not ready for 5m: Unknown"),
        (
            kube.pod("a", "web", metadata={"deletionTimestamp": "2026-01-02T23:40:00Z"}),
            "deleted, but still there 20m later",
        ),
    ],
)
def test_a_pod_that_is_not_ready_is_named_with_what_the_cluster_says(pod: kube.Json, reason: str) -> None:
    found = judged(pod, kube.pod("b", "web"))
    assert [(each.name, each.ready, each.reason) for each in found.attention] == [("a", False, reason)]
    assert found.verdict.startswith("1 of 2 pods in namespace web is not ready: a (")


def test_a_pod_that_is_about_to_end_is_not_broken() -> None:
    ending = kube.pod("a", "web", metadata={"deletionTimestamp": "2026-01-03T00:00:20Z"})
    found = judged(ending, kube.pod("b", "web"))
    assert found.attention == []
    assert "all 2 pods in namespace web are ready or ending" in found.verdict


def test_a_pod_that_restarted_in_the_last_hour_is_named_although_it_is_ready() -> None:
    found = judged(restarted("a", "2026-01-02T23:58:00Z"), restarted("b", "2026-01-02T20:00:00Z"))
    said = "All 2 pods in namespace web are ready; 1 restarted in the last hour: a (Running)"
    assert found.verdict == f"{said}; no warnings in the last hour."
    assert found.attention[0].reason == (
        "ready, but restarted 2m ago (4 restarts in all); its last run: terminated (Error, exit code 1)"
    )


def test_broken_pods_come_before_restarted_ones_and_many_are_counted() -> None:
    pods = [restarted("z", "2026-01-02T23:58:00Z"), *(unready(f"a{number}", phase="Pending") for number in range(7))]
    found = judged(*pods)
    assert [each.ready for each in found.attention] == [False] * 7 + [True]
    assert found.verdict.startswith("7 of 8 pods in namespace web are not ready: a0 (Pending), ")
    assert "a4 (Pending) and 2 more; 1 restarted in the last hour" in found.verdict


def test_warnings_of_one_reason_about_one_thing_are_one_line_latest_first() -> None:
    events = [
        kube.event("a", "2026-01-02T23:10:00Z", "first", namespace="web"),
        kube.event("b", "2026-01-02T23:30:00Z", "other", namespace="web"),
        kube.event("a", "2026-01-02T23:50:00Z", "last " + "x" * 1_000, namespace="web"),
        {**kube.event("a", "2026-01-02T23:50:00Z", "normal", namespace="web"), "type": "Normal"},
        kube.event("a", "2026-01-02T22:59:00Z", "too old", namespace="web"),
    ]
    found = judged(kube.pod("a", "web"), events=events)
    assert found.warnings
    assert [(each.about, each.count, each.time) for each in found.warnings] == [
        ("Pod/a", 6, "2026-01-02T23:50:00Z"),
        ("Pod/b", 3, "2026-01-02T23:30:00Z"),
    ]
    assert len(found.warnings[0].message) == 300
    assert found.verdict == "The only pod in namespace web is ready; 2 warnings in the last hour."


@pytest.mark.parametrize(
    ("ready_since", "seen", "shown"),
    [
        ("2026-01-02T23:50:20Z", "2026-01-02T23:50:10Z", False),
        ("2026-01-02T23:50:20Z", "2026-01-02T23:55:00Z", True),
        ("2026-01-02T23:56:00Z", "2026-01-02T23:50:10Z", True),
    ],
    ids=["before the pod was ready", "since then", "of a pod that took long, or was not ready for a while"],
)
def test_warnings_of_a_start_that_has_gone_well_are_left_out(ready_since: str, seen: str, shown: bool) -> None:
    running = {"name": "main", "ready": True, "state": {"running": {"startedAt": "2026-01-02T23:50:00Z"}}}
    ready = [{"type": "Ready", "status": "True", "lastTransitionTime": ready_since}]
    pod = kube.pod("a", "web", status={"conditions": ready, "containerStatuses": [running]})
    found = judged(pod, events=[kube.event("a", seen, "Readiness probe failed", namespace="web")])
    assert bool(found.warnings) == shown
    assert found.verdict.startswith("Nothing is wrong") != shown


def test_a_namespace_whose_pods_cannot_be_made_shows_the_warning() -> None:
    refused = kube.event("web-5d4", "2026-01-02T23:59:00Z", "exceeded quota", namespace="web")
    refused["involvedObject"]["kind"], refused["reason"] = "ReplicaSet", "FailedCreate"
    found = judged(events=[refused])
    assert found.verdict == "There are no pods in namespace web; 1 warning in the last hour."
    assert (found.warnings or [])[0].about == "ReplicaSet/web-5d4"


def test_warnings_are_bounded_and_counted_before() -> None:
    found = judged(events=[kube.event(f"a{i}", "2026-01-02T23:59:00Z", "m", namespace="web") for i in range(40)])
    assert len(found.warnings or []) == 15
    assert "40 warnings in the last hour" in found.verdict


def test_warnings_that_may_not_be_read_are_not_taken_for_none() -> None:
    found = health([kube.pod("a", "web")], None, HERE, NOW)
    assert found.verdict == "The only pod in namespace web is ready; warnings may not be read."


def test_warnings_about_pods_that_are_gone_are_left_out_but_not_those_about_their_makers() -> None:
    refused = kube.event("web-5d4", "2026-01-02T23:59:00Z", "exceeded quota", namespace="web")
    refused["involvedObject"]["kind"] = "ReplicaSet"
    events = [refused, *(kube.event(name, "2026-01-02T23:59:00Z", "m", namespace="web") for name in ("here", "gone"))]
    pods = [kube.pod("here", "web")]

    def names(*, these_only: bool) -> list[str]:
        return [event["involvedObject"]["name"] for event in about_these(pods, events, these_only=these_only)]

    assert names(these_only=False) == ["web-5d4", "here"]
    assert names(these_only=True) == ["here"]
