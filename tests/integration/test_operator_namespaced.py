"""The operator with the rights that the chart gives it in one namespace, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apiserver import ApiServer
from chart_helm import of_kind, render
from operator_namespace import MODEL, Namespace
from operator_process import OperatorProcess
from waiting import until

ACCOUNT = "ropewalk-operator"


@pytest.fixture
def confined(server: ApiServer, namespace: Namespace, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator as the chart's ServiceAccount for this namespace."""
    roles = of_kind(render("--set", f"watchNamespaces={{{namespace.name}}}"), "Role", "RoleBinding")
    for role in roles:
        # The release, and with it the operator's Lease, is in this namespace too.
        role["metadata"]["namespace"] = namespace.name
        for subject in role.get("subjects", ()):
            subject["namespace"] = namespace.name
    namespace.kubectl("create", "serviceaccount", ACCOUNT)
    namespace.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(roles))
    config = json.loads(server.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    for user in config["users"]:
        user["user"] = {"token": namespace.kubectl("create", "token", ACCOUNT).strip()}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    process = OperatorProcess(
        kubeconfig,
        tmp_path / "log",
        ROPEWALK_WATCH_NAMESPACES=namespace.name,
        ROPEWALK_LEASE_NAMESPACE=namespace.name,
    )
    try:
        yield process.start()
    finally:
        process.stop()


def test_rights_in_one_namespace_are_enough(confined: OperatorProcess, server: ApiServer, namespace: Namespace) -> None:
    elsewhere = Namespace(server, f"{namespace.name}-not")
    for place in (elsewhere, namespace):
        place.apply("Model", "house", MODEL)
        place.apply("MCPServer", "math", {"image": "ropewalk.dev/mcp-math:0.1.0", "replicas": 2})
        place.apply(
            "Agent",
            "calc",
            {
                "systemPrompt": "You calculate.",
                "modelRef": {"name": "house"},
                "mcpServers": [{"name": "math"}],
                "sessions": {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}},
                "autoscaling": {},
            },
        )
        place.agent("keeper", sessions={"store": "file"})
    until(lambda: namespace.condition("model", "house", "Ready").get("status") == "True", "the Model is judged")
    until(lambda: namespace.condition("mcpserver", "math", "Accepted").get("status") == "True", "so is the MCPServer")
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("status") == "True", "so is the Agent")
    until(lambda: namespace.get("hpa", "calc-agent"), "it has its autoscaler")
    until(lambda: namespace.get("pdb", "calc-agent"), "it has its budget")
    until(lambda: namespace.get("pvc", "keeper-agent"), "the other has its volume")
    namespace.kubectl("delete", "model", "house")
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("reason") == "ModelNotFound", "it is told")
    until(lambda: "ModelNotFound" in namespace.kubectl("get", "events"), "an Event is recorded")
    refused = confined.metric("ropewalk_operator_api_requests_total", code="403")
    assert refused == 0, confined.log()
    assert not elsewhere.children(), "the other namespace is not its business"
