"""Models that Agents share, with the operator as a process beside a real API server: an edit rolls each Agent once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apiserver import ApiServer
from operator_namespace import MODEL, Namespace
from operator_process import OperatorProcess
from waiting import until

MANY = 50
SHARED = {"systemPrompt": "You help.", "modelRef": {"name": "house"}}


def agents(namespace: Namespace, count: int) -> list[str]:
    """Apply so many Agents that share the Model, without pods, of which there would be news again and again."""
    names = [f"a{number:02}" for number in range(count)]
    spec = {**SHARED, "replicas": 0}
    bodies = [
        {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}
        for name in names
    ]
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))
    return names


def generations(namespace: Namespace) -> dict[str, int]:
    """Of each Deployment, how many specs it has had."""
    items = json.loads(namespace.kubectl("get", "deployments", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in items}


def asked_models(namespace: Namespace) -> list[str]:
    """The model in the settings file of each Agent."""
    items = json.loads(namespace.kubectl("get", "configmaps", "-l", "ropewalk.dev/agent", "-o", "json"))["items"]
    return [json.loads(item["data"]["agent.json"])["model"]["id"] for item in items]


def statuses(namespace: Namespace) -> list[str]:
    return namespace.kubectl("get", "agents", "-o", "jsonpath={.items[*].status.model}").split()


def applies(operator: OperatorProcess) -> float:
    return operator.metric("ropewalk_operator_api_requests_total", verb="APPLY")


def reconciles(operator: OperatorProcess) -> float:
    return operator.metric("ropewalk_operator_reconcile_total")


@pytest.fixture
def operator_of(server: ApiServer, namespace: Namespace, tmp_path: Path) -> OperatorProcess:
    """An operator of this namespace alone, so that its writes can be counted."""
    places = {"ROPEWALK_WATCH_NAMESPACES": namespace.name, "ROPEWALK_LEASE_NAMESPACE": namespace.name}
    return OperatorProcess(server.kubeconfig, tmp_path / "log", **places)


@pytest.mark.timeout(180)
def test_an_edit_rolls_each_of_many_agents_exactly_once_and_a_restart_writes_nothing(
    operator_of: OperatorProcess, namespace: Namespace
) -> None:
    operator = operator_of.start()
    try:
        namespace.apply("Model", "house", {**MODEL, "id": "first"})
        names = agents(namespace, MANY)
        until(lambda: len(generations(namespace)) == MANY, "all Deployments exist")
        until(lambda: statuses(namespace) == ["first"] * MANY, "all are judged")
        namespace.at_rest()
        assert set(generations(namespace).values()) == {1}
        before = applies(operator)
        namespace.apply("Model", "house", {**MODEL, "id": "second"})
        until(lambda: statuses(namespace) == ["second"] * MANY, "all are judged anew")
        namespace.at_rest()
        assert asked_models(namespace) == ["second"] * MANY
        assert generations(namespace) == {f"{name}-agent": 2 for name in names}, "each has rolled once"
        assert applies(operator) - before == 2 * MANY, "a ConfigMap and a Deployment each, once"
        operator.stop()
        operator.start()
        until(lambda: reconciles(operator) >= MANY + 1, "the new process has looked at all of them")
        assert operator.writes() == 0, operator.log()
    finally:
        operator.kill()


def test_a_missing_model_is_told_and_the_running_pods_are_left_alone(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.apply("Agent", "calc", SHARED)
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("reason") == "ModelNotFound", "it waits")
    assert not namespace.children()
    namespace.apply("Model", "house", MODEL)
    until(lambda: namespace.condition("agent", "calc", "Accepted")["status"] == "True", "the agent is accepted")
    until(lambda: namespace.get("deployment", "calc-agent"), "the Deployment is made")
    pod = until(lambda: namespace.kubectl("get", "pod", "-o", "name").strip(), "a pod is made")
    namespace.make_ready(pod)
    until(lambda: namespace.condition("agent", "calc", "Ready").get("status") == "True", "the agent is ready")
    before = namespace.get("deployment", "calc-agent")
    namespace.kubectl("delete", "model", "house")
    until(lambda: namespace.condition("agent", "calc", "Ready").get("reason") == "ModelNotFound", "it is told")
    message = namespace.condition("agent", "calc", "Accepted")["message"]
    assert '"house"' in message
    assert "create it, or name another one" in message
    assert "1 pod goes on answering" in namespace.condition("agent", "calc", "Available")["message"]
    after = namespace.get("deployment", "calc-agent")
    assert before is not None
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    namespace.apply("Model", "house", MODEL)
    until(lambda: namespace.condition("agent", "calc", "Ready").get("status") == "True", "the agent is ready again")
    assert (namespace.get("deployment", "calc-agent") or {})["metadata"]["generation"] == after["metadata"][
        "generation"
    ]


def test_what_only_the_operator_sees_is_told_on_the_model_and_on_its_agents(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.apply("Model", "house", {**MODEL, "baseURL": "http://server:99999/v1"})
    namespace.apply("Agent", "calc", SHARED)
    until(lambda: namespace.condition("model", "house", "Ready").get("reason") == "InvalidSpec", "the Model is judged")
    assert "http://server:99999/v1" in namespace.condition("model", "house", "Accepted")["message"]
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("reason") == "InvalidSpec", "so is the Agent")
    assert (
        'names the Model "house", which cannot be used' in namespace.condition("agent", "calc", "Accepted")["message"]
    )
    namespace.apply("Model", "house", MODEL)
    until(lambda: namespace.condition("model", "house", "Ready").get("status") == "True", "the Model is ready")
    until(lambda: namespace.condition("agent", "calc", "Accepted")["status"] == "True", "the Agent is accepted")
    status = (namespace.get("model", "house") or {})["status"]
    assert status["observedGeneration"] == 2
    assert {each["observedGeneration"] for each in status["conditions"]} == {2}


def test_the_key_of_a_model_is_mounted_from_a_secret_beside_the_agent(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    key = {"name": "anthropic", "key": "api-key"}
    namespace.apply("Model", "house", {"provider": "anthropic", "id": "m", "apiKeySecretRef": key})
    namespace.apply("Agent", "calc", SHARED)
    deployment = until(lambda: namespace.get("deployment", "calc-agent"), "the Deployment is made")
    volumes = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["model-key"]["secret"]["secretName"] == "anthropic"
