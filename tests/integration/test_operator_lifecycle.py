"""The operator as a process beside a real API server: children, edits, drift, deletion, restarts.

No pod ever runs here (there is no kubelet): where a test needs a status, it writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer
from operator_namespace import MODEL, Namespace
from operator_process import OperatorProcess
from waiting import until

POD = "/spec/template/spec"
# The garbage collector learns of new kinds every 30 s; before that it does not know what an Agent is.
COLLECTED_SECONDS = 100


ALL = {
    "configmap/calc-agent",
    "serviceaccount/calc-agent",
    "service/calc-agent",
    "deployment.apps/calc-agent",
    "networkpolicy.networking.k8s.io/calc-agent",
}


def test_an_agent_gets_its_children_and_an_edit_reaches_them(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    namespace.agent(systemPrompt="Be brief.")
    until(lambda: "Be brief." in str(namespace.get("configmap", "calc-agent")), "the edit arrives")
    namespace.kubectl("scale", "agent", "calc", "--replicas=0")
    until(lambda: (namespace.get("deployment", "calc-agent") or {})["spec"]["replicas"] == 0, "scaling arrives")


@pytest.mark.timeout(150)
def test_deleting_the_agent_leaves_no_child(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    namespace.kubectl("delete", "agent", "calc")
    until(lambda: not namespace.children(), "all children are gone", COLLECTED_SECONDS)
    until(
        lambda: not namespace.kubectl("get", "replicaset,pod", "-o", "name"), "their pods are gone", COLLECTED_SECONDS
    )
    assert not namespace.children()


@pytest.mark.timeout(150)
def test_deleting_the_agent_in_the_foreground_leaves_no_child(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    namespace.kubectl("delete", "agent", "calc", "--cascade=foreground")
    until(lambda: not namespace.children(), "all children are gone", COLLECTED_SECONDS)
    assert namespace.get("agent", "calc") is None


@pytest.mark.parametrize(
    ("kind", "patch", "path"),
    [
        ("deployment", [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil"}], "evil"),
        ("deployment", [{"op": "add", "path": f"{POD}/containers/-", "value": {"name": "evil", "image": "x"}}], "evil"),
        (
            "deployment",
            [{"op": "add", "path": f"{POD}/initContainers", "value": [{"name": "evil", "image": "x"}]}],
            "evil",
        ),
        ("deployment", [{"op": "add", "path": f"{POD}/hostNetwork", "value": True}], "hostNetwork"),
        ("deployment", [{"op": "add", "path": f"{POD}/containers/0/command", "value": ["evil"]}], "evil"),
        (
            "deployment",
            [{"op": "replace", "path": f"{POD}/automountServiceAccountToken", "value": True}],
            "Token': True",
        ),
        ("service", [{"op": "replace", "path": "/spec/ports/0/port", "value": 9999}], "9999"),
        ("configmap", [{"op": "replace", "path": "/data/agent.json", "value": "{intruder}"}], "intruder"),
        ("networkpolicy", [{"op": "add", "path": "/spec/egress/-", "value": {"ports": [{"port": 6666}]}}], "6666"),
        ("serviceaccount", [{"op": "replace", "path": "/automountServiceAccountToken", "value": True}], "Token': True"),
    ],
    ids=[
        "image",
        "sidecar",
        "init container",
        "host network",
        "command",
        "pod token",
        "port",
        "settings",
        "egress",
        "token",
    ],
)
def test_a_change_by_hand_is_put_back(
    kind: str, patch: Any, path: str, operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    namespace.kubectl("patch", kind, "calc-agent", "--type=json", "-p", json.dumps(patch))
    until(lambda: path not in str({**(namespace.get(kind, "calc-agent") or {}), "metadata": 0}), "it is put back")


def test_a_deleted_child_comes_back(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    for child in sorted(ALL):
        namespace.kubectl("delete", child, "--wait=false")
    until(lambda: namespace.children() == ALL, "all children are back")


def test_a_child_whose_label_was_removed_is_found_and_put_back(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    namespace.kubectl("label", "service", "calc-agent", "app.kubernetes.io/managed-by-")
    until(lambda: namespace.children() == ALL, "the label is back")
    namespace.kubectl("delete", "service", "calc-agent")
    until(lambda: namespace.children() == ALL, "and the Service is still watched")


def test_an_agent_waits_for_its_mcp_server_and_goes_on_by_itself(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent(mcpServers=[{"name": "math"}])
    accepted = until(lambda: namespace.condition("agent", "calc", "Accepted"), "the agent is judged")
    assert (accepted["status"], accepted["reason"]) == ("False", "McpServerNotFound")
    assert '"math"' in accepted["message"]
    assert not namespace.children()
    namespace.apply("MCPServer", "math", {"image": "ropewalk.dev/mcp-math:0.1.0"})
    until(lambda: namespace.children() >= ALL, "the children are made")
    until(lambda: namespace.condition("agent", "calc", "Accepted")["status"] == "True", "the agent is accepted")
    assert '"math"' in namespace.condition("agent", "calc", "ToolsReady")["message"]


def test_a_system_prompt_edited_in_its_config_map_reaches_the_agent(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    reference = {"configMapKeyRef": {"name": "prompts", "key": "calc"}}
    namespace.apply("Agent", "calc", {"systemPromptFrom": reference, "model": MODEL})
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("reason") == "SystemPromptNotFound", "it waits")
    namespace.kubectl("create", "configmap", "prompts", "--from-literal=calc=First.")
    until(lambda: "First." in str(namespace.get("configmap", "calc-agent")), "the prompt arrives")
    change = json.dumps({"data": {"calc": "Second."}})
    namespace.kubectl("patch", "configmap", "prompts", "--type=merge", "-p", change)
    until(lambda: "Second." in str(namespace.get("configmap", "calc-agent")), "the edit arrives")


@pytest.mark.parametrize("kind", ["serviceaccount", "configmap"])
def test_an_object_of_somebody_else_is_not_taken_over(
    kind: str, operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.kubectl("create", kind, "calc-agent")
    before = namespace.get(kind, "calc-agent")
    namespace.agent()
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("reason") == "ChildNameTaken", "it is noticed")
    assert "calc-agent" in namespace.condition("agent", "calc", "Accepted")["message"]
    assert namespace.get(kind, "calc-agent") == before
    namespace.kubectl("delete", kind, "calc-agent")
    until(lambda: namespace.children() == ALL, "the name is used once it is free")


def test_children_that_were_orphaned_are_adopted_again(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    uid = (namespace.get("service", "calc-agent") or {})["metadata"]["uid"]
    namespace.kubectl("delete", "agent", "calc", "--cascade=orphan")
    namespace.agent()
    agent_uid = (namespace.get("agent", "calc") or {})["metadata"]["uid"]

    def owner() -> str:
        references = (namespace.get("service", "calc-agent") or {})["metadata"].get("ownerReferences", [{}])
        return str(references[0].get("uid"))

    until(lambda: owner() == agent_uid, "the children have their new owner")
    assert (namespace.get("service", "calc-agent") or {})["metadata"]["uid"] == uid


def test_a_ready_pod_makes_the_agent_ready_and_a_lost_one_unready(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent()
    name = until(lambda: namespace.kubectl("get", "pod", "-o", "name").strip(), "a pod is made")
    namespace.make_ready(name)
    until(lambda: namespace.condition("agent", "calc", "Ready").get("status") == "True", "the agent is ready")
    status = (namespace.get("agent", "calc") or {})["status"]
    assert status["readyReplicas"] == 1
    assert status["observedGeneration"] == 1
    assert status["url"] == f"http://calc-agent.{namespace.name}.svc:8080"
    namespace.kubectl("delete", name, "--force", "--grace-period=0")
    until(lambda: namespace.condition("agent", "calc", "Ready")["status"] == "False", "the agent is not ready")


def test_a_broken_rollout_is_not_ready_while_old_pods_answer(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    old = until(lambda: namespace.kubectl("get", "pod", "-o", "name").strip(), "a pod is made")
    namespace.make_ready(old)
    until(lambda: namespace.condition("agent", "calc", "Ready").get("status") == "True", "the agent is ready")
    namespace.agent(systemPrompt="Something else.")
    new = until(lambda: set(namespace.kubectl("get", "pod", "-o", "name").split()) - {old}, "a new pod is made").pop()
    waiting = {"reason": "ImagePullBackOff", "message": "no such host"}
    container = {
        "name": "agent", "ready": False, "restartCount": 0, "image": "i", "imageID": "", "state": {"waiting": waiting},
    }  # fmt: skip
    status = {"status": {"containerStatuses": [container]}}
    namespace.kubectl("patch", new, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    until(lambda: namespace.condition("agent", "calc", "Ready").get("reason") == "ImagePullFailed", "it is reported")
    message = namespace.condition("agent", "calc", "Ready")["message"]
    assert "no such host" in message
    assert "1 old pod goes on answering" in message


def test_nothing_to_do_and_a_restart_write_nothing(
    server: ApiServer, operator: OperatorProcess, namespace: Namespace, tmp_path: Path
) -> None:
    namespace.apply("MCPServer", "math", {"image": "x"})
    resources = {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": 2}}
    pod = {"resources": resources, "env": [{"name": "EMPTY", "value": ""}], "nodeSelector": {"a": "b"}}
    for number in range(5):
        namespace.agent(f"calc-{number}", mcpServers=[{"name": "math"}], pod=pod)
    until(lambda: len(namespace.children()) == 29, "all children exist")
    before = namespace.at_rest()
    done = reconciles(operator)
    namespace.kubectl("annotate", "agents", "--all", "touched=yes")
    until(lambda: reconciles(operator) >= done + 5, "the operator has looked at all of them")
    after = namespace.at_rest()
    assert not_agents(after) == not_agents(before)
    again = OperatorProcess(
        server.kubeconfig,
        tmp_path / "log",
        ROPEWALK_WATCH_NAMESPACES=namespace.name,
        ROPEWALK_LEASE_NAMESPACE=namespace.name,
    ).start()
    try:
        until(lambda: reconciles(again) >= 6, "the new operator has looked at all of them")
        assert namespace.at_rest() == after
        assert again.writes() == 0, again.log()
    finally:
        assert again.stop() == 0


def reconciles(operator: OperatorProcess) -> float:
    return operator.metric("ropewalk_operator_reconcile_total")


def not_agents(versions: dict[str, str]) -> dict[str, str]:
    """Without the Agents, which the test itself has annotated."""
    return {name: version for name, version in versions.items() if not name.startswith("Agent/")}


def test_the_endpoints_tell_of_health_readiness_and_metrics(operator: OperatorProcess, namespace: Namespace) -> None:
    assert operator.get("/health")[0] == 200
    assert operator.get("/ready")[0] == 200
    namespace.agent()
    until(lambda: namespace.children() == ALL, "all children exist")
    until(
        lambda: operator.metric("ropewalk_resource_condition", namespace=namespace.name, condition="Accepted") == 1,
        "the condition is a metric",
    )
    text = operator.get("/metrics")[1]
    for name in ("reconcile_total", "reconcile_duration_seconds_bucket", "workqueue_depth", "api_requests_total"):
        assert f"ropewalk_operator_{name}" in text
    assert all(json.loads(line)["level"] for line in operator.log().splitlines())
