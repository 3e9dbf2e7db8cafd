"""Every query of every dashboard, asked as Grafana asks it, and the answers as a table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import layout as where
from cluster.console import say
from observe.prometheus import Prometheus

BOARDS = where.REPOSITORY / "charts" / "ropewalk" / "dashboards"
# What Grafana takes for a data source whose scrape interval is the default, 15 s.
_RATE_INTERVAL = "1m"
_LINES = 6
Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """A query of a panel; `instant` where the panel shows a moment and no time span."""

    expression: str
    legend: str
    instant: bool


@dataclass(frozen=True)
class Panel:
    """A panel with its queries."""

    board: str
    title: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Line:
    """What one series shows: its latest value, and the bounds of the time span."""

    legend: str
    latest: float
    least: float
    most: float


def show(url: str, chosen: Mapping[str, str], *, minutes: int) -> list[str]:
    """Print the figures of all panels; the names of those that have none. Raises Failure where a query is refused."""
    prometheus, empty = Prometheus(url, minutes), []
    for file in sorted(BOARDS.glob("*.json")):
        board = json.loads(file.read_text())
        values = variables(board, prometheus, chosen)
        say(f"\n{board['title']}  ({', '.join(f'{name}={value}' for name, value in values.items())})")
        for panel in panels(board):
            answers = [list(answered(prometheus, query, values, minutes)) for query in panel.queries]
            say("\n".join(table(panel, answers)))
            if not any(answers):
                empty.append(f"{panel.board}: {panel.title}")
    return empty


def alerts(url: str) -> list[str]:
    """Each alert that fires or is about to, with its labels."""
    found = [labels for labels, _ in Prometheus(url, 1).instant("ALERTS")]
    told = (f"{each.pop('alertstate'):<8} {each.pop('alertname')}  {_labels(each)}" for each in found)
    return sorted(told)


def panels(board: Json) -> list[Panel]:
    """The panels of a dashboard that show figures."""
    return [
        Panel(
            board["title"],
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            tuple(
                Query(each["expr"], each["legendFormat"] or _heading(panel, each), each.get("instant", False))
                for each in panel["targets"]
            ),
        )
        for panel in board["panels"]
        if panel["type"] != "row"
    ]


def variables(board: Json, prometheus: Prometheus, chosen: Mapping[str, str]) -> dict[str, str]:
    """A value for each variable: as chosen, or all where that can be chosen, or the value with the most series."""
    values: dict[str, str] = {}
    for variable in board["templating"]["list"]:
        name = variable["name"]
        if variable["type"] != "query":
            continue
        if name in chosen:
            values[name] = chosen[name]
        elif variable.get("includeAll"):
            values[name] = variable["allValue"]
        else:
            values[name] = prometheus.busiest(name, values)
    return values


def filled_in(expression: str, values: Mapping[str, str], minutes: int) -> str:
    """The expression with a value for each variable, Grafana's own among them."""
    known = {"__rate_interval": _RATE_INTERVAL, "__range": f"{minutes}m", **values}
    # $1 is a group of label_replace.
    return re.sub(r"\$([a-z_]\w*)", lambda found: known[found[1]], expression)


def answered(prometheus: Prometheus, query: Query, values: Mapping[str, str], minutes: int) -> Iterator[Line]:
    """What a query shows, without the series that never have a number."""
    expression = filled_in(query.expression, values, minutes)
    for labels, points in prometheus.instant(expression) if query.instant else prometheus.range(expression):
        numbers = [point for point in points if math.isfinite(point)]
        if numbers:
            yield Line(named(query.legend, labels), numbers[-1], min(numbers), max(numbers))


def named(legend: str, labels: Mapping[str, str]) -> str:
    """The legend with the labels' values, as Grafana writes it; without one, the labels themselves."""
    if "{{" in legend:
        return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()
    return " ".join(filter(None, [legend, "/".join(labels.values())]))


def table(panel: Panel, answers: Sequence[Sequence[Line]]) -> list[str]:
    """The panel as rows of text, from the lines of each of its queries; those queries that have none are named."""
    lines = [line for each in answers for line in each]
    if not lines:
        return [f"  {panel.title:<42} {'NOTHING TO SHOW':>12}"]
    rows = []
    for number, line in enumerate(lines[:_LINES]):
        bounds = "" if line.least == line.most else f"  ({_figure(line.least)} to {_figure(line.most)})"
        title = panel.title if number == 0 else ""
        rows.append(f"  {title:<42} {_figure(line.latest):>12} {panel.unit:<12} {line.legend}{bounds}")
    if len(lines) > _LINES:
        rows.append(f"  {'':<42} {'':>12} {'':<12} and {len(lines) - _LINES} more")
    if empty := [query.legend for query, each in zip(panel.queries, answers, strict=True) if not each]:
        rows.append(f"  {'':<42} {'':>12} {'':<12} nothing of {', '.join(empty)}")
    return rows


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items() if name != "__name__")


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _heading(panel: Json, target: Json) -> str:
    """The heading of a table's column."""
    for each in panel.get("transformations", ()):
        if each["id"] == "organize":
            return str(each["options"]["renameByName"][f"Value #{target['refId']}"])
    return ""
