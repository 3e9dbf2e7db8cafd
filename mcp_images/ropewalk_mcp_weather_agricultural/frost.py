"""Which of the next nights may bring frost. Pure.

A night is 18:00 to 09:00 local time, named by the day on which it begins: the minimum of a night mostly comes around
sunrise. Open-Meteo forecasts the air 2 m above the ground, and the rule judges its minimum:

- severe_frost: -2.2 °C (28 °F) or less, at which the weather service of the United States speaks of a hard freeze, as
  most tender plants are killed;
- frost: 0 °C or less, the air frost of the meteorologists;
- ground_frost_possible: 4 °C (39.2 °F) or less in a calm and clear hour. Such nights cool by radiation, and the ground
  may then be several degrees colder than the air above it. Calm and clear is less than 2 m/s of wind, the condition for
  radiation frost in Snyder and de Melo-Abreu, "Frost protection" (FAO, 2005, chapter 5), and at most a quarter of the
  sky covered, which observers call few clouds;
- none otherwise.

It is a rule of thumb: hollows are colder than the grid cell that the forecast is for, and plants differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal

from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.units import TEMPERATURE, Row, Units, Variable

Risk = Literal["severe_frost", "frost", "ground_frost_possible", "none"]

HOURLY = (of.TEMPERATURE_NOW, of.WIND, of.CLOUDS)
LOWEST = Variable("lowest", "temperature_min", TEMPERATURE, "Lowest air temperature of the night, 2 m above the ground")
_FEW_CLOUDS_PERCENT = 25


@dataclass(frozen=True)
class _Limits:
    severe: float
    frost: float
    ground: float
    calm: float


_LIMITS: dict[Units, _Limits] = {
    "metric": _Limits(severe=-2.2, frost=0, ground=4, calm=7.2),
    "imperial": _Limits(severe=28, frost=32, ground=39.2, calm=4.5),
}


@dataclass(frozen=True)
class Night:
    """A night: the day on which it begins, and its minimum with its hour in local time."""

    date: str
    risk: Risk
    lowest: float
    coldest_local_time: str


def nights(hours: Sequence[Row], units: Units) -> list[Night]:
    """Return the nights that these rows of HOURLY are of, without those of which nothing is known."""
    judged = []
    in_nights = [(name, row) for row in hours if (name := _night(str(row["time"])))]
    for name, group in groupby(in_nights, lambda pair: pair[0]):
        rows = [row for _, row in group if isinstance(row[of.TEMPERATURE_NOW.api], int | float)]
        if rows:
            coldest = min(rows, key=lambda row: _number(row, of.TEMPERATURE_NOW))
            lowest = _number(coldest, of.TEMPERATURE_NOW)
            risk = max((_risk(row, _LIMITS[units]) for row in rows), key=_RANKS.index)
            judged.append(Night(name, risk, lowest, str(coldest["time"])))
    return judged


_RANKS: tuple[Risk, ...] = ("none", "ground_frost_possible", "frost", "severe_frost")


def _risk(row: Row, limits: _Limits) -> Risk:
    temperature = _number(row, of.TEMPERATURE_NOW)
    if temperature <= limits.severe:
        return "severe_frost"
    if temperature <= limits.frost:
        return "frost"
    calm = _number(row, of.WIND) < limits.calm
    clear = _number(row, of.CLOUDS) <= _FEW_CLOUDS_PERCENT
    return "ground_frost_possible" if temperature <= limits.ground and calm and clear else "none"


def _number(row: Row, variable: Variable) -> float:
    # What is not known of wind and clouds must not make a night safer than it is.
    value = row[variable.api]
    return value if isinstance(value, int | float) else 0.0


def _night(local_time: str) -> str:
    """Return the day on which the night of this hour begins; empty for an hour of the day."""
    moment = datetime.fromisoformat(local_time)
    if moment.hour >= 18:
        return moment.date().isoformat()
    return (moment.date() - timedelta(days=1)).isoformat() if moment.hour < 9 else ""
