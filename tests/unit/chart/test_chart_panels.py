"""What panels show of series that are known: told by promtool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
    column: int = 0

    def __str__(self) -> str:
        return f"{self.board} {self.panel}: {self.claim}"


BUCKET = 'ropewalk_agent_request_duration_seconds_bucket{{namespace="n", agent="a", endpoint="{}", le="{}"}}'
CASES = [
    Case("fleet", "Latency, p95", "shows nothing while no request is answered",
         {BUCKET.format("/query", "1.0"): "5x60", BUCKET.format("/query", "+Inf"): "5x60"}),
    Case("operator", "Quietest watch", "is nothing of an operator that is gone",
         {'ropewalk_operator_last_watch_event_age_seconds{namespace="s", job="ropewalk-operator", kind="Agent"}':
          "7x10 stale"}),
]  # fmt: skip


def query_of(case: Case) -> str:
    board = json.loads((CHART / "dashboards" / f"{case.board}.json").read_text())
    [panel] = [each for each in panels.panels(board) if each.title == case.panel]
    return panels.filled_in(panel.queries[case.column].expression, CHOSEN, RANGE_MINUTES)


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
