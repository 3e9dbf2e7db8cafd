"""What times, durations and steps mean, and what is refused with what is allowed."""

from datetime import UTC, datetime

import pytest

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_prometheus.moments import duration_seconds, rfc3339, step_seconds, unix_seconds

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = 3600.0


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-01-31T12:00:00Z"),
        ("now-1h", "2026-01-31T11:00:00Z"),
        ("now - 1h30m", "2026-01-31T10:30:00Z"),
        ("now-7d", "2026-01-24T12:00:00Z"),
        ("now+5m", "2026-01-31T12:05:00Z"),
        ("now-90", "2026-01-31T11:58:30Z"),
        ("now-500ms", "2026-01-31T11:59:59.500Z"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00.250+01:00", "2026-01-31T09:00:00.250Z"),
        ("2026-01-31T10:00:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("1769853600", "2026-01-31T10:00:00Z"),
        ("1769853600.5", "2026-01-31T10:00:00.500Z"),
        (" now ", "2026-01-31T12:00:00Z"),
    ],
)
def test_a_time_is_relative_or_rfc_3339_or_unix_seconds(text: str, meant: str) -> None:
    assert rfc3339(unix_seconds("time", text, NOW)) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "now-",
        "-1h",
        "1h ago",
        "now-1 month",
        "31.01.2026",
        "1e400",
        "nan",
        "9" * 40,
        "now-1000y",
    ],
)
def test_any_other_time_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(CodedError, match=r"INVALID_INPUT: .* use .*(now-1h|1h30m)"):
        unix_seconds("time", text, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("2w", 1209600),
        ("1y", 31536000),
        ("15", 15),
        ("0.5", 0.5),
    ],
)
def test_a_duration_is_prometheus_own_or_seconds(text: str, seconds: float) -> None:
    assert duration_seconds("step", text) == seconds


@pytest.mark.parametrize("text", ["", "5 minutes", "m", "-5m", "1.5h", "5M"])
def test_any_other_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(CodedError, match=r"INVALID_INPUT: step is .*; use a duration such as 30s, 5m, 1h30m or 7d"):
        duration_seconds("step", text)


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (60, 15),
        (15 * 60, 15),
        (HOUR, 60),
        (6 * HOUR, 600),
        (24 * HOUR, 1800),
        (7 * 24 * HOUR, 10800),
        (365 * 24 * HOUR, 604800),
    ],
)
def test_the_step_that_is_chosen_is_round_and_gives_at_most_60_points(length: float, step: float) -> None:
    assert step_seconds(0, length, "") == step
    assert length / step <= 60


def test_a_range_of_many_years_has_no_more_points_either() -> None:
    step = step_seconds(0, 1_700_000_000, "")
    assert 1_700_000_000 / step <= 60
    assert step % 604800 == 0


def test_a_step_that_is_asked_for_is_kept() -> None:
    assert step_seconds(0, HOUR, "7s") == 7


@pytest.mark.parametrize("step", ["1s", "0", "0s", "3599ms"])
def test_a_step_that_gives_too_many_points_is_refused_with_the_least_that_is_allowed(step: str) -> None:
    with pytest.raises(CodedError, match=r"INVALID_INPUT: step is '.*'; for this range use 4s \(at most 1000 points\)"):
        step_seconds(0, HOUR, step)


@pytest.mark.parametrize("end", [0, 50])
def test_a_range_that_ends_before_it_starts_is_refused_with_both_ends(end: float) -> None:
    with pytest.raises(CodedError, match=r"INVALID_INPUT: start \(1970-01-01T00:00:50Z\) is not before end"):
        step_seconds(50, end, "")
