"""The figures of the panels: variables, legends, what counts as nothing, and how it is printed."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import httpx
import pytest

from cluster.console import Failure
from observe import panels
from observe.panels import BOARDS, Line, Panel, Query
from observe.prometheus import Prometheus


class Asked(Prometheus):
    """A Prometheus that answers from a dict, and remembers what it was asked."""

    def __init__(self, answers: dict[str, list[tuple[dict[str, str], list[float]]]]) -> None:
        super().__init__("http://nowhere", 15)
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def instant(self, expression: str) -> Any:
        self.asked.append(("instant", expression))
        return iter(self.answers.get(expression, []))

    def range(self, expression: str) -> Any:
        self.asked.append(("range", expression))
        return iter(self.answers.get(expression, []))


def board(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((BOARDS / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", ["fleet", "agent", "mcp-servers", "operator"])
def test_no_variable_is_left_in_any_query(name: str) -> None:
    values = panels.variables(board(name), cast(Prometheus, Busy()), {})
    for panel in panels.panels(board(name)):
        for query in panel.queries:
            filled_in = panels.filled_in(query.expression, values, 15)
            assert "$" not in filled_in.replace('"$1"', ""), panel.title


class Busy:
    def busiest(self, label: str, known: dict[str, str]) -> str:
        return {"namespace": "demo", "agent": "calc"}[label]


def test_all_are_taken_where_all_can_be_and_the_busiest_agent_where_one_must_be() -> None:
    assert panels.variables(board("fleet"), cast(Prometheus, Busy()), {}) == {"namespace": ".+", "agent": ".+"}
    assert panels.variables(board("agent"), cast(Prometheus, Busy()), {}) == {"namespace": "demo", "agent": "calc"}


def test_a_value_can_be_chosen() -> None:
    chosen = panels.variables(board("agent"), cast(Prometheus, Busy()), {"agent": "other"})
    assert chosen == {"namespace": "demo", "agent": "other"}


def test_the_time_span_is_what_grafana_would_fill_in() -> None:
    assert panels.filled_in("rate(x[$__rate_interval]) + increase(x[$__range])", {}, 20) == (
        "rate(x[1m]) + increase(x[20m])"
    )


def test_tables_and_numbers_are_asked_for_a_moment_and_graphs_for_a_time_span() -> None:
    queries = {panel.title: panel.queries for panel in panels.panels(board("operator"))}
    assert {query.instant for query in queries["Resources"]} == {True}
    assert {query.instant for query in queries["Waiting"]} == {True}
    assert [query.legend for query in queries["Resources"]][:2] == ["Ready", "Accepted"]
    assert {query.instant for query in queries["Queue"]} == {False}


def test_a_line_has_its_latest_number_and_its_bounds_and_its_legend() -> None:
    answers = {"up": [({"a": "x", "b": "y"}, [math.nan, 3.0, 1.0, 2.0, math.nan])]}
    [line] = panels.answered(Asked(answers), Query("up", "{{a}}/{{b}}", instant=False), {}, 15)
    assert line == Line("x/y", 2.0, 1.0, 3.0)


def test_a_series_without_a_number_is_nothing() -> None:
    answers: dict[str, list[tuple[dict[str, str], list[float]]]] = {"up": [({}, [math.nan, math.inf])]}
    assert list(panels.answered(Asked(answers), Query("up", "", instant=True), {}, 15)) == []


def test_a_series_without_a_legend_is_named_by_its_labels() -> None:
    assert panels.named("Pods", {"namespace": "demo", "agent": "calc"}) == "Pods demo/calc"


def panel(*legends: str) -> Panel:
    return Panel("B", "Requests", "reqps", tuple(Query("up", legend, instant=True) for legend in legends))


def test_a_panel_with_nothing_to_show_says_so() -> None:
    [row] = panels.table(panel("ok", "failed"), [[], []])
    assert "NOTHING TO SHOW" in row


def test_a_panel_with_many_lines_shows_the_first_ones_and_counts_the_rest() -> None:
    rows = panels.table(panel("agents"), [[Line(f"agent-{i}", i, 0, 9) for i in range(20)]])
    assert len(rows) == 7
    assert "agent-0  (0 to 9)" in rows[0]
    assert rows[-1].strip() == "and 14 more"


def test_a_column_with_nothing_to_show_is_named() -> None:
    rows = panels.table(panel("Ready", "Failed", "p95"), [[Line("Ready a", 1, 1, 1)], [], []])
    assert len(rows) == 2
    assert rows[-1].strip() == "nothing of Failed, p95"


def test_empty_panels_are_named_with_their_board(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked({})
    monkeypatch.setattr(panels, "Prometheus", lambda url, minutes: asked)
    empty = panels.show("http://nowhere", {"namespace": "demo", "agent": "calc"}, minutes=15)
    assert "Ropewalk / Fleet: Requests" in empty
    assert len(empty) == sum(len(panels.panels(board(file.stem))) for file in BOARDS.glob("*.json"))
    assert len(asked.asked) >= len(empty)


def test_alerts_are_told_with_their_state_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"__name__": "ALERTS", "alertname": "RopewalkNoLeader", "alertstate": "firing", "severity": "critical"}
    monkeypatch.setattr(panels, "Prometheus", lambda url, minutes: Asked({"ALERTS": [(labels, [1.0])]}))
    assert panels.alerts("http://nowhere") == ["firing   RopewalkNoLeader  severity=critical"]


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Prometheus:
    server = Prometheus("http://nowhere", 15)
    transport = httpx.MockTransport(lambda request: answer)
    monkeypatch.setattr(server, "_client", httpx.Client(base_url="http://nowhere", transport=transport))
    return server


def test_a_query_that_prometheus_refuses_is_a_failure_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = httpx.Response(400, json={"status": "error", "error": "parse error"})
    with pytest.raises(Failure, match="refuses sum\\(: parse error"):
        list(answering(monkeypatch, refusal).instant("sum("))


def test_an_agent_nobody_has_asked_is_no_agent_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = httpx.Response(200, json={"status": "success", "data": {"result": []}})
    with pytest.raises(Failure, match="ask one, or `make demo`"):
        answering(monkeypatch, nothing).busiest("namespace", {})


def test_a_prometheus_that_is_not_there_is_a_failure_that_says_how_to_start_it() -> None:
    with pytest.raises(Failure, match="`make observe` starts it"):
        list(Prometheus("http://127.0.0.1:9", 15).instant("up"))
