"""The dashboards are fresh, are what Grafana imports, and ask only for what exists."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units
from prometheus_client import CollectorRegistry

from chart_helm import CHART, REPOSITORY, of_kind, render
from chart_promtool import promtool
from dashboards import boards
from dashboards.queries import LEADING, PRICE
from ropewalk_agent.metrics import Metrics as AgentMetrics
from ropewalk_operator.cache import Cache
from ropewalk_operator.metrics import Metrics as OperatorMetrics
from ropewalk_operator.workqueue import WorkQueue

Json = dict[str, Any]
FILES = sorted((CHART / "dashboards").glob("*.json"))
VARIABLES = {
    "fleet": ["datasource", "namespace", "agent"],
    "agent": ["datasource", "namespace", "agent"],
    "mcp-servers": ["datasource", "namespace", "server"],
    "operator": ["datasource", "operator_namespace"],
}
# Given by the scrape, made of what it gives (operator), or part of every histogram.
TARGET_LABELS = {"namespace", "agent", "pod", "server", "job", "le", "operator"}
PROCESS = {"process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
SELECTOR = re.compile(r"\b([a-z][a-z0-9_:]*)\{([^}]*)\}")


def board_of(file: Path) -> Json:
    return dict(json.loads(file.read_text()))


def panels(board: Json) -> list[Json]:
    return [each for each in board["panels"] if each["type"] != "row"]


def expressions(board: Json) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def every_expression() -> list[str]:
    return [text for file in FILES for text in expressions(board_of(file))]


def choices(board: Json) -> list[str]:
    """The queries behind the variables."""
    return [each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"]


def asked_of(choice: str) -> str:
    """What a variable's query says of metrics."""
    regular = re.search(r'{__name__=~"([^"]+)"', choice)
    return regular[1] if regular else choice.removeprefix("label_values(").split(",")[0]


def labels_by_metric() -> dict[str, set[str]]:
    """Every metric that Ropewalk's programs export, by the name that a query uses, and its own labels."""
    found = {name: set[str]() for name in PROCESS} | {PRICE: {"gen_ai_request_model", "direction"}}
    for registry in (AgentMetrics().registry, asyncio.run(_operators())):
        # What a registry collects says nothing of labels before there is a value.
        for collector in list(registry._collector_to_names):
            for family in collector.collect():
                name = family.name + ("_total" if family.type == "counter" else "")
                found[name] = set(getattr(collector, "_labelnames", getattr(family, "_labelnames", ())))
    # The servers' libraries are in another environment, so their sources are read instead.
    for source in (REPOSITORY / "mcp_images").rglob("*.py"):
        for kind, name, labels in re.findall(
            r'(Counter|Gauge|Histogram)\(\s*"(\w+)",\s*"[^"]*",?\s*(?:\[([^]]*)\])?', source.read_text()
        ):
            found[name + ("_total" if kind == "Counter" else "")] = set(re.findall(r'"(\w+)"', labels))
    return found


async def _operators() -> CollectorRegistry:
    metrics = OperatorMetrics()
    metrics.read_at_scrape(Cache(), WorkQueue(), dict, lambda: True)
    return metrics.registry


def family_of(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name)


def test_the_files_are_what_the_definitions_make() -> None:
    assert {file.name: file.read_text() for file in FILES} == boards.files(), "run `make dashboards`"


