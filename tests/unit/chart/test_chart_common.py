"""What all objects of the chart share, whatever template makes them."""

from __future__ import annotations

import re

import pytest
import yaml

from chart_helm import CHART, render, render_text

SERVERS = yaml.safe_load((CHART / "values.yaml").read_text())["mcpServers"]
EVERYTHING = (
    "monitoring.podMonitor.enabled=true",
    "monitoring.alerts.enabled=true",
    "monitoring.prices.gpt.input=1",
    "monitoring.prices.gpt.output=2",
    "operator.networkPolicy.enabled=true",
    "operator.replicas=2",
    "extraObjects[0].apiVersion=v1",
    "extraObjects[0].kind=ConfigMap",
    "extraObjects[0].metadata.name=more",
    "mcpServers.prometheus.url=http://prometheus:9090",
    *(f"mcpServers.{server}.enabled=true" for server in SERVERS),
)
SHARED = ("--set", "commonLabels.team=agents", "--set-string", "commonAnnotations.cost=7")
IN_ONE_NAMESPACE = ("--set", "watchNamespaces={ropewalk-system}")


def test_everything_is_everything() -> None:
    made = set(re.findall("^# Source: ropewalk/(.+)$", render_text("--set", ",".join(EVERYTHING)), re.MULTILINE))
    assert made == {str(file.relative_to(CHART)) for file in (CHART / "templates").rglob("*.yaml")}


@pytest.mark.parametrize("where", [(), IN_ONE_NAMESPACE])
def test_all_objects_have_the_labels_and_annotations_of_the_values(where: tuple[str, ...]) -> None:
    lacking = [
        f"{each['kind']} {each['metadata']['name']}"
        for each in render("--set", ",".join(EVERYTHING), *SHARED, *where)
        if each["metadata"].get("labels", {}).get("team") != "agents"
        or each["metadata"].get("annotations", {}).get("cost") != "7"
    ]
    # What a user adds as a whole has what its user gave it.
    assert lacking == ["ConfigMap more"]
