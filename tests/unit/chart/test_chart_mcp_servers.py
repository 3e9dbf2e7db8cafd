"""The MCP servers that values switch on: what is made of each, how far it may reach, and what it may see."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from chart_helm import CHART, is_test_hook, named, of_kind, only, render, render_text, try_template
from ropewalk_operator import api
from ropewalk_operator.render.networkpolicy import agent_policy

IMAGES = {
    "math": "mcp-math",
    "weatherForecast": "mcp-weather-forecast",
    "weatherHistorical": "mcp-weather-historical",
    "weatherAgricultural": "mcp-weather-agricultural",
    "websearch": "mcp-websearch",
    "prometheus": "mcp-prometheus",
    "kubernetes": "mcp-kubernetes",
}
SEES = {("pods", "get"), ("pods", "list"), ("pods/log", "get"), ("events", "list")}
Object = dict[str, Any]
Rules = list[Object]


def switched_on(key: str, *more: str) -> list[Object]:
    """Everything that the chart makes with one server switched on and with `more` values below it."""
    values = [f"{key}.enabled=true", *(f"{key}.{value}" for value in more)]
    if key == "prometheus" and not any(value.startswith("url=") for value in more):
        values.append("prometheus.url=http://prometheus.monitoring.svc:9090")
    return render("--set", ",".join(f"mcpServers.{value}" for value in values))


def server(key: str, *more: str) -> dict[str, Any]:
    """The spec of the one MCPServer that is made."""
    (found,) = servers(switched_on(key, *more))
    return dict(found["spec"])


def servers(objects: list[Object]) -> list[Object]:
    return [each for each in of_kind(objects, "MCPServer") if not is_test_hook(each)]


def egress(key: str, *more: str) -> Rules:
    return list(server(key, *more)["networkPolicy"]["extraEgress"])


def environment(key: str, *more: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in server(key, *more).get("pod", {}).get("env", [])}


def namespace_of(rule: dict[str, Any]) -> str:
    return str(rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])


def seen(role: Object) -> set[tuple[str, str]]:
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])
    return {(what, verb) for rule in role["rules"] for what in rule["resources"] for verb in rule["verbs"]}


def test_these_are_all_servers_that_values_know() -> None:
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())["mcpServers"]) == set(IMAGES)


def test_two_servers_of_one_name_are_refused() -> None:
    done = try_template(
        "--set", "mcpServers.math.enabled=true,mcpServers.websearch.enabled=true,mcpServers.math.name=websearch"
    )
    assert done.returncode != 0
    assert "mcpServers.math.name and mcpServers.websearch.name are both websearch" in done.stderr


def test_a_name_that_yaml_takes_for_a_truth_value_is_a_name() -> None:
    (made,) = servers(switched_on("math", "name=on"))
    assert made["metadata"]["name"] == "on"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://prometheus:9090", [{"to": [{"podSelector": {}}]}]),
        ("https://prometheus.example.com", [{"ports": [{"port": 443, "protocol": "TCP"}]}]),
        ("http://prometheus.example.com:9090/graph", [{"ports": [{"port": 9090, "protocol": "TCP"}]}]),
        ("http://[2001:db8::1]:9090", [{"ports": [{"port": 9090, "protocol": "TCP"}]}]),
        ("http://[2001:db8::1]", [{"ports": [{"port": 80, "protocol": "TCP"}]}]),
    ],
)
def test_the_prometheus_server_gets_out_to_its_prometheus(url: str, wanted: Rules) -> None:
    assert egress("prometheus", f"url={url}") == wanted
    assert environment("prometheus", f"url={url}") == {"ROPEWALK_PROMETHEUS_URL": url}


def test_a_service_of_another_namespace_is_reached_on_any_port_of_its_pods() -> None:
    (rule,) = egress("prometheus", "url=http://prometheus.monitoring.svc:80")
    assert namespace_of(rule) == "monitoring"
    assert "ports" not in rule


def test_two_labels_may_be_a_service_or_a_public_name() -> None:
    service, public = egress("prometheus", "url=http://prometheus.monitoring:9090")
    assert namespace_of(service) == "monitoring"
    assert public == {"ports": [{"port": 9090, "protocol": "TCP"}]}


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.b", "http://a.b:9090/path", "https://a.b.svc", "http://a.b.com", "https://[::1]:9"]
)
def test_the_chart_opens_the_way_that_the_operator_opens_for_the_same_address(url: str) -> None:
    spec = {"systemPrompt": "p", "model": {"provider": "openai-compatible", "id": "m", "baseURL": url}}
    metadata = {"name": "a", "namespace": "n", "uid": "u"}
    agent = api.agent({"kind": "Agent", "metadata": metadata, "spec": spec})
    assert agent.model is not None
    policy = agent_policy(agent, agent.model, {})
    _, *wanted = policy["spec"]["egress"]
    assert egress("prometheus", f"url={url}") == wanted


def test_what_a_pod_gets_from_the_values_comes_beside_what_the_chart_gives_it() -> None:
    more = ("pod.env[0].name=HTTPS_PROXY", "pod.env[0].value=http://proxy:3128", "pod.volumes[0].name=ca",
            "pod.volumeMounts[0].name=ca", "pod.volumeMounts[0].mountPath=/ca")  # fmt: skip
    pod = server("prometheus", "tokenSecret.name=metrics", *more)["pod"]
    told = {each["name"]: each["value"] for each in pod["env"]}
    assert told.pop("HTTPS_PROXY") == "http://proxy:3128"
    assert told == environment("prometheus", "tokenSecret.name=metrics")
    assert [each["name"] for each in pod["volumes"]] == ["token", "ca"]
    assert [each["mountPath"] for each in pod["volumeMounts"]] == ["/run/secrets/prometheus", "/ca"]


def test_a_pod_takes_every_field_of_the_resource_but_an_account() -> None:
    crd = yaml.safe_load((CHART / "files" / "crds" / "mcpserver.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["definitions"]["mcpPod"]["properties"]) == set(spec["pod"]["properties"]) - {"serviceAccountName"}


def test_a_namespace_that_nobody_watches_is_refused() -> None:
    done = try_template("--set", "mcpServers.math.enabled=true,watchNamespaces={a}")
    assert done.returncode != 0
    assert "namespace ropewalk-system, which watchNamespaces does not name" in done.stderr
    assert servers(render("--set", "mcpServers.math.enabled=true,watchNamespaces={a,ropewalk-system}"))


def test_the_kubernetes_server_sees_its_own_namespace_unless_told_more() -> None:
    objects = switched_on("kubernetes")
    role = only(objects, "Role", "ropewalk-kubernetes-tools")
    assert role["metadata"]["namespace"] == "ropewalk-system"
    assert seen(role) == SEES
    assert environment("kubernetes") == {"ROPEWALK_NAMESPACES": "ropewalk-system"}


def test_the_kubernetes_server_has_a_role_in_each_namespace_that_is_named() -> None:
    objects = switched_on("kubernetes", "namespaces={web,shop}")
    for kind in ("Role", "RoleBinding"):
        assert [each["metadata"]["namespace"] for each in named(objects, kind, "ropewalk-kubernetes-tools")] == [
            "web", "shop",
        ]  # fmt: skip
    assert environment("kubernetes", "namespaces={web,shop}") == {"ROPEWALK_NAMESPACES": "web,shop"}
    names = {each["metadata"]["name"] for each in of_kind(objects, "ClusterRole", "ClusterRoleBinding")}
    assert "ropewalk-kubernetes-tools" not in names


def test_the_kubernetes_server_sees_the_whole_cluster_when_told_so() -> None:
    objects = switched_on("kubernetes", "scope=cluster")
    role = only(objects, "ClusterRole", "ropewalk-kubernetes-tools")
    assert seen(role) == SEES | {("nodes", "list"), ("namespaces", "list")}
    assert named(objects, "Role", "ropewalk-kubernetes-tools") == []
    assert environment("kubernetes", "scope=cluster") == {}


def test_namespaces_that_would_narrow_nothing_are_refused() -> None:
    values = ("kubernetes.enabled=true", "kubernetes.scope=cluster", "kubernetes.namespaces={web,shop}")
    done = try_template("--set", ",".join(f"mcpServers.{value}" for value in values))
    assert done.returncode != 0
    assert "scope is cluster, which sees more than its namespaces web, shop" in done.stderr


@pytest.mark.parametrize("scope", ["namespaced", "cluster"])
def test_the_kubernetes_server_deletes_only_when_told_so(scope: str) -> None:
    objects = switched_on("kubernetes", f"scope={scope}", "allowDelete=true")
    kind = "Role" if scope == "namespaced" else "ClusterRole"
    assert ("pods", "delete") in seen(only(objects, kind, "ropewalk-kubernetes-tools"))
    told = environment("kubernetes", f"scope={scope}", "allowDelete=true")
    assert told["ROPEWALK_ALLOW_DELETE"] == "true"


@pytest.mark.parametrize("scope", ["namespaced", "cluster"])
def test_the_rights_of_the_kubernetes_server_go_to_its_own_account(scope: str) -> None:
    objects = switched_on("kubernetes", f"scope={scope}", "name=look")
    account = only(objects, "ServiceAccount", "ropewalk-look-tools")
    assert account["automountServiceAccountToken"] is False
    kind = "RoleBinding" if scope == "namespaced" else "ClusterRoleBinding"
    assert only(objects, kind, "ropewalk-look-tools")["subjects"] == [
        {"kind": "ServiceAccount", "name": "ropewalk-look-tools", "namespace": "ropewalk-system"}
    ]
    assert servers(objects)[0]["spec"]["pod"]["serviceAccountName"] == "ropewalk-look-tools"


def test_no_rights_are_given_to_it_when_somebody_else_gives_them() -> None:
    objects = render("--set", "mcpServers.kubernetes.enabled=true,rbac.create=false,rbac.aggregate=false")
    assert of_kind(objects, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") == []
    assert only(objects, "ServiceAccount", "ropewalk-kubernetes-tools")


def test_no_server_but_that_for_kubernetes_has_an_account_or_rights() -> None:
    values = ",".join(f"mcpServers.{key}.enabled=true" for key in IMAGES if key != "kubernetes")
    objects = render("--set", f"{values},mcpServers.prometheus.url=http://prometheus:9090")
    assert len(servers(objects)) == len(IMAGES) - 1
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    assert of_kind(objects, *kinds) == of_kind(render(), *kinds)


def test_a_cluster_that_knows_no_mcp_servers_is_given_none() -> None:
    values = ("--set", "mcpServers.math.enabled=true,mcpServers.kubernetes.enabled=true")
    unknown = render(*values, "--api-versions", "v1/Namespace")
    assert servers(unknown) == []
    assert of_kind(unknown, "ServiceAccount") == of_kind(render(), "ServiceAccount")
    known = ("--api-versions", "v1/Namespace", "--api-versions", "ropewalk.dev/v1alpha1/MCPServer")
    assert render_text(*values, *known) == render_text(*values)
