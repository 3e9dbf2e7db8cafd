"""What is told of results: figures, special values, bounds. The forms are those of Prometheus' HTTP API."""

from typing import Any

import pytest

from ropewalk_mcp_prometheus import series
from ropewalk_mcp_prometheus.series import Point, answer, shown, text


def success(kind: str, result: object, **more: object) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


def vector(*values: str) -> dict[str, Any]:
    found = [{"metric": {"__name__": "up", "job": f"job-{i}"}, "value": [1769853600, v]} for i, v in enumerate(values)]
    return success("vector", found)


def matrix(*values: str, **more: object) -> dict[str, Any]:
    points = [[1769853600 + 60 * i, value] for i, value in enumerate(values)]
    return success("matrix", [{"metric": {"job": "api"}, "values": points}], **more)


def at(told: series.QueryAnswer) -> str:
    told.time = "2026-01-31T10:00:00Z"
    return text(told)


def over(told: series.QueryAnswer) -> str:
    told.start, told.end, told.step_seconds = "2026-01-31T10:00:00Z", "2026-01-31T11:00:00Z", 60
    return text(told)


def test_each_series_of_a_vector_is_a_line_with_its_labels_as_promql_writes_them() -> None:
    assert at(answer(vector("1", "0"), 10)).splitlines() == [
        "2 series at 2026-01-31T10:00:00Z:",
        'up{job="job-0"} 1',
        'up{job="job-1"} 0',
    ]


def test_what_is_beyond_the_bound_is_counted() -> None:
    told = answer(vector(*["1"] * 7), 3)
    assert (told.total, told.left_out, len(told.samples or [])) == (7, 4, 3)
    assert "and 4 more series, not shown; raise max_series, or ask for fewer" in at(told)


def test_nothing_is_said_to_be_nothing_with_the_next_step() -> None:
    assert at(answer(vector(), 3)).startswith("No series at 2026-01-31T10:00:00Z. Nothing matches: list_metrics shows")


@pytest.mark.parametrize(("written", "told"), [("NaN", "NaN"), ("+Inf", "+Inf"), ("-Inf", "-Inf"), ("1e3", 1000.0)])
def test_values_that_json_has_no_word_for_are_told_by_name(written: str, told: object) -> None:
    found = answer(vector(written), 3)
    assert found.samples
    assert found.samples[0].value == told
    assert found.model_dump(mode="json")["samples"][0]["value"] == told


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (312345600.0, "312345600"),
        (0.1 + 0.2, "0.3"),
        (1234567.891, "1.23457e+06"),
        (-0.0001, "-0.0001"),
        (1e300, "1e+300"),
        ("+Inf", "+Inf"),
    ],
)
def test_whole_numbers_are_told_in_full_and_others_with_six_digits(value: Any, written: str) -> None:
    assert shown(value) == written


def test_a_range_is_told_by_its_latest_first_least_greatest_and_mean_value() -> None:
    told = answer(matrix(*(str(value) for value in [5, 1, 9, 3] + [2] * 20)), 10)
    [found] = told.series or []
    assert found.latest == Point(time="2026-01-31T10:23:00Z", value=2)
    assert (found.first, found.points, found.values) == (Point(time="2026-01-31T10:00:00Z", value=5), 24, None)
    assert (found.min, found.max) == (
        Point(time="2026-01-31T10:01:00Z", value=1),
        Point(time="2026-01-31T10:02:00Z", value=9),
    )
    assert found.avg == pytest.approx(58 / 24)
    assert over(told).splitlines() == [
        "1 series from 2026-01-31T10:00:00Z to 2026-01-31T11:00:00Z, a point every 60 s:",
        '{job="api"} latest 2, first 5, min 1 at 2026-01-31T10:01:00Z, max 9 at 2026-01-31T10:02:00Z, avg 2.41667 '
        "(24 points)",
    ]


def test_few_points_are_shown_one_by_one() -> None:
    told = answer(matrix("1", "2", "3"), 10)
    assert [point.value for point in (told.series or [])[0].values or []] == [1, 2, 3]
    assert over(told).splitlines()[-1] == "  2026-01-31T10:02:00Z 3"


def test_values_that_are_not_finite_are_counted_and_left_out_of_the_figures() -> None:
    told = answer(matrix("NaN", "1", "+Inf", "3"), 10)
    [found] = told.series or []
    assert (found.not_finite, found.avg) == (2, 2.0)
    assert found.first == Point(time="2026-01-31T10:00:00Z", value="NaN")
    assert "(4 points, 2 of them NaN or infinite)" in over(told)


def test_a_range_with_no_finite_value_has_no_figures() -> None:
    [found] = answer(matrix("NaN", "NaN"), 10).series or []
    assert (found.min, found.avg, found.not_finite) == (None, None, 2)
    assert "latest NaN, first NaN (2 points, 2 of them NaN or infinite)" in over(answer(matrix("NaN", "NaN"), 10))


def test_the_mean_of_values_at_the_end_of_the_range_of_numbers_is_a_number() -> None:
    [found] = answer(matrix("1.7e308", "1.7e308"), 10).series or []
    assert found.avg == pytest.approx(1.7e308)


def test_scalars_and_strings_are_told_as_they_are() -> None:
    assert at(answer(success("scalar", [1769853600, "42"]), 10)) == "42 at 2026-01-31T10:00:00Z"
    assert at(answer(success("string", [1769853600, "hello"]), 10)) == "The string 'hello'"


def test_native_histograms_are_told_by_count_and_sum() -> None:
    parts = {"count": "60", "sum": "33.5", "buckets": [[1, "0.5", "1", "60"]]}
    told = answer(success("vector", [{"metric": {"__name__": "h"}, "histogram": [1769853600, parts]}]), 10)
    assert at(told).splitlines()[-1] == "h histogram with count 60, sum 33.5"
    many = answer(success("matrix", [{"metric": {"__name__": "h"}, "histograms": [[1769853600, parts]]}]), 10)
    assert "histogram_quantile(…)" in over(many)


def test_warnings_and_infos_are_passed_on() -> None:
    told = answer(matrix("1", warnings=["PromQL warning: ignored"], infos=["PromQL info: not a counter"]), 10)
    assert told.warnings == ["PromQL warning: ignored", "PromQL info: not a counter"]
    assert "Prometheus remarks: PromQL info: not a counter" in over(told)


def test_labels_are_escaped_and_bounded() -> None:
    found = success("vector", [{"metric": {"a": 'x"\n\\', "long": "y" * 5_000}, "value": [0, "1"]}])
    line = at(answer(found, 10)).splitlines()[1]
    assert line.startswith('{a="x\\"\\n\\\\", long="yyy')
    assert len(line) < 300
