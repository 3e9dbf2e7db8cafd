"""Children of MCPServers and autoscaled Agents on a real API server: stdio pods, autoscalers, budgets, network rules.

No autoscaler runs here (there are no metrics): where one has scaled, the test writes the scale as it does.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from operator_namespace import Namespace
from operator_process import OperatorProcess
from waiting import until

STDIO = {"stdio": {"image": "ropewalk.dev/mcp-math:0.1.0", "command": ["/server"], "args": ["--stdio"]}}
IMAGE = {"image": "ropewalk.dev/mcp-math:0.1.0"}
AUTOSCALING = {"minReplicas": 3, "maxReplicas": 9}


def found(namespace: Namespace, kind: str, name: str = "math-mcp") -> dict[str, Any]:
    """The object, once it is there."""
    return until(lambda: namespace.get(kind, name) or {}, f"the {kind} {name} exists")


def deployment(namespace: Namespace, name: str = "math-mcp") -> dict[str, Any]:
    return found(namespace, "deployment", name)


def owners_of_replicas(namespace: Namespace) -> set[str]:
    text = namespace.kubectl("get", "deployment", "math-mcp", "-o", "json", "--show-managed-fields")
    entries = json.loads(text)["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if "f:replicas" in entry["fieldsV1"].get("f:spec", {})}


def is_let_go(namespace: Namespace) -> bool:
    # Before anybody has scaled it, nobody owns it or the manager that holds it does; after that the autoscaler does.
    return "ropewalk-operator" not in owners_of_replicas(namespace)


def scale(namespace: Namespace, replicas: int) -> None:
    """What a HorizontalPodAutoscaler does: an update of the subresource."""
    namespace.kubectl("scale", "deployment/math-mcp", f"--replicas={replicas}")


class Watched:
    """Every number of replicas that the Deployment has had since."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._since = deployment(namespace)["metadata"]["resourceVersion"]

    def seen(self) -> list[int]:
        """All of them, up to that of the newest version at this moment."""
        newest = deployment(self._namespace)["metadata"]["resourceVersion"]
        seen = until(lambda: self._versions(newest), "the API server has told of every version")
        return [each["spec"]["replicas"] for each in seen]

    def _versions(self, newest: str) -> list[dict[str, Any]]:
        """Those that a second brings; none when that was too short for `newest`."""
        path = f"/apis/apps/v1/namespaces/{self._namespace.name}/deployments"
        query = f"?watch=true&resourceVersion={self._since}&timeoutSeconds=1&fieldSelector=metadata.name%3Dmath-mcp"
        lines = self._namespace.kubectl("get", "--raw", path + query).splitlines()
        told = [json.loads(line)["object"] for line in lines]
        return told if newest in {each["metadata"]["resourceVersion"] for each in told} else []


