"""The query of a request, judged as Open-Meteo documents its parameters, and more strictly: an unknown one is refused.

Open-Meteo itself takes no notice of a parameter that it does not know; here it is a mistake, so that a test sees it.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from open_meteo_stand_in import climate, gazetteer

# Longer ones are out of any range, and the longest are more than Python reads.
_WHOLE = re.compile(r"-?\d{1,9}")
_FIRST_DAY = date(1940, 1, 1)
_UNITS = {
    "temperature_unit": ("celsius", "fahrenheit"),
    "wind_speed_unit": ("kmh", "mph"),
    "precipitation_unit": ("mm", "inch"),
}
_SPAN = {"start_date", "end_date"}
_COMMON = {"latitude", "longitude", "timezone", "hourly", "daily", *_UNITS, *_SPAN}
_FORECAST = _COMMON | {"current", "forecast_days", "forecast_hours"}


class Refused(Exception):
    """What Open-Meteo answers with status 400: {"error": true, "reason": ...}."""


@dataclass(frozen=True)
class Asked:
    """A query that was right. Times are local."""

    latitude: float
    longitude: float
    timezone: str
    now: datetime
    days: list[datetime]
    hours: list[datetime]
    current: list[str] = field(default_factory=list)
    hourly: list[str] = field(default_factory=list)
    daily: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)


def forecast(query: Mapping[str, str], now: datetime) -> Asked:
    """Return what is asked of /v1/forecast; now: with a time zone. Raises Refused."""
    _known(query, _FORECAST)
    place = _place(query)
    local = now.astimezone(ZoneInfo(place[2])).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    today = local.date()
    days = _whole(query, "forecast_days", 7, 0, 16)
    first, last = today, today + timedelta(days=days - 1)
    if _SPAN & query.keys():
        if "forecast_days" in query:
            raise Refused("Parameter 'forecast_days' is mutually exclusive with 'start_date' and 'end_date'")
        first, last = _span(query, today - timedelta(days=92), today + timedelta(days=15))
    hours = _hours(first, last)
    if "forecast_hours" in query:
        count = _whole(query, "forecast_hours", 1, 1, 384)
        hours = [local + timedelta(hours=hour) for hour in range(count)]
    return _asked(query, place, local, _days(first, last), hours)


def archive(query: Mapping[str, str], now: datetime) -> Asked:
    """Return what is asked of /v1/archive. Raises Refused."""
    _known(query, _COMMON)
    place = _place(query)
    local = now.astimezone(ZoneInfo(place[2])).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    for name in sorted(_SPAN, reverse=True):
        if name not in query:
            raise Refused(f"Parameter '{name}' is required")
    first, last = _span(query, _FIRST_DAY, local.date())
    return _asked(query, place, local, _days(first, last), _hours(first, last))


def search(query: Mapping[str, str]) -> tuple[str, int, str]:
    """Return name, count and country of a query of /v1/search. Raises Refused."""
    _known(query, {"name", "count", "language", "format", "countryCode"})
    if "name" not in query:
        raise Refused("Value required for key 'name'.")
    if query.get("format", "json") != "json":
        raise Refused("the stand-in answers in JSON only")
    count = query.get("count", "10")
    if not _WHOLE.fullmatch(count) or not 1 <= int(count) <= 100:
        raise Refused("Parameter count must be between 1 and 100.")
    return query["name"], int(count), query.get("countryCode", "")


def _asked(
    query: Mapping[str, str],
    place: tuple[float, float, str],
    now: datetime,
    days: list[datetime],
    hours: list[datetime],
) -> Asked:
    units = {}
    for name, allowed in _UNITS.items():
        units[name] = query.get(name, allowed[0])
        if units[name] not in allowed:
            raise Refused(
                f"Data corrupted at path ''. Cannot initialize {name} from invalid String value {units[name]}."
            )
    return Asked(
        *place,
        now,
        days,
        hours,
        _variables(query, "current", climate.HOURLY),
        _variables(query, "hourly", climate.HOURLY),
        _variables(query, "daily", climate.DAILY),
        units,
    )


def _known(query: Mapping[str, str], names: Collection[str]) -> None:
    for name in query:
        if name not in names:
            raise Refused(f"Unknown parameter '{name}'")


def _variables(query: Mapping[str, str], section: str, known: Collection[str]) -> list[str]:
    names = query[section].split(",") if section in query else []
    for name in names:
        if name not in known:
            raise Refused(
                f"Data corrupted at path ''. Cannot initialize WeatherVariable from invalid String value {name} for "
                f"key {section}."
            )
    return names


def _place(query: Mapping[str, str]) -> tuple[float, float, str]:
    found = []
    for name, most in (("latitude", 90), ("longitude", 180)):
        try:
            degrees = float(query[name])
        except (KeyError, ValueError):
            raise Refused(f"Parameter '{name}' must be a number") from None
        if not abs(degrees) <= most:
            raise Refused(f"{name.capitalize()} must be in range of -{most} to {most}°. Given: {degrees}.")
        found.append(degrees)
    zone = query.get("timezone", "GMT")
    if zone == "auto":
        zone = gazetteer.timezone(*found)
    try:
        ZoneInfo(zone)
    # A name that is a folder, or too long for a file, is an OSError.
    except (KeyError, ValueError, OSError):
        raise Refused("Invalid timezone") from None
    return found[0], found[1], zone


def _whole(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        words = name.replace("_", " ").capitalize()
        raise Refused(f"{words} is invalid. Allowed range {least} to {most}. Given {text}.")
    return int(text)


def _span(query: Mapping[str, str], first: date, last: date) -> tuple[date, date]:
    days = []
    for name in ("start_date", "end_date"):
        try:
            day = date.fromisoformat(query[name])
        except (KeyError, ValueError):
            raise Refused(f"Parameter '{name}' must be a date as YYYY-MM-DD") from None
        if not first <= day <= last:
            raise Refused(f"Parameter '{name}' is out of allowed range from {first} to {last}")
        days.append(day)
    if days[0] > days[1]:
        raise Refused("End-date must be larger or equals than start-date")
    return days[0], days[1]


def _days(first: date, last: date) -> list[datetime]:
    count = (last - first).days + 1
    return [datetime(first.year, first.month, first.day) + timedelta(days=day) for day in range(count)]


def _hours(first: date, last: date) -> list[datetime]:
    return [day + timedelta(hours=hour) for day in _days(first, last) for hour in range(24)]
