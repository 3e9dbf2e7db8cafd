"""GET /v1/forecast, /v1/archive and /v1/search in the form that Open-Meteo documents, and GET /health."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from open_meteo_stand_in import climate, gazetteer, query
from open_meteo_stand_in.query import Asked, Refused

WHAT_IT_IS = "a stand-in for Open-Meteo: the weather is made up"
# Younger days are not in the archive yet: it answers null.
_ARCHIVE_LAG = timedelta(days=2)
_OTHER_UNITS: dict[str, tuple[str, str, Callable[[float], float]]] = {
    "°C": ("fahrenheit", "°F", lambda value: value * 1.8 + 32),
    "km/h": ("mph", "mp/h", lambda value: value / 1.609344),
    "mm": ("inch", "inch", lambda value: value / 25.4),
    "cm": ("inch", "inch", lambda value: value / 2.54),
}


def create_app(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Starlette:
    """Return the ASGI application; now: the moment that forecasts begin with, with a time zone."""

    async def forecast(request: Request) -> Response:
        asked = query.forecast(request.query_params, now())
        return JSONResponse(_document(asked, datetime.max))

    async def archive(request: Request) -> Response:
        asked = query.archive(request.query_params, now())
        return JSONResponse(_document(asked, asked.now - _ARCHIVE_LAG))

    async def search(request: Request) -> Response:
        name, count, country = query.search(request.query_params)
        places = gazetteer.found(name, count, country)
        # As Open-Meteo does: without a result there is no list at all.
        return JSONResponse(({"results": places} if places else {}) | {"generationtime_ms": 0.5})

    async def refused(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": True, "reason": str(error)}, 400)

    return Starlette(
        routes=[
            Route("/v1/forecast", forecast),
            Route("/v1/archive", archive),
            Route("/v1/search", search),
            Route("/health", JSONResponse({"status": "ok", "server": WHAT_IT_IS})),
        ],
        exception_handlers={Refused: refused},
    )


def _document(asked: Asked, known_until: datetime) -> dict[str, Any]:
    offset = ZoneInfo(asked.timezone).utcoffset(asked.now)
    document: dict[str, Any] = {
        "latitude": round(asked.latitude, 2),
        "longitude": round(asked.longitude, 2),
        "generationtime_ms": 0.1,
        "utc_offset_seconds": int(offset.total_seconds()) if offset else 0,
        "timezone": asked.timezone,
        "timezone_abbreviation": asked.timezone,
        "elevation": 38.0,
    }
    if asked.current:
        units, values = _columns(asked, asked.current, climate.HOURLY, [asked.now], known_until)
        document["current_units"] = {"time": "iso8601", "interval": "seconds"} | units
        document["current"] = {"time": _text(asked.now), "interval": 900} | {k: v[0] for k, v in values.items()}
    if asked.hourly:
        units, values = _columns(asked, asked.hourly, climate.HOURLY, asked.hours, known_until)
        document["hourly_units"] = {"time": "iso8601"} | units
        document["hourly"] = {"time": [_text(hour) for hour in asked.hours]} | values
    if asked.daily:
        units, values = _columns(asked, asked.daily, climate.DAILY, asked.days, known_until)
        document["daily_units"] = {"time": "iso8601"} | units
        document["daily"] = {"time": [day.date().isoformat() for day in asked.days]} | values
    return document


def _columns(
    asked: Asked, names: list[str], known: Any, moments: list[datetime], known_until: datetime
) -> tuple[dict[str, str], dict[str, list[Any]]]:
    units, values = {}, {}
    for name in names:
        unit, made_up = known[name]
        word, symbol, convert = _OTHER_UNITS.get(unit, ("", unit, float))
        other = word in asked.units.values()
        units[name] = symbol if other else unit
        column = [made_up(asked.latitude, moment) if moment <= known_until else None for moment in moments]
        values[name] = [
            round(convert(value) if other else value, 3 if "moisture" in name else 2 if word == "inch" else 1)
            if isinstance(value, int | float)
            else value
            for value in column
        ]
    return units, values


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")
