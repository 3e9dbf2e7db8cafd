"""The dashboards parse, and ask only for metrics that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from prometheus_client import Metric

from chart_helm import CHART, of_kind, render
from ropewalk_agent.metrics import Metrics

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
# Given by Prometheus and the PodMonitor, or part of every histogram.
TARGET_LABELS = {"namespace", "agent", "pod", "le"}
METRIC = re.compile(r"\b([a-z][a-z0-9_]*)\{|label_values\((\w+)")


def dashboard(name: str = "agents.json") -> dict[str, Any]:
    found = json.loads((CHART / "dashboards" / name).read_text())
    assert isinstance(found, dict)
    return found


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in board["panels"] if each["type"] != "row"]


def expressions(board: dict[str, Any]) -> list[str]:
    queries = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    return queries + [each["definition"] for each in board["templating"]["list"] if each["type"] == "query"]


def families() -> dict[str, Metric]:
    """Return what an agent exposes, by the name that a query uses."""
    return {each.name + ("_total" if each.type == "counter" else ""): each for each in Metrics().registry.collect()}


def labels_of(source: str) -> set[str]:
    """Return the labels that a metric is defined with, whether it has been used or not."""
    metrics = vars(Metrics()).values()
    return next((set(each._labelnames) for each in metrics if getattr(each, "_name", None) == source), set())


def metrics(board: dict[str, Any]) -> set[str]:
    return {name for text in expressions(board) for name in metrics_of(text)}


def metrics_of(text: str) -> set[str]:
    names = {found[1] or found[2] for found in METRIC.finditer(text)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def test_the_board_for_agents_shows_what_was_promised() -> None:
    titles = {panel["title"] for panel in panels(dashboard())}
    assert titles >= {
        "Requests by outcome", "Latency", "In flight", "Queue depth", "Time in the queue", "Tokens", "Tool calls",
        "Tool errors", "MCP servers", "MCP reconnects", "Sessions", "Memory", "CPU",
    }  # fmt: skip


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_panels_have_unique_ids_a_description_and_a_place_of_their_own(file: Any) -> None:
    board = dashboard(file.name)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert [panel["title"] for panel in panels(board) if not panel.get("description")] == []
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_every_query_honours_the_chosen_namespace_and_agent(file: Any) -> None:
    board = dashboard(file.name)
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "namespace", "agent"]
    for panel in panels(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            selectors = re.findall(r"\{([^}]*)\}", target["expr"])
            assert selectors, panel["title"]
            for selector in selectors:
                assert 'namespace=~"$namespace", agent=~"$agent"' in selector, panel["title"]


def test_the_board_asks_only_for_metrics_that_an_agent_has() -> None:
    asked = metrics(dashboard())
    assert len(asked) > 10
    assert asked - set(families()) == set()


def test_the_board_groups_and_filters_only_by_labels_that_the_metrics_have() -> None:
    for text in expressions(dashboard()):
        grouped = {name.strip() for found in re.findall(r"by \(([^)]*)\)", text) for name in found.split(",")}
        filtered = {name for found in re.findall(r"\{([^}]*)\}", text) for name in re.findall(r"(\w+)(?:=|!)", found)}
        own = TARGET_LABELS.union(*(labels_of(families()[name].name) for name in metrics_of(text)))
        assert grouped | filtered <= own, text


def test_each_dashboard_comes_as_a_config_map_that_grafana_finds() -> None:
    maps = of_kind(render("--set", "monitoring.dashboards.enabled=true,monitoring.dashboards.labels.a=b"), "ConfigMap")
    assert [each["metadata"]["name"] for each in maps] == [f"ropewalk-dashboard-{file.stem}" for file in DASHBOARDS]
    for each, file in zip(maps, DASHBOARDS, strict=True):
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["labels"]["a"] == "b"
        assert json.loads(each["data"][f"ropewalk-{file.name}"]) == json.loads(file.read_text())


def test_grafana_will_not_be_shown_two_boards_under_one_uid() -> None:
    uids = [dashboard(file.name)["uid"] for file in DASHBOARDS]
    assert len(uids) == len(set(uids))
