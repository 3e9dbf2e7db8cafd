"""What the arguments for times and steps mean. Pure: the clock is an argument."""

import math
import re
from datetime import UTC, datetime

from ropewalk_mcp_common.errors import CodedError

# The default step divides a range into at most so many parts, a step of one's own into that many: both ends are points.
DEFAULT_POINTS = 60
MAX_POINTS = 1_000
# The year 9999: beyond it a moment has no RFC 3339 form.
_LAST = 253_402_300_799
_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_DURATION = re.compile(r"(\d{1,9}(ms|[smhdwy]))+")
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_RELATIVE = re.compile(r"now(?:\s*([-+])\s*(\S+))?")
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?")


def duration_seconds(what: str, text: str) -> float:
    """Return the seconds that 30s, 5m or 1h30m means (Prometheus' own notation), or a number of seconds."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise CodedError("INVALID_INPUT", f"{what} is {text[:100]!r}; use a duration such as 30s, 5m, 1h30m or 7d")
    return seconds


def unix_seconds(what: str, text: str, now: datetime) -> float:
    """Return the moment that an argument means, in seconds since 1970 (UTC).

    It may be relative (now, now-1h30m), RFC 3339 (UTC where it names no zone) or such a number of seconds.
    """
    text = text.strip()
    if relative := _RELATIVE.fullmatch(text):
        sign, span = relative.groups()
        moment = now.timestamp()
        if span:
            moment += (-1 if sign == "-" else 1) * duration_seconds(what, span)
    elif _NUMBER.fullmatch(text):
        moment = float(text)
    else:
        try:
            parsed = datetime.fromisoformat(text)
            moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            moment = math.nan
    if not 0 <= moment <= _LAST:
        raise CodedError(
            "INVALID_INPUT",
            f"{what} is {text[:100]!r}; use now, now-1h (or 5m, 7d), 2026-01-31T10:00:00Z or Unix seconds",
        )
    return moment


def step_seconds(start: float, end: float, asked: str) -> float:
    """Return the time between two points of a range: the one asked for, or a round one for at most 60 parts."""
    length = end - start
    if length <= 0:
        raise CodedError("INVALID_INPUT", f"start ({rfc3339(start)}) is not before end ({rfc3339(end)}); exchange them")
    if not asked:
        widest = _STEPS[-1]
        return next((step for step in _STEPS if length / step <= DEFAULT_POINTS),
                    math.ceil(length / DEFAULT_POINTS / widest) * widest)  # fmt: skip
    step = duration_seconds("step", asked)
    if step <= 0 or length / step > MAX_POINTS:
        least = max(math.ceil(length / MAX_POINTS), 1)
        raise CodedError(
            "INVALID_INPUT",
            f"step is {asked[:100]!r}; for this range use {least}s (at most {MAX_POINTS} points) or more",
        )
    return step


def rfc3339(seconds: float) -> str:
    """Return a moment in UTC, to the second, or to the millisecond where it is between two."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond >= 1000 else "seconds").replace("+00:00", "Z")
