"""What panels show of series that are known: told by promtool."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from chart_helm import CHART
from chart_promtool import promtool
from observe import panels

RANGE_MINUTES = 60
CHOSEN = dict.fromkeys(("namespace", "agent", "server", "operator_namespace"), ".+")


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a value a minute, and what a panel shows of them at a minute: by the labels, in
    PromQL's braces, the number. Nothing is `{}` without a line.
    """

    board: str
    panel: str
    claim: str
    series: Mapping[str, str]
    shows: Mapping[str, float] = field(default_factory=dict)
    minute: int = 30
    column: str = ""
    """The heading, where the panel is a table."""

    def __str__(self) -> str:
        return f"{self.board} {self.panel}: {self.claim}"


BUCKET = 'ropewalk_agent_request_duration_seconds_bucket{{namespace="n", agent="a", endpoint="{}", le="{}"}}'
CONDITION = 'ropewalk_resource_condition{{kind="{}", namespace="n", name="{}", condition="Ready"}}'
IDLE = 'ropewalk_resource_idle{{kind="{}", namespace="n", name="{}"}}'
LEADER = 'ropewalk_operator_leader{{namespace="{}", pod="{}", job="ropewalk-operator"}}'
AGENT = 'ropewalk_agent_build_info{namespace="n", agent="a", pod="a-1"}'
UP = 'ropewalk_agent_mcp_server_up{{namespace="n", agent="a", pod="a-1", server="{}"}}'
REQUESTS = 'ropewalk_agent_requests_total{{namespace="n", agent="a", endpoint="{}", outcome="{}"}}'
ITEMS = 'ropewalk_agent_batch_items_total{{namespace="n", agent="a", outcome="{}"}}'
USED = 'gen_ai_client_inference_usage_input_tokens_total{{namespace="n", agent="a", gen_ai_request_model="{}"}}'
PRICE = 'ropewalk:model_price_per_million_tokens{{gen_ai_request_model="{}", direction="input"}}'
CALLS = 'ropewalk_agent_tool_calls_total{{namespace="n", agent="a", server="m", tool="t", outcome="{}"}}'
OPERATION = ('mcp_client_operation_duration_seconds_bucket{{namespace="n", agent="a", server="m", mcp_method_name="{}",'
             ' le="{}"}}')  # fmt: skip
RETRIES = 'ropewalk_operator_workqueue_retries_total{namespace="s", pod="p", job="ropewalk-operator"}'
CASES = [
    *(Case(board, panel, "is nothing where no operator leads", {LEADER.format("s", "p"): "0x60"})
      for board, panel in (("fleet", "Agents not ready"), ("mcp-servers", "MCP servers"), ("mcp-servers", "Not ready"),
                           ("operator", "Resources not ready"), ("operator", "Waiting"))),
    *(Case(board, panel, "is 0 where an operator leads and has nothing to tell", {LEADER.format("s", "p"): "1x60"},
           {"{}": 0})
      for board, panel in (("fleet", "Agents not ready"), ("mcp-servers", "MCP servers"), ("mcp-servers", "Not ready"),
                           ("operator", "Resources not ready"))),
    Case("fleet", "Agents not ready", "counts those that are not Ready, but for those of which nobody wants pods",
         {LEADER.format("s", "p"): "1x60", **{CONDITION.format("Agent", name): "0x60" for name in "ab"},
          CONDITION.format("Agent", "c"): "1x60", IDLE.format("Agent", "b"): "1x60"}, {"{}": 1}),
    *(Case(board, panel, "is nothing where no agent reports", {LEADER.format("s", "p"): "1x60"})
      for board, panel in (("fleet", "MCP connections down"), ("mcp-servers", "Connections down"), ("fleet", "Failed"),
                           ("fleet", "Requests"), ("agent", "Failed"), ("mcp-servers", "Failed calls"))),
    *(Case(board, panel, "is 0 where agents report and nothing was counted", {AGENT: "1x60", UP.format("m"): "1x60"},
           {"{}": 0})
      for board, panel in (("fleet", "MCP connections down"), ("mcp-servers", "Connections down"), ("fleet", "Failed"),
                           ("fleet", "Requests"), ("agent", "Failed"), ("mcp-servers", "Failed calls"))),
    Case("fleet", "MCP connections down", "counts those that are down",
         {UP.format("m"): "1x60", UP.format("o"): "0x60"}, {"{}": 1}),
    Case("fleet", "Agents", "names an Agent that has no pod, and not one of which nobody wants pods",
         {CONDITION.format("Agent", "a"): "1x60", CONDITION.format("Agent", "b"): "0x60", AGENT: "1x60",
          CONDITION.format("Agent", "c"): "0x60", IDLE.format("Agent", "c"): "1x60"},
         {'{namespace="n", agent="a"}': 1, '{namespace="n", agent="b"}': 0}, column="Ready"),
    *(Case(board, "Failed", "counts the items of batches, and not the batch beside them",
           {AGENT: "1x60", REQUESTS.format("/batch", "ok"): "0+60x60", ITEMS.format("model_error"): "0+45x60",
            ITEMS.format("ok"): "0+15x60"}, {"{}": 0.75}) for board in ("fleet", "agent")),
    Case("fleet", "Agents", "tells which share of the items of batches failed, too",
         {REQUESTS.format("/query", "ok"): "0+60x60", REQUESTS.format("/batch", "ok"): "0+60x60",
          AGENT: "1x60", ITEMS.format("timeout"): "0+60x60"}, {'{namespace="n", agent="a"}': 0.5}, column="Failed"),
    Case("fleet", "Agents", "has no share of failures where nothing is asked",
         {AGENT: "1x60", REQUESTS.format("/query", "ok"): "5x60", REQUESTS.format("/query", "timeout"): "5x60"},
         column="Failed"),
    Case("fleet", "Models without a price", "counts those that took tokens, and no fallback that was never asked",
         {AGENT: "1x60", USED.format("priced"): "9x60", PRICE.format("priced"): "1x60", USED.format("dear"): "9x60",
          USED.format("fallback"): "0x60"}, {"{}": 1}),
    Case("mcp-servers", "MCP servers", "has no share of failures where nothing is called",
         {CALLS.format("ok"): "5x60", CALLS.format("error"): "5x60"}, column="Failed"),
    Case("mcp-servers", "MCP servers", "tells the time of calls, and not that of a list of tools",
         {OPERATION.format(method, le): values for method, le, values in (
             ("tools/call", "1.0", "0+60x60"), ("tools/call", "+Inf", "0+60x60"),
             ("tools/list", "1.0", "0x60"), ("tools/list", "+Inf", "0+600x60"))},
         {'{namespace="n", server="m"}': 0.95}, column="p95"),
    Case("operator", "Leaders", "is told of each installation",
         {LEADER.format("s", "p"): "1x60", LEADER.format("s", "q"): "0x60", LEADER.format("t", "p"): "0x60"},
         {'{namespace="s"}': 1, '{namespace="t"}': 0}),
    Case("operator", "Leaders", "is told of each of two installations in a namespace",
         {LEADER.format("s", "ropewalk-operator-5d9c-a"): "1x60", LEADER.format("s", "x-operator-5d9c-b"): "1x60",
          LEADER.format("s", "x-operator-5d9c-c"): "0x60"},
         {'{namespace="s", operator="ropewalk-operator"}': 1, '{namespace="s", operator="x-operator"}': 1}),
    Case("operator", "Leaders", "is 0 where no operator reports", {"up": "1x60"}, {"{}": 0}),
    Case("operator", "Retries", "has no line without a name beside those that have one",
         {LEADER.format("s", "p"): "1x60", RETRIES: "0+1x60"}, {'{pod="p"}': 1}),
    Case("fleet", "Latency, p95", "shows nothing while no request is answered",
         {BUCKET.format("/query", "1.0"): "5x60", BUCKET.format("/query", "+Inf"): "5x60"}),
    *(Case(board, "Latency, p95", "is not that of batches, which take as long as their items together",
           {BUCKET.format("/query", "1.0"): "0+60x60", BUCKET.format("/query", "+Inf"): "0+60x60",
            BUCKET.format("/batch", "1.0"): "0x60", BUCKET.format("/batch", "+Inf"): "0+600x60"}, {"{}": 0.95})
      for board in ("fleet", "agent")),
    Case("operator", "Quietest watch", "is nothing of an operator that is gone",
         {'ropewalk_operator_last_watch_event_age_seconds{namespace="s", job="ropewalk-operator", kind="Agent"}':
          "7x10 stale"}),
]  # fmt: skip


