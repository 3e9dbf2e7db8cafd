"""Every pod of the chart meets the restricted Pod Security Standard and says when it is well."""

from __future__ import annotations

from typing import Any

from chart_helm import is_test_hook, of_kind, only, render


def pods(*arguments: str) -> dict[str, dict[str, Any]]:
    objects = render(*arguments)
    found = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "Pod")}
    for each in of_kind(objects, "Deployment"):
        found[each["metadata"]["name"]] = each["spec"]["template"]["spec"]
    return found


def test_every_pod_is_restricted() -> None:
    found = pods()
    assert set(found) == {"ropewalk-operator", "ropewalk-test-demo-model", "ropewalk-test-ask"}
    for name, spec in found.items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_only_the_operator_holds_a_token() -> None:
    holders = {name for name, spec in pods().items() if spec["automountServiceAccountToken"]}
    assert holders == {"ropewalk-operator"}


def test_every_container_asks_for_resources_and_is_bounded_in_memory() -> None:
    for name, spec in pods().items():
        for container in spec["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name


def test_the_operator_is_asked_for_health_and_readiness() -> None:
    spec = pods()["ropewalk-operator"]
    (container,) = spec["containers"]
    assert container["startupProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert spec["terminationGracePeriodSeconds"] == 30


def test_mcp_servers_recognise_the_operators_pod() -> None:
    template = only(render(), "Deployment", "ropewalk-operator")["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "ropewalk-operator"


def test_what_helm_test_makes_is_named_for_it_and_removed_after_it() -> None:
    hooks = [each for each in render() if is_test_hook(each)]
    assert {(each["kind"], each["metadata"]["name"]) for each in hooks} == {
        ("Deployment", "ropewalk-test-demo-model"),
        ("Service", "ropewalk-test-demo-model"),
        ("MCPServer", "ropewalk-test-math"),
        ("Agent", "ropewalk-test-calculator"),
        ("Pod", "ropewalk-test-ask"),
    }
    for hook in hooks:
        annotations = hook["metadata"]["annotations"]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    by_weight = sorted(hooks, key=lambda each: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]))
    assert [each["kind"] for each in by_weight][2:] == ["MCPServer", "Agent", "Pod"]


def test_helm_test_prints_what_the_pod_said_before_it_is_removed() -> None:
    pod = only(render(), "Pod", "ropewalk-test-ask")
    assert pod["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-succeeded,hook-failed"


def test_helm_test_works_in_a_namespace_that_the_operator_watches() -> None:
    def namespaces(*arguments: str) -> set[str]:
        return {each["metadata"]["namespace"] for each in render(*arguments) if is_test_hook(each)}

    assert namespaces() == {"ropewalk-system"}
    assert namespaces("--set", "watchNamespaces={a,b}") == {"a"}
    assert namespaces("--set", "watchNamespaces={a,ropewalk-system}") == {"ropewalk-system"}


def test_the_agent_of_helm_test_uses_what_helm_test_makes() -> None:
    objects = render()
    spec = only(objects, "Agent", "ropewalk-test-calculator")["spec"]
    service = only(objects, "Service", "ropewalk-test-demo-model")
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert spec["model"]["baseURL"] == f"http://{name}:{port}/v1"
    assert [each["name"] for each in spec["mcpServers"]] == ["ropewalk-test-math"]
    (container,) = only(objects, "Pod", "ropewalk-test-ask")["spec"]["containers"]
    assert container["args"][0] == "http://ropewalk-test-calculator-agent:8080"
