"""Agents and Kubernetes' own autoscaler, the real one: it scales by what waits, and by way of the Agent itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apiserver import ApiServer
from operator_namespace import Namespace
from operator_pod_metrics import serving_pod_metrics
from operator_process import OperatorProcess
from waiting import until

# The autoscaler learns of new kinds every 30 s.
SCALED_SECONDS = 90
SHARED = {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}


def replicas(namespace: Namespace, kind: str, name: str) -> int:
    return int((namespace.get(kind, name) or {})["spec"]["replicas"])


@pytest.mark.timeout(240)
def test_requests_that_wait_bring_more_pods(
    server: ApiServer, operator: OperatorProcess, namespace: Namespace, tmp_path: Path
) -> None:
    with serving_pod_metrics(server, tmp_path) as metrics:
        metrics.value = 5
        namespace.agent(sessions=SHARED, autoscaling={"minReplicas": 1, "maxReplicas": 7, "targetQueueDepth": 5})
        pod = until(lambda: namespace.kubectl("get", "pod", "-o", "name").strip(), "a pod is made")
        namespace.make_ready(pod)
        asked = f"{namespace.name}/ropewalk_agent_queue_depth"
        until(lambda: asked in metrics.asked, "the autoscaler asks how many requests wait", SCALED_SECONDS)
        assert replicas(namespace, "deployment", "calc-agent") == 1
        metrics.value = 20
        until(lambda: replicas(namespace, "deployment", "calc-agent") > 1, "there are more pods", SCALED_SECONDS)
        before = replicas(namespace, "deployment", "calc-agent")
        done = operator.metric("ropewalk_operator_reconcile_total", kind="Agent")
        namespace.kubectl("annotate", "agent", "calc", "touched=yes")
        until(
            lambda: operator.metric("ropewalk_operator_reconcile_total", kind="Agent") > done,
            "the operator has looked at it",
        )
        assert replicas(namespace, "deployment", "calc-agent") >= before
        assert replicas(namespace, "agent", "calc") == 1, "nobody has touched the Agent"


@pytest.mark.timeout(180)
def test_an_autoscaler_without_metrics_is_told(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent(sessions=SHARED, autoscaling={"minReplicas": 1})
    namespace.make_ready(until(lambda: namespace.kubectl("get", "pod", "-o", "name").strip(), "a pod is made"))
    said = "1 of 1 pods of this spec are ready; its autoscaler leaves it at that: "
    until(
        lambda: namespace.condition("agent", "calc", "Available").get("message", "").startswith(said),
        "there is no metrics server, and the Agent says so",
        SCALED_SECONDS,
    )
    message = namespace.condition("agent", "calc", "Available")["message"]
    assert "unable to get metrics for resource" in message or "metrics API" in message
    assert namespace.condition("agent", "calc", "Available")["status"] == "True"


@pytest.mark.timeout(180)
def test_an_autoscaler_of_the_users_own_scales_the_agent_itself(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent(sessions=SHARED)
    until(lambda: namespace.get("deployment", "calc-agent"), "the Deployment is made")
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "mine"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "name": "calc"},
            "minReplicas": 3,
            "maxReplicas": 5,
        },
    }
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(autoscaler))
    until(lambda: replicas(namespace, "agent", "calc") == 3, "the autoscaler scales the Agent", SCALED_SECONDS)
    until(lambda: replicas(namespace, "deployment", "calc-agent") == 3, "and the operator the Deployment")
    namespace.agent(sessions=SHARED, systemPrompt="Something else.")
    until(lambda: "Something else." in str(namespace.get("configmap", "calc-agent")), "an edit arrives")
    assert replicas(namespace, "agent", "calc") == 3, "an edit that names no replicas leaves them alone"


def test_a_deployment_that_was_scaled_by_hand_is_as_its_agent_says(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent(sessions=SHARED)
    until(lambda: namespace.get("deployment", "calc-agent"), "the Deployment is made")
    namespace.kubectl("scale", "agent", "calc", "--replicas=2")
    until(lambda: replicas(namespace, "deployment", "calc-agent") == 2, "scaling the Agent arrives")
    namespace.kubectl("scale", "deployment", "calc-agent", "--replicas=5")
    until(lambda: replicas(namespace, "deployment", "calc-agent") == 2, "scaling its Deployment is put back")
    until(lambda: "DriftCorrected" in namespace.kubectl("get", "events"), "and told")
