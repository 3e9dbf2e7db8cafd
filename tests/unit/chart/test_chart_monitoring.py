"""PodMonitors find the pods that the operator makes, and MCP servers let in who shall read their metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_helm import CHART, REPOSITORY, is_test_hook, of_kind, only, render, try_template
from ropewalk_operator import names, settings
from ropewalk_operator.api import mcp_server
from ropewalk_operator.render.mcpserver import mcp_children

ON = ("--set", "monitoring.podMonitor.enabled=true")


def labels_of_pods(**spec: Any) -> dict[str, str]:
    """The labels of the pods that the operator makes of an MCPServer."""
    body = {"kind": "MCPServer", "metadata": {"name": "m", "namespace": "n", "uid": "u"}, "spec": spec}
    made = mcp_children(mcp_server(body), stdio_image="bridge", pull_policy="Always")
    [deployment] = [each for each in made if each["kind"] == "Deployment"]
    return dict(deployment["spec"]["template"]["metadata"]["labels"])


def selected(labels: dict[str, str]) -> bool:
    monitor = only(render(*ON), "PodMonitor", "ropewalk-mcp-servers")
    wanted: dict[str, str] = monitor["spec"]["selector"]["matchLabels"]
    return wanted.items() <= labels.items()


def variables(*arguments: str) -> dict[str, str]:
    [container] = only(render(*arguments), "Deployment", "ropewalk-operator")["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_servers_over_stdio_are_scraped_and_images_that_may_have_no_metrics_are_not() -> None:
    assert selected(labels_of_pods(stdio={"image": "math:1", "command": ["math"]}))
    assert not selected(labels_of_pods(image="somebody/elses:1"))
    assert selected(labels_of_pods(image="mine:1", pod={"labels": {names.SCRAPED: "true"}}))


def test_all_servers_that_ship_are_scraped() -> None:
    on = yaml.safe_load((CHART / "values.yaml").read_text())["mcpServers"]
    flags = [f"mcpServers.{name}.enabled=true" for name in on]
    made = of_kind(render("--set", ",".join([*flags, "mcpServers.prometheus.url=http://p:9090"])), "MCPServer")
    servers = [each for each in made if not is_test_hook(each)]
    assert len(servers) == len(on)
    assert [each["metadata"]["name"] for each in servers if not selected(labels_of_pods(**each["spec"]))] == []


@pytest.mark.parametrize(
    "file", sorted(REPOSITORY.glob("examples/*/mcpserver.yaml")), ids=lambda file: file.parent.name
)
def test_each_server_of_an_example_that_has_metrics_is_scraped(file: Path) -> None:
    servers = [each for each in yaml.safe_load_all(file.read_text()) if each and each["kind"] == "MCPServer"]
    for each in servers:
        ours = each["spec"].get("image", "").startswith("ropewalk.dev/") or "stdio" in each["spec"]
        assert not ours or selected(labels_of_pods(**each["spec"])), each["metadata"]["name"]


def test_the_users_labels_of_a_server_that_ships_stay() -> None:
    objects = render("--set", "mcpServers.websearch.enabled=true,mcpServers.websearch.pod.labels.team=ai")
    labels = only(objects, "MCPServer", "websearch")["spec"]["pod"]["labels"]
    assert labels == {"team": "ai", names.SCRAPED: "true"}


def test_an_mcp_server_is_named_as_agents_name_it() -> None:
    monitor = only(render(*ON), "PodMonitor", "ropewalk-mcp-servers")["spec"]
    [endpoint] = monitor["podMetricsEndpoints"]
    assert (monitor["jobLabel"], endpoint["port"], endpoint["path"]) == (names.APP_NAME, names.PORT_NAME, "/metrics")
    assert {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]} == {
        "server": ["__meta_kubernetes_pod_label_ropewalk_dev_mcpserver"],
        "namespace": ["__meta_kubernetes_namespace"],
        "pod": ["__meta_kubernetes_pod_name"],
    }


@pytest.mark.parametrize("name", ["ropewalk-agents", "ropewalk-mcp-servers"])
def test_pods_are_looked_for_where_the_operator_works(name: str) -> None:
    assert only(render(*ON), "PodMonitor", name)["spec"]["namespaceSelector"] == {"any": True}
    namespaced = render(*ON, "--set", "watchNamespaces={a,b}")
    assert only(namespaced, "PodMonitor", name)["spec"]["namespaceSelector"] == {"matchNames": ["a", "b"]}


def test_nobody_is_let_in_to_mcp_servers_without_being_named() -> None:
    assert "ROPEWALK_SCRAPERS" not in variables(*ON)


def test_the_operator_is_told_who_may_read_the_metrics_of_mcp_servers() -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    told = variables("--set-json", f"monitoring.scrapers.namespaceSelector={json.dumps(selector)}")
    images = {key: told[key] for key in ("ROPEWALK_AGENT_IMAGE", "ROPEWALK_STDIO_IMAGE", "ROPEWALK_SCRAPERS")}
    assert settings.load(images).scrapers == {"namespaceSelector": selector}


def test_a_selector_that_is_none_is_refused() -> None:
    done = try_template("--set", "monitoring.scrapers.podSelector.app=prometheus")
    assert "/monitoring/scrapers/podSelector" in done.stderr