# As Grafana writes series: some of an operator's, and some of an agent's pod.
READY_AGENT = 'ropewalk_resource_condition{condition="Ready",kind="Agent",name="without-pods",namespace="n",pod="o"}'
READY_SERVER = 'ropewalk_resource_condition{condition="Ready",kind="MCPServer",name="idle",namespace="n",pod="o"}'
BUILD = 'ropewalk_agent_build_info{agent="a",namespace="n",pod="a-1"}'
CONNECTION = 'ropewalk_agent_mcp_server_up{agent="a",namespace="n",pod="a-1",server="math"}'


@pytest.mark.parametrize(
    ("board", "variable", "names"),
    [
        ("fleet", "agent", {READY_AGENT: "without-pods", BUILD: "a"}),
        ("agent", "agent", {READY_AGENT: "without-pods", BUILD: "a"}),
        ("mcp-servers", "server", {READY_SERVER: "idle", CONNECTION: "math"}),
    ],
)
def test_what_has_no_pods_can_be_chosen_and_what_only_pods_tell_of(
    board: str, variable: str, names: Mapping[str, str], tmp_path: Path
) -> None:
    listed = json.loads((CHART / "dashboards" / f"{board}.json").read_text())["templating"]["list"]
    chosen = {each["name"]: each for each in listed}
    pattern = re.compile(chosen[variable]["regex"].strip("/"))
    assert {series: found[1] for series in names if (found := pattern.search(series))} == names
    namespaces = re.fullmatch(r"label_values\((.+), namespace\)", chosen["namespace"]["query"]["query"])
    assert namespaces
    selectors = [namespaces[1], panels.filled_in(chosen[variable]["query"]["query"], CHOSEN, RANGE_MINUTES)]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": series, "values": "1x60"} for series in (READY_AGENT, READY_SERVER, BUILD, CONNECTION)
        ],
        "promql_expr_test": [
            {"expr": selector, "eval_time": "30m", "exp_samples": [{"labels": each, "value": 1} for each in names]}
            for selector in selectors
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", tmp_path / "test.yaml")


def query_of(case: Case) -> str:
    board = json.loads((CHART / "dashboards" / f"{case.board}.json").read_text())
    queries = [query for each in panels.panels(board) if each.title == case.panel for query in each.queries]
    [query, *_] = [each for each in queries if each.legend == case.column or not case.column]
    return panels.filled_in(query.expression, CHOSEN, RANGE_MINUTES)


def test_a_panel_shows_what_is_so(tmp_path: Path) -> None:
    tests = [
        {
            "name": str(case),
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "promql_expr_test": [
                {
                    "expr": query_of(case),
                    "eval_time": f"{case.minute}m",
                    "exp_samples": [{"labels": labels, "value": value} for labels, value in case.shows.items()],
                }
            ],
        }
        for case in CASES
    ]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", tmp_path / "test.yaml")
