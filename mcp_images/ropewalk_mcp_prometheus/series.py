"""What is told of a query's result, as data and as text, short enough for a model. Pure: no client, no clock.

The forms that it reads are those of Prometheus' HTTP API, "Expression query result formats".
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field

from ropewalk_mcp_prometheus.moments import rfc3339

# A range of so few points and series shows each point.
SHOWN_POINTS = 20
SHOWN_POINTS_SERIES = 10
_MAX_LABEL_VALUE = 200
_MAX_TEXT = 2_000
_MAX_NOTES = 10

# JSON has no word for these three.
Value = float | Literal["NaN", "+Inf", "-Inf"]


class Point(BaseModel):
    """A value at a moment."""

    time: str = Field(description="RFC 3339, UTC")
    value: Value


class Sample(BaseModel):
    """A series at one moment."""

    labels: dict[str, str]
    value: Value | None = Field(default=None, description="Missing where the sample is a native histogram")
    histogram: dict[str, Value] | None = Field(default=None, description="A native histogram: its count and its sum")


class Series(BaseModel):
    """A series over a range; the figures leave out values that are NaN or infinite."""

    labels: dict[str, str]
    points: int = Field(description="How many values there are")
    latest: Point | None = None
    first: Point | None = None
    min: Point | None = None
    max: Point | None = None
    avg: float | None = None
    not_finite: int | None = Field(default=None, description="How many values are NaN or infinite")
    values: list[Point] | None = Field(default=None, description="Each value, where there are few")


class QueryAnswer(BaseModel):
    """The answer of query and range_query."""

    result_type: Literal["vector", "matrix", "scalar", "string"]
    time: str | None = Field(default=None, description="query: the moment that was asked for")
    start: str | None = Field(default=None, description="range_query")
    end: str | None = Field(default=None, description="range_query")
    step_seconds: float | None = Field(default=None, description="range_query")
    samples: list[Sample] | None = Field(default=None, description="Results that have one value for each series")
    series: list[Series] | None = Field(default=None, description="Results that have many values for each series")
    text: str | None = Field(default=None, description="The result of a query that is a string")
    total: int = Field(description="How many series there are")
    left_out: int = Field(description="How many of them are not shown")
    warnings: list[str] | None = Field(default=None, description="Prometheus' own remarks on the query")


def number(text: object) -> Value:
    """Return the value that Prometheus writes as text."""
    value = float(str(text))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return value


def answer(envelope: dict[str, Any], most: int) -> QueryAnswer:
    """Return what is told of a successful answer: at most so many series, and how many are left out.

    Raises ValueError, LookupError, TypeError or AttributeError where the answer has another form than documented.
    """
    kind, found = envelope["data"]["resultType"], envelope["data"]["result"]
    told = QueryAnswer(result_type=kind, total=1, left_out=0, warnings=remarks(envelope))
    if kind == "string":
        told.text = str(found[1])[:_MAX_TEXT]
    elif kind == "scalar":
        told.samples = [Sample(labels={}, value=number(found[1]))]
    else:
        told.total = len(found)
        told.left_out = max(len(found) - most, 0)
        if kind == "vector":
            told.samples = [_sample(item) for item in found[:most]]
        else:
            few = told.total <= SHOWN_POINTS_SERIES
            told.series = [_series(item, with_points=few) for item in found[:most]]
    return told


def remarks(envelope: dict[str, Any]) -> list[str] | None:
    """Return the warnings of an answer, and the notes that are less than a warning (infos)."""
    found = [str(item)[: _MAX_LABEL_VALUE * 2] for key in ("warnings", "infos") for item in envelope.get(key) or []]
    return found[:_MAX_NOTES] or None


def _labels(metric: dict[str, str]) -> dict[str, str]:
    return {name: str(value)[:_MAX_LABEL_VALUE] for name, value in metric.items()}


def _sample(item: dict[str, Any]) -> Sample:
    if "histogram" in item:
        parts = item["histogram"][1]
        shown = {key: number(parts[key]) for key in ("count", "sum")}
        return Sample(labels=_labels(item["metric"]), histogram=shown)
    return Sample(labels=_labels(item["metric"]), value=number(item["value"][1]))


def _series(item: dict[str, Any], *, with_points: bool) -> Series:
    points = [(float(moment), number(text)) for moment, text in item.get("values", [])]
    told = Series(labels=_labels(item["metric"]), points=len(points))
    if not points:
        return told
    told.first, told.latest = _point(*points[0]), _point(*points[-1])
    finite = [(moment, value) for moment, value in points if isinstance(value, float)]
    told.not_finite = len(points) - len(finite) or None
    if finite:
        told.min = _point(*min(finite, key=lambda point: point[1]))
        told.max = _point(*max(finite, key=lambda point: point[1]))
        # Divided before they are added: the sum alone may be beyond the range of a number.
        told.avg = math.fsum(value / len(finite) for _, value in finite)
    if with_points and len(points) <= SHOWN_POINTS:
        told.values = [_point(*point) for point in points]
    return told


def _point(moment: float, value: Value) -> Point:
    return Point(time=rfc3339(moment), value=value)


def selector(labels: dict[str, str]) -> str:
    """Return labels as PromQL writes them: name{label="value"}."""
    rest = ", ".join(
        f'{name}="{value.translate(_ESCAPED)}"' for name, value in sorted(labels.items()) if name != "__name__"
    )
    return labels.get("__name__", "") + (f"{{{rest}}}" if rest or "__name__" not in labels else "")


_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def shown(value: Value | None) -> str:
    """Return a number in full where it is whole, else with six digits."""
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def text(told: QueryAnswer) -> str:
    """Return an answer as lines: what it is, a line a series, what is left out, Prometheus' remarks."""
    lines = list(_lines(told))
    if told.left_out:
        lines.append(
            f"… and {told.left_out} more series, not shown; raise max_series, or ask for fewer: a label matcher, "
            "sum by (label) (…), topk(10, …)"
        )
    return "\n".join([*lines, *(f"Prometheus remarks: {remark}" for remark in told.warnings or [])])


