"""The kinds of panels that the dashboards use, and how they look. Knows no metric.

Each panel has a title, a sentence on what it shows, and queries as (PromQL, legend). Sizes are in Grafana's grid of
24 columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "ropewalk"
Query = tuple[str, str]
Row = tuple[str, "Panels"]

Panels = Sequence[Builder[dashboard.Panel]]
NO_PRICES = "no price, or no calls"
"""What stands in a panel about cost that has nothing to show."""
NO_LEADER = "no operator leads"
"""What stands in a panel about resources where nobody says how they are."""
OTHER_LEADERS = (
    "Nothing is known of the namespaces of an operator that is gone, also while another one leads elsewhere."
)
"""What its description says, as one leader is enough for a number."""
P = TypeVar("P", bound="_Panel")

_GREEN, _YELLOW, _RED = "green", "yellow", "red"


class _Panel(Protocol):
    """What all kinds of panels can be told."""

    def title(self: P, title: str) -> P: ...
    def description(self: P, description: str) -> P: ...
    def unit(self: P, unit: str) -> P: ...
    def span(self: P, w: int) -> P: ...
    def height(self: P, h: int) -> P: ...
    def datasource(self: P, datasource: dashboard.DataSourceRef) -> P: ...
    def with_target(self: P, target: Builder[Dataquery]) -> P: ...


def stat_panel(
    title: str,
    about: str,
    query: str,
    unit: str = "short",
    *,
    warn: float | None = None,
    bad: float | None = None,
    missing: str = "",
    one_each: str = "",
) -> stat.Panel:
    """One number, of now, six to a row; yellow from `warn` on and red from `bad` on. With the legend `one_each`, a
    number for each series, red where it is not 1.
    """
    panel = stat.Panel().graph_mode(common.BigValueGraphMode.NONE)
    panel = panel.color_mode(common.BigValueColorMode.VALUE).thresholds(_ONE if one_each else _thresholds(warn, bad))
    panel = panel.reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]))
    if missing:
        panel = panel.no_value(missing)
    return _shown(panel, title, about, unit, width=4, height=4).with_target(_target(query, one_each, 0).instant())


def graph(
    title: str,
    about: str,
    queries: Sequence[Query],
    unit: str = "short",
    *,
    width: int = 8,
    exemplars: bool = False,
    missing: str = "",
) -> timeseries.Panel:
    """Lines over time; with `exemplars`, dots that lead to a trace each."""
    panel = timeseries.Panel().fill_opacity(10).line_width(1).show_points(common.VisibilityMode.NEVER).min(0)
    panel = panel.tooltip(
        options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = panel.legend(
        options.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    if missing:
        panel = panel.no_value(missing)
    targets = [_target(query, legend, i).range().exemplar(exemplars) for i, (query, legend) in enumerate(queries)]
    return _all(_shown(panel, title, about, unit, width=width, height=8), targets)


def states(
    title: str, about: str, queries: Sequence[Query], yes: str, no: str, *, width: int = 12
) -> statetimeline.Panel:
    """A coloured band for each line: 1 is `yes`, 0 is `no`."""
    texts = {"1": (yes, _GREEN), "0": (no, _RED)}
    mapping = dashboard.ValueMap(
        {value: dashboard.ValueMappingResult(text=text, color=color) for value, (text, color) in texts.items()}
    )
    panel = statetimeline.Panel().mappings([mapping]).fill_opacity(80).row_height(0.8).merge_values(True)
    panel = panel.show_value(common.VisibilityMode.NEVER)
    targets = [_target(query, legend, i).range() for i, (query, legend) in enumerate(queries)]
    return _all(_shown(panel, title, about, "short", width=width, height=8), targets)


def table_panel(
    title: str, about: str, columns: Sequence[tuple[str, str, str]], labels: Sequence[str], *, link: str = ""
) -> table.Panel:
    """A line for each combination of `labels`, a column for each (heading, query, unit); `link` is where the name in
    the last of the labels leads to.
    """
    panel = _shown(table.Panel(), title, about, "short", width=24, height=10)
    ids = [chr(ord("A") + i) for i in range(len(columns))]
    names = {f"Value #{ref}": heading for ref, (heading, _, _) in zip(ids, columns, strict=True)}
    order = {label: i for i, label in enumerate([*labels, *names])}
    for (heading, _, unit), i in zip(columns, range(len(columns)), strict=True):
        panel = panel.override_by_name(heading, [dashboard.DynamicConfigValue("unit", unit)])
        panel = panel.with_target(_target(columns[i][1], "", i).instant().format(PromQueryFormat.TABLE))
    if link:
        leads = [{"title": "Look at it", "url": link}]
        panel = panel.override_by_name(labels[-1], [dashboard.DynamicConfigValue("links", leads)])
    hidden = {"Time": True, **{f"Time {i}": True for i in range(1, len(columns) + 1)}}
    organized = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    return panel.with_transformation(dashboard.DataTransformerConfig("merge", options={})).with_transformation(
        dashboard.DataTransformerConfig("organize", options=organized)
    )


def new_board(
    uid: str, title: str, about: str, variables: Sequence[Builder[dashboard.VariableModel]], rows: Sequence[Row]
) -> dashboard.Dashboard:
    """A dashboard of rows of panels, with a list of its sisters in the corner."""
    board = build.Dashboard(title).uid(uid).description(about).tags([TAG]).refresh("30s").time("now-1h", "now")
    board = board.version(1).tooltip(dashboard.DashboardCursorSync.CROSSHAIR).editable()
    link = build.DashboardLink("Ropewalk").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
    board = board.link(link.as_dropdown(True).include_vars(True).keep_time(True))
    board = board.with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in variables:
        board = board.with_variable(variable)
    for heading, panels in rows:
        board = board.with_row(build.Row(heading))
        for panel in panels:
            board = board.with_panel(panel)
    made = board.build()
    for number, each in enumerate(made.panels or (), 1):
        each.id_val = number
    return made


def choice(name: str, label: str, query: str, part: str = "", *, many: bool = True) -> build.QueryVariable:
    """A variable whose values a query gives, or the `part` of each that this pattern finds; with `many`, several
    values or all.
    """
    variable = build.QueryVariable(name).label(label).datasource(SOURCE).query({"query": query, "refId": name})
    variable = variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    if part:
        variable = variable.regex(part)
    if not many:
        return variable
    everything = dashboard.VariableOption(text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".+").current(everything)


def _shown(panel: P, title: str, about: str, unit: str, *, width: int, height: int) -> P:
    return panel.title(title).description(about).unit(unit).span(width).height(height).datasource(SOURCE)


def _all(panel: P, targets: Sequence[Builder[Dataquery]]) -> P:
    for target in targets:
        panel = panel.with_target(target)
    return panel


def _target(query: str, legend: str, number: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
    return target.datasource(SOURCE)


def _thresholds(warn: float | None, bad: float | None) -> build.ThresholdsConfig:
    return _steps(
        (None, _GREEN),
        *([(warn, _YELLOW)] if warn is not None else []),
        *([(bad, _RED)] if bad is not None else []),
    )


def _steps(*steps: tuple[float | None, str]) -> build.ThresholdsConfig:
    config = build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE)
    return config.steps([dashboard.Threshold(value, color) for value, color in steps])


_ONE = _steps((None, _RED), (1, _GREEN), (2, _RED))
