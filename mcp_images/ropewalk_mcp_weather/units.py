"""What is measured: its name at Open-Meteo, its name in an answer (which ends in the unit), and how it is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, create_model

from ropewalk_mcp_weather.codes import weather

Units = Literal["metric", "imperial"]
Value = float | str | None
Row = dict[str, Value]

QUERY: dict[Units, dict[str, str]] = {
    "metric": {"temperature_unit": "celsius", "wind_speed_unit": "kmh", "precipitation_unit": "mm"},
    "imperial": {"temperature_unit": "fahrenheit", "wind_speed_unit": "mph", "precipitation_unit": "inch"},
}


@dataclass(frozen=True)
class Kind:
    """A kind of quantity: for each unit system the end of a field's name, and the symbol behind a number."""

    metric: tuple[str, str]
    imperial: tuple[str, str]
    is_text: bool = False

    def suffix(self, units: Units) -> str:
        """Return the end of a field's name, such as celsius."""
        return (self.metric if units == "metric" else self.imperial)[0]

    def symbol(self, units: Units) -> str:
        """Return what stands behind a number, such as °C."""
        return (self.metric if units == "metric" else self.imperial)[1]


def _same(suffix: str, symbol: str) -> Kind:
    return Kind((suffix, symbol), (suffix, symbol))


TEMPERATURE = Kind(("celsius", "°C"), ("fahrenheit", "°F"))
DEGREE_DAYS = Kind(("celsius", ""), ("fahrenheit", ""))
PRECIPITATION = Kind(("mm", " mm"), ("inch", " in"))
WIND_SPEED = Kind(("kmh", " km/h"), ("mph", " mph"))
SNOW = Kind(("cm", " cm"), ("inch", " in"))
PERCENT = _same("percent", "%")
DEGREES = _same("degrees", "°")
PRESSURE = _same("hpa", " hPa")
MOISTURE = _same("m3_per_m3", " m³/m³")
INDEX = _same("", "")
# Open-Meteo's weather code, which an answer gives in words, and a moment in local time.
WEATHER = Kind(("", ""), ("", ""), is_text=True)
MOMENT = Kind(("local_time", ""), ("local_time", ""), is_text=True)


@dataclass(frozen=True)
class Variable:
    """One variable: `api` is Open-Meteo's name for it, `field` ours, without the unit."""

    api: str
    field: str
    kind: Kind
    description: str

    def name(self, units: Units) -> str:
        """Return the name of its field in an answer, such as temperature_celsius."""
        suffix = self.kind.suffix(units)
        return f"{self.field}_{suffix}" if suffix else self.field

    def value(self, row: Row) -> Value:
        """Return its value for an answer; None where Open-Meteo has none."""
        value = row[self.api]
        return weather(value) if self.kind == WEATHER else value

    def shown(self, row: Row, units: Units) -> str:
        """Return its value with its unit, as a model reads it; a dash where there is none."""
        value = self.value(row)
        if value is None:
            return "–"
        return value if isinstance(value, str) else f"{value:g}{self.kind.symbol(units)}"


def record(row: Row, variables: Iterable[Variable], units: Units) -> dict[str, Value]:
    """Return a row under the names of an answer, without what has no value."""
    named = {variable.name(units): variable.value(row) for variable in variables}
    return {name: value for name, value in named.items() if value is not None}


def model(name: str, doc: str, variables: Iterable[Variable], **others: tuple[Any, str]) -> type[BaseModel]:
    """Return the model of a record: a field for each variable in each unit system, of which an answer has one.

    others: further fields, each with its type and description.
    """
    fields: dict[str, Any] = {
        other: (kind, Field(description=description)) for other, (kind, description) in others.items()
    }
    for variable in variables:
        kind = str if variable.kind.is_text else float
        for units in get_args(Units):
            fields.setdefault(variable.name(units), (kind | None, Field(None, description=variable.description)))
    return create_model(name, __doc__=doc, **fields)


def as_numbers(rows: Iterable[Mapping[str, Value]], name: str) -> list[float]:
    """Return the numbers of one variable, without the rows that have none."""
    return [value for row in rows if isinstance(value := row[name], int | float)]