def _lines(told: QueryAnswer) -> Iterable[str]:
    when = f"at {told.time}" if told.time else f"from {told.start} to {told.end}, a point every {told.step_seconds:g} s"
    if told.text is not None:
        yield f"The string {told.text!r}"
    elif told.result_type == "scalar":
        yield f"{shown((told.samples or [Sample(labels={})])[0].value)} {when}"
    elif not told.total:
        yield f"No series {when}. Nothing matches: list_metrics shows the names that there are; check the labels too"
    else:
        yield f"{told.total} series {when}:"
    if told.result_type == "vector":
        yield from (f"{selector(item.labels)} {_said(item)}" for item in told.samples or [])
    for item in told.series or []:
        yield f"{selector(item.labels)} {_figures(item)}"


def _said(item: Sample) -> str:
    if item.histogram is None:
        return shown(item.value)
    return "histogram with " + ", ".join(f"{key} {shown(value)}" for key, value in item.histogram.items())


def _figures(item: Series) -> str:
    if not item.latest or not item.first:
        return "native histograms; ask for histogram_quantile(…), histogram_count(…) or histogram_sum(…) of them"
    said = f"latest {shown(item.latest.value)}, first {shown(item.first.value)}"
    if item.min and item.max:
        said += (
            f", min {shown(item.min.value)} at {item.min.time}, max {shown(item.max.value)} at {item.max.time}, "
            f"avg {shown(item.avg)}"
        )
    said += f" ({item.points} point{'' if item.points == 1 else 's'}" + (
        f", {item.not_finite} of them NaN or infinite)" if item.not_finite else ")"
    )
    for point in item.values or []:
        said += f"\n  {point.time} {shown(point.value)}"
    return said