def test_there_is_a_board_for_the_fleet_an_agent_the_mcp_servers_and_the_operator() -> None:
    variables = {file.stem: [each["name"] for each in board_of(file)["templating"]["list"]] for file in FILES}
    assert variables == VARIABLES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_have_unique_ids_a_description_a_known_unit_and_a_place_of_their_own(file: Path) -> None:
    board = board_of(file)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert [panel["title"] for panel in panels(board) if len(panel.get("description", "")) < 10] == []
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in panels(board)} - known == set()
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_query_honours_what_was_chosen(file: Path) -> None:
    chosen = [f'"${name}"' for name in VARIABLES[file.stem][1:]]
    board = board_of(file)
    for panel in panels(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            for name, selector in SELECTOR.findall(target["expr"]):
                # A price is everybody's, any operator may tell of resources, and its resources are everywhere.
                everybodys = f"{name}{{{selector}}}" in LEADING or name == PRICE
                if not everybodys and (file.stem, name[:18]) != ("operator", "ropewalk_resource_"):
                    assert [each for each in chosen if each not in selector] == [], f"{panel['title']}: {name}"


def test_rates_follow_the_interval_that_grafana_knows_to_be_long_enough() -> None:
    windows = {found for text in every_expression() for found in re.findall(r"rate\([^[]*\[([^]]*)\]", text)}
    assert windows == {"$__rate_interval"}


def test_a_number_of_now_is_asked_for_now() -> None:
    numbers = [panel for file in FILES for panel in panels(board_of(file)) if panel["type"] == "stat"]
    assert len(numbers) > 20
    assert [panel["title"] for panel in numbers for each in panel["targets"] if not each.get("instant")] == []
    assert [panel["title"] for panel in numbers for each in panel["targets"] if each.get("range")] == []


def test_no_graph_reckons_the_whole_time_span_anew_at_each_of_its_points() -> None:
    spans = [
        each for file in FILES for panel in panels(board_of(file)) for each in panel["targets"] if each.get("range")
    ]
    assert [each["expr"] for each in spans if "$__range" in each["expr"]] == []


def test_the_boards_ask_only_for_metrics_that_are_exported() -> None:
    asked = {family_of(name) for text in every_expression() for name, _ in SELECTOR.findall(text)}
    asked |= {
        found for file in FILES for text in choices(board_of(file)) for found in re.findall(r"\w+_\w+", asked_of(text))
    }
    assert len(asked) > 40
    assert asked - set(labels_by_metric()) == set()


def test_the_boards_filter_and_group_only_by_labels_that_the_metrics_have() -> None:
    known = labels_by_metric()
    for text in every_expression():
        names = [family_of(name) for name, _ in SELECTOR.findall(text)]
        own = TARGET_LABELS.union(*(known[name] for name in names))
        grouped = {name.strip() for found in re.findall(r"(?:by|on) \(([^)]+)\)", text) for name in found.split(",")}
        assert grouped <= own, text
        for name, selector in SELECTOR.findall(text):
            filtered = set(re.findall(r"(\w+)(?:=|!)", selector))
            assert filtered <= TARGET_LABELS | known[family_of(name)], f"{name}: {selector}"


def test_every_metric_of_the_programs_is_on_a_board_or_left_out_knowingly() -> None:
    asked = {family_of(name) for text in every_expression() for name, _ in SELECTOR.findall(text)}
    # Memory and descriptors beside the resident set, and what Python says of itself, help nobody at a glance.
    exported = {name for name in labels_by_metric() if not name.startswith(("process_", "python_"))}
    assert exported - asked == set()


def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel_{i}", "expr": re.sub(r"\$__(rate_interval|range)", "1m", text)}
        for i, text in enumerate(every_expression())
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "panels.yml")


def test_latency_leads_to_traces_by_exemplars() -> None:
    [latency] = [
        panel for panel in panels(board_of(CHART / "dashboards" / "agent.json")) if panel["title"] == "Latency"
    ]
    assert [target["exemplar"] for target in latency["targets"]] == [True, True, True]
    assert all("ropewalk_agent_request_duration_seconds_bucket" in target["expr"] for target in latency["targets"])


def test_the_table_of_agents_leads_to_the_board_of_one() -> None:
    link = "/d/ropewalk-agent?var-datasource=${datasource}"
    assert link in json.dumps(board_of(CHART / "dashboards" / "fleet.json"))
    assert board_of(CHART / "dashboards" / "agent.json")["uid"] == "ropewalk-agent"


def test_each_dashboard_comes_as_a_config_map_that_grafana_finds() -> None:
    maps = of_kind(render("--set", "monitoring.dashboards.enabled=true,monitoring.dashboards.labels.a=b"), "ConfigMap")
    assert [each["metadata"]["name"] for each in maps] == [f"ropewalk-dashboard-{file.stem}" for file in FILES]
    for each, file in zip(maps, FILES, strict=True):
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["labels"]["a"] == "b"
        assert json.loads(each["data"][f"ropewalk-{file.name}"]) == board_of(file)
        # Kubernetes takes no more than a MiB, and `kubectl apply` keeps it all once more in an annotation.
        assert len(each["data"][f"ropewalk-{file.name}"]) < 262_144


def test_grafana_will_not_be_shown_two_boards_under_one_uid() -> None:
    uids = [board_of(file)["uid"] for file in FILES]
    assert len(uids) == len(set(uids))
