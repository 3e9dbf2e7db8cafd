"""Open-Meteo's public API (open-meteo.com/en/docs): forecasts, history since 1940, and places by name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_upstream.client import Limits, Upstream
from ropewalk_mcp_weather import documents
from ropewalk_mcp_weather.places import Candidate, Place, coordinates, meant, parts
from ropewalk_mcp_weather.units import QUERY, Row, Units, Variable

# The free API allows 600 calls a minute and 10,000 a day. A refusal names no time to wait, and most are for a minute.
LIMITS = Limits(requests_per_second=2, burst=10, pause_seconds=60)
# All that one tool call asks for together; an agent waits 30 seconds for it by default.
CALL_SECONDS = 20.0
_FORECAST_CACHE_SECONDS = 600.0
# The youngest days come late and are mended for some days.
_ARCHIVE_CACHE_SECONDS = 3600.0
_PLACES_CACHE_SECONDS = 604_800.0
_FORECAST = ("https://api.open-meteo.com", "/v1/forecast")
_ARCHIVE = ("https://archive-api.open-meteo.com", "/v1/archive")
_PLACES = ("https://geocoding-api.open-meteo.com", "/v1/search")


@dataclass(frozen=True)
class Weather:
    """An answer: the rows that were asked for, under Open-Meteo's names, with local times."""

    place: Place
    timezone: str
    current: Row = field(default_factory=dict)
    hourly: list[Row] = field(default_factory=list)
    daily: list[Row] = field(default_factory=list)


class OpenMeteo:
    """The API: Open-Meteo's own, which is on several hosts, or all of it at one base URL."""

    def __init__(self, upstream: Upstream, base_url: str = "") -> None:
        self.lifespan = upstream.lifespan
        self._upstream = upstream
        self._base_url = base_url

    @asynccontextmanager
    async def one_call(self) -> AsyncIterator[None]:
        """Bound all requests of one tool call together; raises UPSTREAM_TIMEOUT."""
        async with self._upstream.deadline(CALL_SECONDS):
            yield

    @asynccontextmanager
    async def one_call_at(self, text: str) -> AsyncIterator[Place]:
        """Give the place that a name or coordinates mean, and bound all requests, that for the place too.

        Raises NOT_FOUND, INVALID_INPUT with the candidates, or UPSTREAM_TIMEOUT.
        """
        async with self.one_call():
            yield coordinates(text) or meant(text, await self.candidates(text))

    async def candidates(self, text: str) -> list[Candidate]:
        """Return the places of this name, in Open-Meteo's order, at most 100."""
        query = {"name": parts(text)[0], "count": "100", "language": "en", "format": "json"}
        async with self._asked(_PLACES, query, _PLACES_CACHE_SECONDS, "no list of places") as document:
            return documents.candidates(document)

    async def forecast(
        self,
        place: Place,
        units: Units,
        *,
        current: Sequence[Variable] = (),
        hourly: Sequence[Variable] = (),
        daily: Sequence[Variable] = (),
        **span: str,
    ) -> Weather:
        """Return a forecast; span: forecast_days, forecast_hours, or start_date and end_date."""
        query = _query(place, units, current=current, hourly=hourly, daily=daily) | span
        async with self._asked(_FORECAST, query, _FORECAST_CACHE_SECONDS, "no weather") as document:
            return _weather(place, document, current, hourly, daily)

    async def archive(
        self,
        place: Place,
        units: Units,
        start: date,
        end: date,
        *,
        hourly: Sequence[Variable] = (),
        daily: Sequence[Variable] = (),
    ) -> Weather:
        """Return what was, from the first to the last day, both included."""
        query = _query(place, units, hourly=hourly, daily=daily)
        query |= {"start_date": start.isoformat(), "end_date": end.isoformat()}
        async with self._asked(_ARCHIVE, query, _ARCHIVE_CACHE_SECONDS, "no weather") as document:
            return _weather(place, document, (), hourly, daily)

    @asynccontextmanager
    async def _asked(
        self, endpoint: tuple[str, str], query: dict[str, str], cache_seconds: float, otherwise: str
    ) -> AsyncIterator[Any]:
        """Give the document; one that the block cannot read is UPSTREAM_INVALID: `otherwise` is what it was."""
        host, path = endpoint
        url = (self._base_url or host) + path
        async with self._upstream.asked(url, query, cache_seconds=cache_seconds) as answer:
            document = self._upstream.document(answer)
            if answer.status == 400 and isinstance(document, dict) and isinstance(document.get("reason"), str):
                raise CodedError("INVALID_INPUT", f"Open-Meteo refuses this: {document['reason'][:300]}")
            if answer.status != 200:
                raise self._upstream.invalid(f"status {answer.status}")
            try:
                yield document
            except (ValueError, KeyError, TypeError):
                raise self._upstream.invalid(otherwise) from None


def _weather(
    place: Place, document: Any, current: Sequence[Variable], hourly: Sequence[Variable], daily: Sequence[Variable]
) -> Weather:
    return Weather(
        place,
        str(document["timezone"])[:100],
        documents.row(document, "current", current) if current else {},
        documents.rows(document, "hourly", hourly) if hourly else [],
        documents.rows(document, "daily", daily) if daily else [],
    )


def _query(place: Place, units: Units, **sections: Sequence[Variable]) -> dict[str, str]:
    wanted = {section: ",".join(variable.api for variable in names) for section, names in sections.items() if names}
    at = {"latitude": str(place.latitude), "longitude": str(place.longitude), "timezone": "auto"}
    return at | wanted | QUERY[units]
