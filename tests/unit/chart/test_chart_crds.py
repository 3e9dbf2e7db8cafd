"""The CRDs keep Kubernetes' API conventions, and the chart brings exactly those of crds/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chart_helm import CHART, CRDS, of_kind, render

FILES = sorted(CRDS.glob("*.yaml"))
Node = tuple[str, dict[str, Any]]


def schema(file: str) -> dict[str, Any]:
    crd = yaml.safe_load((CRDS / file).read_text())
    found = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert isinstance(found, dict)
    return found


def nodes(node: dict[str, Any], path: str) -> Iterator[Node]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def all_nodes() -> list[Node]:
    """Every node of spec and status; what is above them, Kubernetes describes."""
    found: list[Node] = []
    for file in FILES:
        for part in ("spec", "status"):
            found += nodes(schema(file.name)["properties"][part], f"{file.stem}.{part}")
    return found


def named(claim: Any) -> list[str]:
    return [path for path, node in all_nodes() if claim(node)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_chart_holds_an_exact_copy(file: Any) -> None:
    copy = CHART / "files" / "crds" / file.name
    assert copy.read_bytes() == file.read_bytes(), f"run {CHART.name}/sync-crds"


def test_the_chart_holds_no_other_crd() -> None:
    assert [each.name for each in sorted((CHART / "files" / "crds").iterdir())] == [each.name for each in FILES]


def test_the_rendered_crds_differ_only_by_the_policy_to_keep_them() -> None:
    rendered = of_kind(render(), "CustomResourceDefinition")
    for each in rendered:
        assert each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == [yaml.safe_load(file.read_text()) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_plain_apply_takes_the_file(file: Any) -> None:
    # kubectl apply keeps the object in an annotation, and annotations end at 256 KiB.
    assert file.stat().st_size < 256 * 1024


def test_every_field_is_described() -> None:
    assert named(lambda node: not node.get("description", "").strip().endswith(".")) == []


def test_every_list_says_how_it_is_merged() -> None:
    def lacking(node: dict[str, Any]) -> bool:
        kind = node.get("x-kubernetes-list-type")
        if node.get("type") != "array":
            return False
        return kind not in {"atomic", "set", "map"} or (kind == "map") != ("x-kubernetes-list-map-keys" in node)

    assert named(lacking) == []


def test_every_list_and_every_map_is_bounded() -> None:
    assert named(lambda node: node.get("type") == "array" and "maxItems" not in node) == []
    assert named(lambda node: "additionalProperties" in node and "maxProperties" not in node) == []


def test_every_text_is_bounded() -> None:
    def unbounded(node: dict[str, Any]) -> bool:
        text = node.get("type") == "string" or "x-kubernetes-int-or-string" in node
        return text and not {"maxLength", "enum", "format"} & set(node)

    assert named(unbounded) == []


def test_every_number_is_whole_and_bounded() -> None:
    assert named(lambda node: node.get("type") == "number") == []
    assert named(lambda node: node.get("type") == "integer" and not {"minimum", "format"} <= set(node)) == []
    open_above = named(lambda node: node.get("type") == "integer" and "maximum" not in node)
    assert [path for path in open_above if ".spec" in path] == []


def test_unknown_fields_are_taken_only_where_a_model_or_kubernetes_itself_judges_them() -> None:
    found = set(named(lambda node: "x-kubernetes-preserve-unknown-fields" in node))
    # Kubernetes' own, which comes back as a condition where it is wrong.
    pods = {
        "pod.affinity", "pod.topologySpreadConstraints[]", "pod.topologySpreadConstraints[].labelSelector",
        "networkPolicy.extraEgress[].to[].podSelector", "networkPolicy.extraEgress[].to[].namespaceSelector",
        "pod.volumes[]",
        *(
            f"pod.volumes[].{kind}"
            for kind in (
                "configMap", "secret", "projected", "downwardAPI", "emptyDir", "persistentVolumeClaim", "ephemeral",
                "csi",
            )
        ),
    }  # fmt: skip
    assert found == {
        *(
            f"{path}parameters"
            for path in ("agent.spec.model.", "agent.spec.model.fallbacks[].", "model.spec.", "model.spec.fallbacks[].")
        ),
        "agent.spec.outputSchema",
        *(f"{kind}.spec.{path}" for kind in ("agent", "mcpserver") for path in pods),
    }


def test_a_fallback_has_the_fields_and_the_rules_of_the_model() -> None:
    model = schema("agent.yaml")["properties"]["spec"]["properties"]["model"]
    fallback = model["properties"].pop("fallbacks")["items"]
    for each in (model, fallback):
        each.pop("description")
    assert json.loads(json.dumps(model).replace("spec.model.", "")) == fallback


def test_a_model_has_the_fields_and_the_rules_of_an_agents_own() -> None:
    own = schema("agent.yaml")["properties"]["spec"]["properties"]["model"]
    shared = schema("model.yaml")["properties"]["spec"]
    for each in (own, shared):
        each.pop("description")
    text = json.dumps(own).replace("fields of spec.model.", "fields of the spec.").replace("spec.model.", "spec.")
    text = text.replace(
        "give the pod AWS credentials by spec.pod", "give the pods of its Agents AWS credentials by their spec.pod"
    )
    assert json.loads(text) == shared


def test_every_rule_has_a_message() -> None:
    rules = [rule for _, node in all_nodes() for rule in node.get("x-kubernetes-validations", [])]
    assert rules
    assert [rule["rule"] for rule in rules if not rule.get("message")] == []


def test_no_phase() -> None:
    assert [path for path, _ in all_nodes() if path.endswith("phase")] == []


def test_agents_and_mcp_servers_take_the_same_settings_for_what_they_have_in_common() -> None:
    agent, mcpserver = (schema(name)["properties"]["spec"]["properties"] for name in ("agent.yaml", "mcpserver.yaml"))
    # An agent's image may be replaced. A token is mounted in one of them only, and each has variables of its own.
    agent["pod"]["properties"].pop("image")
    # An MCP server has no queue.
    agent["autoscaling"]["properties"].pop("targetQueueDepth")
    for spec in (agent, mcpserver):
        spec["pod"]["properties"]["serviceAccountName"].pop("description")
        spec["pod"]["properties"]["env"].pop("x-kubernetes-validations")
        for field in ("autoscaling", "networkPolicy", "replicas"):
            spec[field].pop("description")
    for field in ("pod", "autoscaling", "networkPolicy", "replicas"):
        assert agent[field] == mcpserver[field]
