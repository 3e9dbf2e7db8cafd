"""The chart's values: documented, checked, and with an effect."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from chart_helm import CHART, lint, of_kind, only, render, try_template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Values that Kubernetes describes; what is below them is no value of this chart.
KUBERNETES_OBJECTS = {"operator.resources", "operator.affinity"}


def schema_nodes(schema: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    found = {}
    for name, node in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        if where != "global":
            found[where] = node
            if where not in KUBERNETES_OBJECTS:
                found |= schema_nodes(node, where)
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
            if below is None and key[2] == "resources":
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
    "path", ["", *(path for path, node in schema_nodes(SCHEMA).items() if node.get("type") == "object")]
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


def test_images_come_from_the_registry_with_the_release_as_their_tag() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert operator_pod()["spec"]["containers"][0]["image"] == f"ropewalk.dev/operator:{version}"
    assert operator_environment()["ROPEWALK_AGENT_IMAGE"] == f"ropewalk.dev/agent:{version}"


def test_registry_and_tag_can_be_changed_for_all_images_at_once() -> None:
    arguments = ("--set", "image.registry=example.com:5000/mirror,image.tag=edge")
    images = set(re.findall(r"'image': '([^']+)'", repr(render(*arguments))))
    images |= {value for name, value in operator_environment(*arguments).items() if name.endswith("_IMAGE")}
    names = ("operator", "agent", "demo-model", "mcp-math", "mcp-stdio")
    assert images == {f"example.com:5000/mirror/{name}:edge" for name in names}


def test_each_image_can_be_replaced_as_a_whole() -> None:
    arguments = (
        "--set",
        "operator.image=a/operator@sha256:0,agent.image=b/agent:1,stdio.image=e/stdio:1,test.demoModelImage=c/model:2,test.mathImage=d/math:3",
    )
    objects = render(*arguments)
    assert operator_pod(*arguments)["spec"]["containers"][0]["image"] == "a/operator@sha256:0"
    assert operator_environment(*arguments)["ROPEWALK_AGENT_IMAGE"] == "b/agent:1"
    assert operator_environment(*arguments)["ROPEWALK_STDIO_IMAGE"] == "e/stdio:1"
    assert only(objects, "Pod", "ropewalk-test-ask")["spec"]["containers"][0]["image"] == "b/agent:1"
    model = only(objects, "Deployment", "ropewalk-test-demo-model")
    assert model["spec"]["template"]["spec"]["containers"][0]["image"] == "c/model:2"
    assert only(objects, "MCPServer", "ropewalk-test-math")["spec"]["image"] == "d/math:3"


def test_the_operator_reads_its_settings_from_the_environment() -> None:
    assert operator_environment() == {
        "ROPEWALK_AGENT_IMAGE": "ropewalk.dev/agent:0.1.0",
        "ROPEWALK_STDIO_IMAGE": "ropewalk.dev/mcp-stdio:0.1.0",
        "ROPEWALK_IMAGE_PULL_POLICY": "IfNotPresent",
        "ROPEWALK_WATCH_NAMESPACES": "",
        "ROPEWALK_WORKERS": "8",
        "ROPEWALK_RESYNC_SECONDS": "600",
        "ROPEWALK_PORT": "8080",
        "ROPEWALK_LOG_LEVEL": "info",
        "ROPEWALK_LEASE_NAMESPACE": "",
        "ROPEWALK_LEASE_NAME": "ropewalk-operator",
        "POD_NAME": "",
        "POD_UID": "",
    }


def test_settings_of_the_operator_follow_the_values() -> None:
    environment = operator_environment(
        "--set", "watchNamespaces={a,b},operator.workers=3,operator.resyncSeconds=86400,operator.logLevel=debug"
    )
    assert environment["ROPEWALK_WATCH_NAMESPACES"] == "a,b"
    assert environment["ROPEWALK_WORKERS"] == "3"
    assert environment["ROPEWALK_RESYNC_SECONDS"] == "86400"
    assert environment["ROPEWALK_LOG_LEVEL"] == "debug"


def test_the_operators_pod_takes_what_the_values_say() -> None:
    pod = operator_pod(
        "--set",
        "operator.podLabels.team=ops,operator.podAnnotations.note=x,operator.nodeSelector.disk=fast,"
        "operator.tolerations[0].key=only,operator.priorityClassName=high,image.pullSecrets[0].name=key,"
        "operator.affinity.nodeAffinity.a=b,operator.resources.limits.memory=1Gi",
    )
    assert pod["metadata"]["labels"]["team"] == "ops"
    assert pod["metadata"]["annotations"] == {"note": "x"}
    spec = pod["spec"]
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "only"}]
    assert spec["affinity"] == {"nodeAffinity": {"a": "b"}}
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "key"}]
    assert spec["containers"][0]["resources"]["limits"]["memory"] == "1Gi"


def test_an_existing_service_account_can_be_used() -> None:
    arguments = ("--set", "serviceAccount.create=false,serviceAccount.name=mine")
    objects = render(*arguments)
    assert of_kind(objects, "ServiceAccount") == []
    assert operator_pod(*arguments)["spec"]["serviceAccountName"] == "mine"
    binding = only(objects, "ClusterRoleBinding", "ropewalk-operator")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "mine", "namespace": "ropewalk-system"}]


def test_one_operator_is_alone_even_during_an_upgrade() -> None:
    spec = only(render(), "Deployment", "ropewalk-operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert "topologySpreadConstraints" not in spec["template"]["spec"]
    assert of_kind(render(), "PodDisruptionBudget") == []


def test_of_several_operators_one_is_always_there_and_they_are_apart() -> None:
    objects = render("--set", "operator.replicas=2")
    spec = only(objects, "Deployment", "ropewalk-operator")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = only(objects, "PodDisruptionBudget", "ropewalk-operator")
    assert budget["metadata"]["namespace"] == "ropewalk-system"
    assert budget["spec"] == {"maxUnavailable": 1, "selector": spec["selector"]}
    constraints = spec["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for each in constraints:
        assert each["whenUnsatisfiable"] == "ScheduleAnyway", "a cluster of one node runs both"
        assert each["labelSelector"] == spec["selector"]


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
    objects = render("--set", "monitoring.podMonitor.enabled=true,monitoring.podMonitor.labels.release=prometheus")
    monitor = only(objects, "PodMonitor", "ropewalk-agents")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
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


def test_pod_monitors_are_made_only_when_asked_for_as_clusters_may_lack_their_crd() -> None:
    assert of_kind(render(), "PodMonitor") == []


def test_the_dashboards_can_be_left_out() -> None:
    assert len(of_kind(render(), "ConfigMap")) == 4
    assert of_kind(render("--set", "monitoring.dashboards.enabled=false"), "ConfigMap") == []
