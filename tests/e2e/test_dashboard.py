"""The dashboards on real pods: the chart's PodMonitors find them, every panel shows something, the numbers are true."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from chart_prometheus import chart_prometheus
from e2e_cluster import Workspace, agent, image, kubectl, mcpserver
from observe import panels
from observe.prometheus import Prometheus
from observe.scrape import Json
from ports import free_port
from waiting import until

# Only a server that asks others has something to show here; tests/integration/test_monitoring.py has one.
_MAY_BE_EMPTY = {"Ropewalk / MCP servers: What they asked of others"}
_PORT = free_port()
_URL = f"http://127.0.0.1:{_PORT}"


@pytest.fixture(scope="module")
def seen(space: Workspace) -> Iterator[Prometheus]:
    bridged = {"image": image("mcp-math"), "command": ["/opt/ropewalk/bin/ropewalk-mcp"], "args": ["--stdio"]}
    scraped = {"labels": {"monitoring.ropewalk.dev/scrape": "true"}}
    space.apply(
        mcpserver("math", stdio=bridged),
        mcpserver("sums", image=image("mcp-math"), pod=scraped),
        agent("calculator", "math"),
        agent("adder", "sums"),
    )
    space.wait("agent/calculator")
    space.wait("agent/adder")
    with chart_prometheus(pods, _PORT) as server:
        up = f'count(up{{namespace="{space.name}"}} == 1)'
        until(lambda: value(server, up) == 4, "the pods are scraped")
        yield server


def pods() -> list[Json]:
    return list(json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"])


def value(server: Prometheus, expression: str) -> float:
    """The one number that an expression is; 0.0 where there is nothing yet."""
    return next((values[0] for _, values in server.instant(expression)), 0.0)


def test_requests_and_tool_calls_are_counted_one_by_one(space: Workspace, seen: Prometheus) -> None:
    for number in range(5):
        assert str(number + 40) in space.ask("calculator", f"What is {number} plus 40?")["response"]
    chosen = f'namespace="{space.name}", agent="calculator", outcome="ok"'

    def all_are_counted() -> bool:
        requests = value(seen, f"sum(ropewalk_agent_requests_total{{{chosen}}})")
        calls = value(seen, f"sum(ropewalk_agent_tool_calls_total{{{chosen}}})")
        return (requests, calls) == (5, 5)

    until(all_are_counted, "5 requests and 5 calls of add")


def test_tokens_in_metrics_are_those_of_the_answers(space: Workspace, seen: Prometheus) -> None:
    counter = f'sum(gen_ai_client_inference_usage_input_tokens_total{{namespace="{space.name}", agent="calculator"}})'
    before = value(seen, counter)
    answer = space.ask("calculator", "What is 6 times 7?")
    until(lambda: value(seen, counter) == before + answer["usage"]["input_tokens"], "the tokens are counted")


def test_every_panel_of_every_dashboard_has_figures(space: Workspace, seen: Prometheus) -> None:
    def nothing_is_empty() -> bool:
        space.ask("calculator", "What is 1 divided by 0?")
        space.ask("adder", "What is 6 times 7?")
        # Something for the operator to look at, which rolls no pod.
        space.kubectl("annotate", "agent/calculator", f"asked-at={time.time_ns()}", "--overwrite")
        assert set(panels.show(_URL, {"namespace": space.name, "agent": "calculator"}, minutes=15)) <= _MAY_BE_EMPTY
        return True

    until(nothing_is_empty, "each panel has figures", seconds=90)


def test_the_chart_brings_the_dashboards_where_grafana_looks_for_them() -> None:
    found = kubectl("get", "configmaps", "-A", "-l", "grafana_dashboard=1", "-o", "jsonpath={.items[*].data}")
    for uid in ("ropewalk-fleet", "ropewalk-agent", "ropewalk-mcp-servers", "ropewalk-operator"):
        assert f'\\"uid\\": \\"{uid}\\"' in found