def reconciled(namespace: Namespace) -> bool:
    body = namespace.get("mcpserver", "math") or {}
    return bool(body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"])


def test_a_stdio_server_gets_a_pod_with_the_bridge_in_it(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.apply("MCPServer", "math", STDIO)
    pod = deployment(namespace)["spec"]["template"]["spec"]
    (first,), (main,) = pod["initContainers"], pod["containers"]
    assert first["command"] == ["/ropewalk/bin/ropewalk-mcp-stdio", "install", "/bridge"]
    assert main["command"][-3:] == ["--", "/server", "--stdio"]
    assert {"name": "bridge", "mountPath": "/ropewalk", "readOnly": True} in main["volumeMounts"]
    until(lambda: reconciled(namespace), "it is reconciled")
    before = namespace.at_rest()["Deployment/math-mcp"]
    # An edit elsewhere wakes the operator: a pod that the API server has filled with defaults is no drift to it.
    namespace.apply("MCPServer", "other", STDIO)
    until(lambda: namespace.get("deployment", "other-mcp"), "the other one is made")
    assert namespace.at_rest()["Deployment/math-mcp"] == before


@pytest.mark.parametrize(("before", "after"), [(1, 3), (5, 5)])
def test_replicas_pass_to_an_autoscaler_and_never_fall(
    before: int, after: int, operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.apply("MCPServer", "math", {**IMAGE, "replicas": before})
    until(lambda: deployment(namespace)["spec"]["replicas"] == before, "as many as asked for")
    watched = Watched(namespace)
    namespace.apply("MCPServer", "math", {**IMAGE, "autoscaling": AUTOSCALING})
    until(lambda: is_let_go(namespace), "the operator lets go")
    until(lambda: reconciled(namespace), "it is reconciled")
    assert set(watched.seen()) == {after}
    autoscaler = namespace.get("hpa", "math-mcp") or {}
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (3, 9)
    scale(namespace, 7)
    namespace.apply("MCPServer", "math", {**IMAGE, "autoscaling": AUTOSCALING, "args": ["--verbose"]})
    until(lambda: "--verbose" in str(deployment(namespace)["spec"]), "an edit arrives")
    assert deployment(namespace)["spec"]["replicas"] == 7
    until(lambda: "of 7 pods" in namespace.condition("MCPServer", "math", "Available")["message"], "7 are wanted")


def test_a_new_autoscaled_server_begins_with_the_fewest_pods(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.apply("MCPServer", "math", {**IMAGE, "autoscaling": AUTOSCALING})
    assert deployment(namespace)["spec"]["replicas"] == 3
    until(lambda: is_let_go(namespace), "the operator lets go")
    assert deployment(namespace)["spec"]["replicas"] == 3
    found(namespace, "poddisruptionbudget")


def test_from_autoscaling_back_to_replicas_no_pod_is_lost_on_the_way(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.apply("MCPServer", "math", {**IMAGE, "autoscaling": AUTOSCALING})
    deployment(namespace)
    until(lambda: is_let_go(namespace), "the operator lets go")
    scale(namespace, 8)
    watched = Watched(namespace)
    namespace.apply("MCPServer", "math", {**IMAGE, "replicas": 6})
    until(lambda: deployment(namespace)["spec"]["replicas"] == 6, "as many as asked for")
    until(lambda: namespace.get("hpa", "math-mcp") is None, "the autoscaler is gone")
    assert set(watched.seen()) <= {8, 6}
    scale(namespace, 1)
    until(lambda: deployment(namespace)["spec"]["replicas"] == 6, "replicas are the operator's again")
    namespace.apply("MCPServer", "math", {**IMAGE, "replicas": 1})
    until(lambda: namespace.get("poddisruptionbudget", "math-mcp") is None, "one pod needs no budget")


def test_an_operator_that_was_killed_half_way_finishes_the_handing_over(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.apply("MCPServer", "math", {**IMAGE, "replicas": 4})
    deployment(namespace)
    operator.kill()
    namespace.apply("MCPServer", "math", {**IMAGE, "autoscaling": AUTOSCALING})
    held = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "math-mcp"}, "spec": {"replicas": 4},
    }  # fmt: skip
    manager = "--field-manager=ropewalk-operator-replicas"
    namespace.kubectl("apply", "--server-side", "--force-conflicts", manager, "-f", "-", stdin=json.dumps(held))
    watched = Watched(namespace)
    operator.start()
    until(lambda: is_let_go(namespace), "the operator lets go")
    until(lambda: reconciled(namespace), "it is reconciled")
    assert set(watched.seen()) <= {4}
    assert deployment(namespace)["spec"]["replicas"] == 4


def test_what_kubernetes_refuses_of_a_pod_is_told_in_its_words(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.apply("MCPServer", "math", {**IMAGE, "pod": {"affinity": {"nodeAffinty": {}}}})
    until(lambda: namespace.condition("MCPServer", "math", "Available").get("reason") == "ChildRefused", "it is told")
    assert "nodeAffinty" in namespace.condition("MCPServer", "math", "Available")["message"]
    namespace.apply("MCPServer", "math", {**IMAGE, "pod": {"affinity": {"nodeAffinity": {}}}})
    deployment(namespace)


def test_the_whole_pod_surface_settles_without_a_further_write(operator: OperatorProcess, namespace: Namespace) -> None:
    pod = {
        "envFrom": [{"prefix": "A_", "configMapRef": {"name": "settings", "optional": True}}],
        "volumes": [
            {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "b", "optional": True}}]}},
            {"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}}},
        ],
        "volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": False}, {"name": "b", "mountPath": "/b"}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "priorityClassName": "system-node-critical",
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
    }  # fmt: skip
    egress = [
        {
            "to": [{"podSelector": {"matchExpressions": []}, "namespaceSelector": {}}],
            "ports": [{"port": 1, "endPort": 9}],
        },
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": []}}], "ports": []},
        {},
    ]
    spec = {**IMAGE, "autoscaling": {}, "pod": pod, "networkPolicy": {"extraEgress": egress}}
    namespace.apply("MCPServer", "math", spec)
    deployment(namespace)
    until(lambda: reconciled(namespace), "it is reconciled")
    assert namespace.condition("MCPServer", "math", "Available")["reason"] == "Progressing"
    assert f"Deployment {namespace.name}/math-mcp" not in changed_by_the_api_server(operator)
    assert f"NetworkPolicy {namespace.name}/math-mcp" not in changed_by_the_api_server(operator)


def changed_by_the_api_server(operator: OperatorProcess) -> str:
    """Of which objects the operator says that they are other than it applied them."""
    return " ".join(line for line in operator.log().splitlines() if "the API server changed what was applied" in line)


def test_network_rules_that_are_switched_off_go_and_come_back(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.apply("MCPServer", "math", IMAGE)
    until(lambda: namespace.get("networkpolicy", "math-mcp"), "there are rules")
    namespace.apply("MCPServer", "math", {**IMAGE, "networkPolicy": {"enabled": False}})
    until(lambda: namespace.get("networkpolicy", "math-mcp") is None, "they are gone")
    namespace.apply("MCPServer", "math", IMAGE)
    until(lambda: namespace.get("networkpolicy", "math-mcp"), "they are back")


def test_a_server_with_a_session_for_each_client_keeps_its_clients_at_their_pod(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    spec = {"stdio": {**STDIO["stdio"], "sessionMode": "perSession"}}
    namespace.apply("MCPServer", "math", spec)
    assert found(namespace, "service")["spec"]["sessionAffinity"] == "ClientIP"
