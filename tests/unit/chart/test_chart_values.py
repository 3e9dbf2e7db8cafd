"""The chart's values: documented, checked, and with an effect."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from chart_helm import CHART, lint, only, render, render_text, try_template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Values that Kubernetes describes; what is below them is no value of this chart.
KUBERNETES_OBJECTS = {
    "operator.resources", "operator.affinity", "operator.podSecurityContext", "operator.securityContext",
}  # fmt: skip
KUBERNETES_KEYS = {path.rsplit(".", 1)[1] for path in KUBERNETES_OBJECTS}
# Values whose keys the schema knows and of which none is set.
MAPS = {
    "image.digests", "monitoring.scrapers.namespaceSelector", "monitoring.scrapers.podSelector",
    *(f"mcpServers.{server}.pod" for server in VALUES["mcpServers"]),
}  # fmt: skip


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").removeprefix("#/definitions/")
    return {**SCHEMA["definitions"][name], **node} if name else node


def schema_nodes(schema: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    found = {}
    for name, node in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        if where != "global":
            found[where] = node
            if where not in KUBERNETES_OBJECTS | MAPS:
                found |= schema_nodes(resolved(node), where)
    return found


def value_paths(values: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        where = f"{path}.{name}".lstrip(".")
        found.add(where)
        if isinstance(value, dict) and where not in KUBERNETES_OBJECTS:
            found |= value_paths(value, where)
    return found


def undocumented(text: str) -> list[str]:
    """Return the keys of a values.yaml that have no comment directly above them."""
    bare, below = [], None
    previous = ""
    for line in text.splitlines():
        key = re.match(r"( *)(\w+):", line)
        if key:
            indent = len(key[1])
            if below is not None and indent <= below:
                below = None
            if below is None and not previous.strip().startswith("#"):
                bare.append(line.strip())
            if below is None and key[2] in KUBERNETES_KEYS:
                below = indent
        previous = line
    return bare


def operator_pod(*arguments: str) -> dict[str, Any]:
    template = only(render(*arguments), "Deployment", "ropewalk-operator")["spec"]["template"]
    assert isinstance(template, dict)
    return template


def operator_environment(*arguments: str) -> dict[str, str]:
    container = operator_pod(*arguments)["spec"]["containers"][0]
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_lint_finds_nothing() -> None:
    done = lint()
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_value_is_documented_in_values_yaml() -> None:
    assert undocumented((CHART / "values.yaml").read_text()) == []


def test_a_value_without_a_comment_is_found() -> None:
    assert undocumented("# a comment\na: 1\nb: 2\n") == ["b: 2"]


def test_the_schema_describes_exactly_the_values() -> None:
    nodes = schema_nodes(SCHEMA)
    assert set(nodes) == value_paths(VALUES)
    assert [path for path, node in nodes.items() if not node.get("description")] == []


@pytest.mark.parametrize(
    "path",
    ["", *(path for path, node in schema_nodes(SCHEMA).items() if resolved(node).get("additionalProperties") is False)],
)
def test_an_unknown_key_is_refused_at_every_level(path: str) -> None:
    done = try_template("--set", f"{path}.notAValue=1".lstrip("."))
    assert done.returncode != 0
    assert "'notAValue' not allowed" in done.stderr


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("image.registry=https://example.com", "/image/registry"),
        ("image.registry=", "/image/registry"),
        ("image.tag=a b", "/image/tag"),
        ("fullnameOverride=A", "/fullnameOverride"),
        ("extraObjects[0].kind=Secret", "/extraObjects/0"),
        ("operator.extraEnv[0].valu=x", "/operator/extraEnv/0"),
        ("operator.extraVolumeMounts[0].name=x", "/operator/extraVolumeMounts/0"),
        ("operator.securityContext.capabilites=x", "/operator/securityContext"),
        ("operator.podSecurityContext.runAsUser=root", "/operator/podSecurityContext/runAsUser"),
        ("operator.networkPolicy.apiServer.ports={0}", "/operator/networkPolicy/apiServer/ports/0"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.pullSecrets[0]=key", "/image/pullSecrets/0"),
        ("operator.image=https://example.com/operator:1", "/operator/image"),
        ("operator.logLevel=loud", "/operator/logLevel"),
        ("operator.replicas=-1", "/operator/replicas"),
        ("operator.workers=0", "/operator/workers"),
        ("operator.resyncSeconds=1", "/operator/resyncSeconds"),
        ("operator.resources.memory=1Gi", "/operator/resources"),
        ("operator.tolerations[0].efect=NoSchedule", "/operator/tolerations/0"),
        (r"operator.podLabels.app\.kubernetes\.io/name=mine", "/operator/podLabels"),
        ("watchNamespaces={a,a}", "/watchNamespaces"),
        ("watchNamespaces={A}", "/watchNamespaces/0"),
        ("monitoring.podMonitor.interval=often", "/monitoring/podMonitor/interval"),
        ("monitoring.podMonitor.interval=0s", "/monitoring/podMonitor/interval"),
        ("monitoring.podMonitor.interval=61s", "/monitoring/podMonitor/interval"),
        ("monitoring.podMonitor.interval=2m", "/monitoring/podMonitor/interval"),
        ("monitoring.podMonitor.interval=1m30s", "/monitoring/podMonitor/interval"),
        ("crds.enabled=maybe", "/crds/enabled"),
        ("mcpServers.math.name=Math", "/mcpServers/math/name"),
        ("mcpServers.math.replicas=-1", "/mcpServers/math/replicas"),
        ("mcpServers.math.pod.image=a/b:1", "/mcpServers/math/pod"),
        ("mcpServers.websearch.baseURL=ftp://example.com", "/mcpServers/websearch/baseURL"),
        ("mcpServers.prometheus.url=prometheus:9090", "/mcpServers/prometheus/url"),
        ("mcpServers.prometheus.tokenSecret.key=", "/mcpServers/prometheus/tokenSecret/key"),
        ("mcpServers.kubernetes.namespaces={a,a}", "/mcpServers/kubernetes/namespaces"),
        ("mcpServers.kubernetes.scope=everything", "/mcpServers/kubernetes/scope"),
        ("mcpServers.kubernetes.apiServer.ports={0}", "/mcpServers/kubernetes/apiServer/ports/0"),
        ("mcpServers.kubernetes.apiServer.cidrs={anywhere}", "/mcpServers/kubernetes/apiServer/cidrs/0"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, named: str) -> None:
    done = try_template("--set", value)
    assert done.returncode != 0
    assert f"at '{named}'" in done.stderr


def test_registry_and_tag_can_be_changed_for_all_images_at_once() -> None:
    arguments = ("--set", "image.registry=example.com:5000/mirror,image.tag=edge")
    images = set(re.findall(r"'image': '([^']+)'", repr(render(*arguments))))
    images |= {value for name, value in operator_environment(*arguments).items() if name.endswith("_IMAGE")}
    names = ("operator", "agent", "demo-model", "mcp-math", "mcp-stdio")
    assert images == {f"example.com:5000/mirror/{name}:edge" for name in names}


def test_the_operator_reads_its_settings_from_the_environment() -> None:
    assert operator_environment() == {
        "ROPEWALK_AGENT_IMAGE": "ropewalk.dev/agent:0.1.0",
        "ROPEWALK_STDIO_IMAGE": "ropewalk.dev/mcp-stdio:0.1.0",
        "ROPEWALK_IMAGE_PULL_POLICY": "IfNotPresent",
        "ROPEWALK_WATCH_NAMESPACES": "",
        "ROPEWALK_WORKERS": "8",
        "ROPEWALK_RESYNC_SECONDS": "600",
        "ROPEWALK_FIXED_USER": "true",
        "ROPEWALK_PORT": "8080",
        "ROPEWALK_LOG_LEVEL": "info",
        "ROPEWALK_LEASE_NAMESPACE": "",
        "ROPEWALK_LEASE_NAME": "ropewalk-operator",
        "POD_NAME": "",
        "POD_UID": "",
    }


def test_each_pod_says_who_it_is() -> None:
    (container,) = operator_pod()["spec"]["containers"]
    environment = {each["name"]: each for each in container["env"]}
    for variable, field in (
        ("ROPEWALK_LEASE_NAMESPACE", "metadata.namespace"),
        ("POD_NAME", "metadata.name"),
        ("POD_UID", "metadata.uid"),
    ):
        assert environment[variable]["valueFrom"]["fieldRef"]["fieldPath"] == field


def test_pod_monitors_give_the_labels_that_the_dashboards_use() -> None:
    objects = render("--set", "monitoring.podMonitor.enabled=true")
    monitor = only(objects, "PodMonitor", "ropewalk-agents")
    assert monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == "agent"
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "http"
    relabelings = {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]}
    assert relabelings == {
        "agent": ["__meta_kubernetes_pod_label_ropewalk_dev_agent"],
        "namespace": ["__meta_kubernetes_namespace"],
        "pod": ["__meta_kubernetes_pod_name"],
    }
    operator = only(objects, "PodMonitor", "ropewalk-operator")
    labels = operator_pod()["metadata"]["labels"]
    assert operator["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_every_level_of_the_schema_is_closed() -> None:
    levels = {path: resolved(node) for path, node in schema_nodes(SCHEMA).items()}
    of_objects = {path for path, node in levels.items() if node.get("type") == "object"}
    # Maps have keys of the user's own; a schema says what their values are.
    assert [path for path in sorted(of_objects) if "additionalProperties" not in levels[path]] == []


def test_the_variables_that_are_refused_are_those_that_the_chart_sets() -> None:
    variables = SCHEMA["properties"]["operator"]["properties"]["extraEnv"]["items"]["properties"]["name"]
    all_of_them = operator_environment("--set", "monitoring.scrapers.namespaceSelector.matchLabels.a=b")
    assert set(variables["not"]["enum"]) == set(all_of_them)


def test_a_digest_can_be_given_for_every_image_that_the_chart_names() -> None:
    keys = yaml.safe_load((CHART / "values.yaml").read_text())["mcpServers"]
    on = ",".join(f"mcpServers.{key}.enabled=true" for key in keys)
    text = render_text("--set", f"{on},mcpServers.prometheus.url=http://prometheus:9090")
    named = set(re.findall(r"(?<![\w.])ropewalk\.dev/([a-z-]+):", text))
    assert set(SCHEMA["properties"]["image"]["properties"]["digests"]["properties"]) == named
