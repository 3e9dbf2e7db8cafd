"""Status as a table: a row is a sentence, what is known, and the condition that follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operator_world import pod as pod_body
from ropewalk_operator import status
from ropewalk_operator.facts import Discovered, Facts, ServerView, Tool, Workload, workload
from ropewalk_operator.pods import Pod, Trouble, missing, pod

NOW = 1_767_225_600.0
DEPLOYED = Workload(generation=2, observed_generation=2, replicas=1, updated=1, available=1, ready=1)
ROLLING = replace(DEPLOYED, replicas=2, updated=1, available=1, ready=1)


def seen(**fields: Any) -> Pod:
    found = pod(pod_body(**fields))
    assert found is not None
    return found


READY = seen(ready=True)
OLD = seen(config_hash="old", ready=True)
FACTS = Facts("Agent", "calc", 3, url="http://u", selector="s", deployment=DEPLOYED, config_hash="new", pods=(READY,))
PULLING = seen(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}})
MISSING_KEY = seen(state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "k" not found'}})
CRASHED = seen(
    state={"waiting": {"reason": "CrashLoopBackOff"}},
    last={"exitCode": 2, "message": "the agent cannot start: systemPrompt is empty"},
    restarts=4,
)
HOMELESS = replace(seen(scheduled=False), trouble=Trouble("Unschedulable", "no node takes the pod: 0/3 nodes"))
UNREADY = seen(state={"running": {}})
DOWN = ServerView("math", True, False, "0 of 1 pods of this spec are ready")

ROWS: list[tuple[str, Facts, str, str, str, str]] = [
    # sentence, facts, condition, status, reason, words in the message
    ("a ready pod of the current spec is available", FACTS, "Available", "True", "Available", "1 of 1 pods"),
    ("an agent that is well is ready", FACTS, "Ready", "True", "Ready", "answers at http://u"),
    (
        "a spec that is invalid is not accepted",
        replace(FACTS, invalid="spec.x is -1"),
        "Accepted",
        "False",
        "InvalidSpec",
        "spec.x is -1",
    ),
    (
        "of a spec that is not accepted nothing is available",
        replace(FACTS, invalid="bad"),
        "Available",
        "False",
        "NotAccepted",
        "1 pod goes on answering",
    ),
    (
        "the tools of a spec that is not accepted are unknown",
        replace(FACTS, invalid="bad"),
        "ToolsReady",
        "Unknown",
        "NotAccepted",
        "",
    ),
    (
        "a missing server is named",
        replace(FACTS, missing_servers=("math",)),
        "Accepted",
        "False",
        "McpServerNotFound",
        '"math"',
    ),
    (
        "a missing server is missing to the tools too",
        replace(FACTS, missing_servers=("math",)),
        "ToolsReady",
        "False",
        "McpServerNotFound",
        '"math"',
    ),
    (
        "a missing prompt is named",
        replace(FACTS, prompt_problem="no prompt"),
        "Accepted",
        "False",
        "SystemPromptNotFound",
        "no prompt",
    ),
    (
        "a taken name is named",
        replace(FACTS, taken=("Service calc-agent",)),
        "Accepted",
        "False",
        "ChildNameTaken",
        "Service calc-agent",
    ),
    (
        "a required server that is down is named with its own words",
        replace(FACTS, servers=(DOWN,)),
        "ToolsReady",
        "False",
        "McpServerNotReady",
        '"math": 0 of 1 pods',
    ),
    (
        "a required server that is down makes the agent unready",
        replace(FACTS, servers=(DOWN,)),
        "Ready",
        "False",
        "McpServerNotReady",
        '"math"',
    ),
    (
        "an optional server that is down costs nothing",
        replace(FACTS, servers=(replace(DOWN, required=False),)),
        "Ready",
        "True",
        "Ready",
        "",
    ),
    (
        "an image that cannot be pulled is named while old pods go on",
        replace(FACTS, deployment=ROLLING, pods=(PULLING, OLD)),
        "Ready",
        "False",
        "ImagePullFailed",
        "wants credentials; 1 old pod goes on answering",
    ),
    (
        "several old pods are counted",
        replace(FACTS, pods=(PULLING, OLD, replace(OLD, uid="2"))),
        "Available",
        "False",
        "ImagePullFailed",
        "2 old pods go on answering",
    ),
    (
        "a missing Secret is reported in the pod's words",
        replace(FACTS, pods=(MISSING_KEY,)),
        "Available",
        "False",
        "SecretNotFound",
        'secret "k" not found; create the Secret with that key',
    ),
    (
        "a crash loop is quoted",
        replace(FACTS, pods=(CRASHED,)),
        "Available",
        "False",
        "CrashLoop",
        "exit code 2, restarted 4 times; its last words: the agent cannot start",
    ),
    (
        "a pod without a node says so",
        replace(FACTS, pods=(HOMELESS,)),
        "Available",
        "False",
        "Unschedulable",
        "0/3 nodes",
    ),
    (
        "what /ready says is quoted",
        replace(FACTS, pods=(UNREADY,), extra_trouble={UNREADY.uid: Trouble("NotReady", "not ready: model")}),
        "Available",
        "False",
        "NotReady",
        "not ready: model",
    ),
    (
        "what /ready says comes before how the last container ended",
        replace(FACTS, pods=(CRASHED,), extra_trouble={CRASHED.uid: Trouble("NotReady", "not ready: model")}),
        "Available",
        "False",
        "NotReady",
        "model",
    ),
    (
        "a quota is quoted, and a way out is told",
        replace(FACTS, pods=(), deployment=replace(DEPLOYED, available=0, failure="exceeded quota: pods=0")),
        "Available",
        "False",
        "QuotaExceeded",
        "exceeded quota: pods=0; raise the ResourceQuota",
    ),
    (
        "a refusal of the Pod Security Standard is quoted, and a way out is told",
        replace(FACTS, pods=(), deployment=replace(DEPLOYED, available=0, failure='violates PodSecurity "restricted"')),
        "Available",
        "False",
        "PodSecurityRefused",
        'violates PodSecurity "restricted"; remove from spec.pod what is refused',
    ),
    (
        "a refusal of any other policy is quoted",
        replace(FACTS, pods=(), deployment=replace(DEPLOYED, available=0, failure="denied by policy cats")),
        "Available",
        "False",
        "PodsRefused",
        "denied by policy cats; change what is refused",
    ),
    (
        "a quota that only keeps old pods from being replaced leaves no Ready behind",
        replace(FACTS, pods=(OLD,), deployment=replace(ROLLING, failure="exceeded quota: pods=1")),
        "Ready",
        "False",
        "QuotaExceeded",
        "1 old pod goes on answering",
    ),
    (
        "a refused child is quoted",
        replace(FACTS, refused=("Service calc-agent: no",)),
        "Available",
        "False",
        "ChildRefused",
        "Service calc-agent: no; change that in the spec, or what refuses it",
    ),
    (
        "a rollout that takes too long has failed",
        replace(FACTS, pods=(OLD,), deployment=replace(ROLLING, available=0, deadline_exceeded=True)),
        "Available",
        "False",
        "RolloutFailed",
        "0 of 1 pods of this spec are ready, and no progress is made; see kubectl describe deployment calc-agent; 1 o",
    ),
    (
        "a rollout whose pod runs and never answers names the pod",
        replace(FACTS, pods=(OLD, UNREADY), deployment=replace(ROLLING, available=0, deadline_exceeded=True)),
        "Ready",
        "False",
        "RolloutFailed",
        "pod calc-new runs, and does not answer as the readiness probe wants: see kubectl logs calc-new",
    ),
    (
        "pods of an earlier spec do not count",
        replace(FACTS, pods=(OLD,)),
        "Available",
        "False",
        "Progressing",
        "0 of 1 pods",
    ),
    (
        "a Deployment that has not seen the spec does not count",
        replace(FACTS, deployment=replace(DEPLOYED, observed_generation=1)),
        "Available",
        "False",
        "Progressing",
        "",
    ),
    (
        "a pod that is being deleted does not count",
        replace(FACTS, pods=(replace(READY, deleting=True),)),
        "Available",
        "False",
        "Progressing",
        "0 of 1",
    ),
    (
        "all pods that are wanted must be ready",
        replace(FACTS, replicas=2),
        "Available",
        "False",
        "Progressing",
        "1 of 2",
    ),
    (
        "a Deployment that was deleted is being made",
        replace(FACTS, deployment=None, pods=()),
        "Available",
        "False",
        "Progressing",
        "being created",
    ),
    (
        "a suspended agent is not ready and accepted all the same",
        replace(FACTS, replicas=0, suspended=True, pods=()),
        "Ready",
        "False",
        "Suspended",
        "spec.suspend",
    ),
    (
        "a suspended agent is accepted",
        replace(FACTS, replicas=0, suspended=True, pods=()),
        "Accepted",
        "True",
        "Accepted",
        "",
    ),
    (
        "an agent without replicas is not ready",
        replace(FACTS, replicas=0, pods=()),
        "Ready",
        "False",
        "ScaledToZero",
        "spec.replicas is 0",
    ),
    ("a note is shown", replace(FACTS, note="each replica"), "Accepted", "True", "Accepted", "each replica"),
    (
        "children of a former owner are waited for",
        replace(FACTS, waiting=("Service calc-agent",)),
        "Available",
        "False",
        "WaitingForDeletion",
        "Service calc-agent of a former owner of this name is still being deleted; if that does not end",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_conditions_follow_from_facts(row: tuple[str, Facts, str, str, str, str]) -> None:
    sentence, facts, type_, wanted, reason, words = row
    found = condition(status.agent_status(facts, {}, NOW), type_)
    assert (found["status"], found["reason"]) == (wanted, reason), sentence
    assert words in found["message"]
    assert found["observedGeneration"] == 3


def condition(of: dict[str, Any], type_: str) -> dict[str, Any]:
    return next(each for each in of["conditions"] if each["type"] == type_)


def test_a_transition_time_changes_with_the_status_only() -> None:
    first = status.agent_status(FACTS, {}, NOW)
    later = status.agent_status(replace(FACTS, note="other words"), first, NOW + 60)
    assert condition(later, "Accepted")["lastTransitionTime"] == condition(first, "Accepted")["lastTransitionTime"]
    assert condition(later, "Accepted")["message"] == "other words"
    last = status.agent_status(replace(FACTS, invalid="bad"), later, NOW + 120)
    assert condition(last, "Accepted")["lastTransitionTime"] == "2026-01-01T00:02:00Z"


def test_the_same_facts_need_no_patch_and_other_facts_patch_what_changed() -> None:
    first = status.agent_status(FACTS, {}, NOW)
    assert status.changed(first, status.agent_status(FACTS, first, NOW + 60)) is None
    assert status.changed({**first, "old": 1}, {**first, "url": "http://v"}) == {"old": None, "url": "http://v"}


SERVER = Facts("MCPServer", "math", 3, url="http://m", deployment=DEPLOYED, config_hash="new", pods=(READY,))
FOUND = Discovered((Tool("add", "adds", "sha256:1"),), "2025-11-25", "math", "1.0")


def test_a_server_that_has_listed_its_tools_is_ready() -> None:
    found = status.mcp_status(replace(SERVER, discovered=FOUND), {}, NOW)
    assert {c["type"]: c["status"] for c in found["conditions"]}["Ready"] == "True"
    assert found["toolCount"] == 1
    assert found["serverInfo"] == {"name": "math", "version": "1.0"}
    assert found["lastDiscoveryTime"] == "2026-01-01T00:00:00Z"
    assert condition(found, "Ready")["message"] == "1 tool at http://m"


def test_a_server_that_has_not_been_asked_is_not_ready() -> None:
    found = status.mcp_status(replace(SERVER, discovery_pending=True), {}, NOW)
    assert condition(found, "ToolsDiscovered")["status"] == "Unknown"
    assert condition(found, "Ready")["status"] == "False"


def test_a_failed_discovery_keeps_the_tools_that_were_known() -> None:
    first = status.mcp_status(replace(SERVER, discovered=FOUND), {}, NOW)
    failed = status.mcp_status(replace(SERVER, discovery_error="boom"), first, NOW + 60)
    assert failed["tools"] == first["tools"]
    assert condition(failed, "ToolsDiscovered")["reason"] == "DiscoveryFailed"


def test_the_discovery_time_moves_with_news_and_now_and_then_only() -> None:
    first = status.mcp_status(replace(SERVER, discovered=FOUND), {}, NOW)
    soon = status.mcp_status(replace(SERVER, discovered=FOUND), first, NOW + 60)
    assert soon == first
    news = status.mcp_status(replace(SERVER, discovered=replace(FOUND, server_version="2")), first, NOW + 60)
    assert news["lastDiscoveryTime"] == "2026-01-01T00:01:00Z"
    later = status.mcp_status(replace(SERVER, discovered=FOUND), first, NOW + 4000)
    assert later["lastDiscoveryTime"] != first["lastDiscoveryTime"]


def test_a_remote_server_needs_no_pods() -> None:
    remote = replace(SERVER, remote=True, deployment=None, pods=(), replicas=0, config_hash=None, discovered=FOUND)
    found = status.mcp_status(remote, {}, NOW)
    assert condition(found, "Available")["reason"] == "Remote"
    assert {c["type"]: c["status"] for c in found["conditions"]}["Ready"] == "True"


def test_a_deployment_status_is_read_with_its_failures() -> None:
    conditions = [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"},
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
    ]
    read = workload(4, {"observedGeneration": 4, "updatedReplicas": 2, "conditions": conditions})
    assert (read.failure, read.deadline_exceeded, read.updated) == ("exceeded quota", True, 2)


def test_last_words_are_cut_to_their_end() -> None:
    words = "x" * 5000 + "the end"
    crashed = seen(state={"terminated": {"exitCode": 1, "message": words}})
    assert crashed.trouble is not None
    assert "the end; see kubectl logs" in crashed.trouble.message
    assert len(crashed.trouble.message) < 1000


def test_last_words_leave_out_the_log_lines_before_them() -> None:
    log = '{"level": "info", "message": "agent starting"}'
    crashed = seen(state={"terminated": {"exitCode": 1, "message": f"{log}\nit is broken"}}, restarts=2)
    assert crashed.trouble is not None
    assert "restarted 2 times; its last words: it is broken; see kubectl logs calc-new --previous" in (
        crashed.trouble.message
    )


def test_a_container_that_was_not_restarted_yet_has_no_previous_log() -> None:
    crashed = seen(state={"terminated": {"exitCode": 1}}, restarts=0)
    assert crashed.trouble is not None
    assert crashed.trouble.message == (
        "the container ended with exit code 1, not restarted yet; see kubectl logs calc-new"
    )


def test_log_lines_are_last_words_where_there_are_no_others() -> None:
    crashed = seen(state={"terminated": {"exitCode": 1, "message": '{"level": "error"}'}})
    assert crashed.trouble is not None
    assert 'its last words: {"level": "error"};' in crashed.trouble.message


@pytest.mark.parametrize(
    ("limit", "said"), [("64Mi", "its limit of 64Mi, restarted once"), (None, "its limit, restarted")]
)
def test_a_container_that_was_killed_for_its_memory_names_its_limit(limit: str | None, said: str) -> None:
    body = pod_body(state={"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "a log line"}}, restarts=1)
    body["spec"]["containers"][0]["resources"] = {"limits": {"memory": limit}} if limit else {}
    killed = pod(body)
    assert killed is not None
    assert killed.trouble is not None
    assert killed.trouble.reason == "OutOfMemory"
    assert f"more memory than {said}" in killed.trouble.message
    assert killed.trouble.message.endswith("raise spec.pod.resources.limits.memory")


def test_an_image_that_cannot_be_pulled_has_the_same_message_at_each_attempt_and_between_them() -> None:
    said = "failed to resolve reference: no such host"
    between = f'Back-off pulling image "ropewalk.dev/agent:0.1.0": ErrImagePull: {said}'
    one = seen(state={"waiting": {"reason": "ErrImagePull", "message": said}})
    other = seen(state={"waiting": {"reason": "ImagePullBackOff", "message": between}})
    assert one.trouble == other.trouble
    assert one.trouble is not None
    assert one.trouble.message.startswith(
        f"the image ropewalk.dev/agent:0.1.0 cannot be pulled: {said}; check its name"
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('MountVolume.SetUp failed for volume "model-key" : secret "k" not found', "SecretNotFound"),
        ('MountVolume.SetUp failed for volume "model-key" : references non-existent secret key: k', "SecretNotFound"),
        ("couldn't find key k in Secret default/s", "SecretNotFound"),
        ('configmap "c" not found', "ConfigMapNotFound"),
        ("references non-existent config key: k", "ConfigMapNotFound"),
        ("couldn't find key k in ConfigMap default/c", "ConfigMapNotFound"),
        ("the volume is attached elsewhere", None),
    ],
)
def test_what_a_pod_lacks_is_read_from_the_words_of_the_kubelet(said: str, reason: str | None) -> None:
    found = missing(said)
    assert (found and found.reason) == reason
    assert found is None or found.message.startswith(f"{said}; create the ")


def test_an_unschedulable_pod_quotes_the_scheduler() -> None:
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no cpu"}
    body = pod_body(scheduled=False)
    body["status"]["conditions"] = [said]
    found = pod(body)
    assert found is not None
    assert found.trouble is not None
    assert found.trouble.reason == "Unschedulable"
    assert found.trouble.message.startswith("no node takes the pod: 0/1 nodes: no cpu; add a node")


def test_a_pod_of_nobody_is_none() -> None:
    body = pod_body()
    body["metadata"]["labels"] = {}
    assert pod(body) is None
