"""What the answers of the weather tools have in common: place and time zone, and a row for each day or hour."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from mcp_types import CallToolResult
from pydantic import BaseModel

from ropewalk_mcp_common.server import result
from ropewalk_mcp_weather.open_meteo import Weather
from ropewalk_mcp_weather.places import Place
from ropewalk_mcp_weather.text import line
from ropewalk_mcp_weather.units import Row, Units, Value, Variable, model, record

DATE = (str, "The day, from midnight to midnight")


def answer_model(name: str, doc: str, variables: Iterable[Variable] = (), **others: tuple[Any, str]) -> type[BaseModel]:
    """Return the model of an answer: place and time zone, then the other fields and the variables, as in `model`."""
    return model(name, doc, variables, place=(Place, "Where"), timezone=(str, "The time zone of all times"), **others)


def answer(kind: type[BaseModel], weather: Weather, /, **others: Any) -> BaseModel:
    """Return an answer about this weather, of a kind that `answer_model` made."""
    return kind.model_validate({"place": weather.place, "timezone": weather.timezone, **others})


def records(
    rows: Sequence[Row], variables: Sequence[Variable], units: Units, time: Literal["date", "time_local"]
) -> list[dict[str, Value]]:
    """Return the rows under the names of an answer, each with its day or its hour in the field `time`."""
    return [{time: row["time"], **record(row, variables, units)} for row in rows]


def lines(rows: Sequence[Row], variables: Sequence[Variable], units: Units) -> list[str]:
    """Return the rows as text, each behind its day or its hour."""
    return [line(str(row["time"]), row, variables, units) for row in rows]


def each_row(
    begins: str, kind: type[BaseModel], weather: Weather, variables: Sequence[Variable], units: Units
) -> CallToolResult:
    """Return the result of a tool that tells hour by hour (`hours`) or day by day (`days`), whichever was asked for.

    begins: what the text says before the place.
    """
    text = [
        f"{begins} {weather.place} ({weather.timezone}):",
        *lines(weather.hourly or weather.daily, variables, units),
    ]
    if weather.hourly:
        found = answer(kind, weather, hours=records(weather.hourly, variables, units, "time_local"))
    else:
        found = answer(kind, weather, days=records(weather.daily, variables, units, "date"))
    return result("\n".join(text), found)
