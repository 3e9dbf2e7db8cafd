"""Open-Meteo's answers, read strictly: what is not of the documented form raises ValueError, in words for a log."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from ropewalk_mcp_weather.places import Candidate, Place
from ropewalk_mcp_weather.units import WEATHER, Row, Variable


class _Geoname(BaseModel):
    name: str = Field(max_length=200)
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    timezone: str | None = None
    population: int = 0
    country: str | None = None
    country_code: str | None = None
    admin1: str | None = None
    admin2: str | None = None
    admin3: str | None = None
    admin4: str | None = None


class _Gazetteer(BaseModel):
    # Absent where nothing was found.
    results: list[_Geoname] = Field(default_factory=list, max_length=100)


def candidates(document: Any) -> list[Candidate]:
    """Return the places of a geocoding answer."""
    return [
        Candidate(
            Place(
                name=one.name,
                region=one.admin1,
                country=one.country,
                latitude=round(one.latitude, 4),
                longitude=round(one.longitude, 4),
                timezone=one.timezone,
            ),
            one.population,
            tuple(
                area.casefold()
                for area in (one.admin1, one.admin2, one.admin3, one.admin4, one.country, one.country_code)
                if area
            ),
        )
        for one in _Gazetteer.model_validate(document).results
    ]


def row(document: Any, section: str, variables: Sequence[Variable]) -> Row:
    """Return the one row of `current`."""
    part = _part(document, section)
    return _row(part.get("time"), variables, [part.get(variable.api) for variable in variables])


def rows(document: Any, section: str, variables: Sequence[Variable]) -> list[Row]:
    """Return the rows of `hourly` or `daily`, which come as one list a variable; there is at least one."""
    part = _part(document, section)
    columns = [part.get(name) for name in ("time", *(variable.api for variable in variables))]
    lists = [column for column in columns if isinstance(column, list)]
    if len(lists) < len(columns) or not lists[0]:
        raise ValueError(f"no lists in {section}")
    return [_row(time, variables, values) for time, *values in zip(*lists, strict=True)]


def _part(document: Any, section: str) -> dict[str, Any]:
    part = document.get(section) if isinstance(document, dict) else None
    if not isinstance(part, dict):
        raise ValueError(f"no {section}")
    return part


def _row(time: Any, variables: Sequence[Variable], values: Sequence[Any]) -> Row:
    datetime.fromisoformat(time)
    known: Row = {"time": time}
    for variable, value in zip(variables, values, strict=True):
        is_text = variable.kind.is_text and variable.kind != WEATHER
        if value is not None and not (isinstance(value, str) if is_text else _is_number(value)):
            raise ValueError(f"a {variable.api} that is none")
        known[variable.api] = value
    return known


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
