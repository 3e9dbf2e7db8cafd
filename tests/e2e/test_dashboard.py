"""The dashboard's own queries against a real Prometheus: every panel shows something, and the numbers are true."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from cluster.layout import REPOSITORY
from e2e_cluster import Workspace, agent, kubectl, mcpserver
from e2e_prometheus import Prometheus, prometheus
from waiting import until

# Nothing reconnects in this module; every other panel has something to show.
_MAY_BE_EMPTY = {"MCP reconnects"}


@pytest.fixture(scope="module")
def seen(space: Workspace) -> Iterator[Prometheus]:
    space.apply(mcpserver(), agent("calculator", "math"))
    space.wait("agent/calculator")
    with prometheus(space) as server:
        until(lambda: server.value("count(ropewalk_agent_build_info)"), "the agent is scraped")
        yield server


def panels() -> list[tuple[str, str]]:
    dashboard = json.loads((REPOSITORY / "charts" / "ropewalk" / "dashboards" / "agents.json").read_text())
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_requests_and_tool_calls_are_counted_one_by_one(space: Workspace, seen: Prometheus) -> None:
    for number in range(5):
        assert str(number + 40) in space.ask("calculator", f"What is {number} plus 40?")["response"]

    def all_are_counted() -> bool:
        requests = seen.value('sum(ropewalk_agent_requests_total{agent="calculator", outcome="ok"})')
        calls = seen.value('sum(ropewalk_agent_tool_calls_total{agent="calculator", tool="add", outcome="ok"})')
        return (requests, calls) == (5, 5)

    until(all_are_counted, "5 requests and 5 calls of add")


def test_tokens_in_metrics_are_those_of_the_answers(space: Workspace, seen: Prometheus) -> None:
    counter = 'sum(gen_ai_client_inference_usage_input_tokens_total{agent="calculator"})'
    before = seen.value(counter)
    answer = space.ask("calculator", "What is 6 times 7?")
    until(lambda: seen.value(counter) == before + answer["usage"]["input_tokens"], "the tokens are counted")


@pytest.mark.parametrize(("title", "expression"), panels())
def test_every_panel_shows_numbers(space: Workspace, seen: Prometheus, title: str, expression: str) -> None:
    variables = {"$namespace": space.name, "$agent": "calculator", "$__rate_interval": "30s"}
    for name, value in variables.items():
        expression = expression.replace(name, value)

    def shows_a_number() -> bool:
        space.ask("calculator", "What is 1 divided by 0?")
        found = [float(sample["value"][1]) for sample in seen.query(expression)]
        return bool(found) and not any(math.isnan(value) for value in found)

    if title in _MAY_BE_EMPTY:
        seen.query(expression)
    else:
        until(shows_a_number, f"{title}: {expression}")


def test_the_chart_brings_the_dashboard_where_grafana_looks_for_it() -> None:
    found = kubectl("get", "configmaps", "-A", "-l", "grafana_dashboard=1", "-o", "jsonpath={.items[*].data}")
    assert "ropewalk_agent_requests_total" in found
