"""Soil temperature and moisture by depth, as Open-Meteo's forecast has them. Pure."""

from collections.abc import Sequence
from itertools import groupby

from ropewalk_mcp_weather.units import MOISTURE, TEMPERATURE, Row, Variable, as_numbers

SOIL = (
    *(
        Variable(f"soil_temperature_{depth}cm", f"soil_temperature_{depth}cm", TEMPERATURE, where)
        for depth, where in (
            (0, "Temperature of the surface"),
            (6, "Soil temperature at 6 cm"),
            (18, "Soil temperature at 18 cm"),
            (54, "Soil temperature at 54 cm"),
        )
    ),
    *(
        Variable(
            f"soil_moisture_{top}_to_{bottom}cm",
            f"soil_moisture_{top}_to_{bottom}cm",
            MOISTURE,
            f"Water in the soil from {top} to {bottom} cm, as a part of its volume",
        )
        for top, bottom in ((0, 1), (1, 3), (3, 9), (9, 27), (27, 81))
    ),
)


def daily_means(hours: Sequence[Row]) -> list[Row]:
    """Return a row for each day that the hours are of, with the mean of each variable; None where none has a value."""
    days: list[Row] = []
    for day, rows in groupby(hours, lambda row: str(row["time"])[:10]):
        same_day = list(rows)
        means: Row = {"time": day}
        for variable in SOIL:
            values = as_numbers(same_day, variable.api)
            digits = 3 if variable.kind is MOISTURE else 1
            means[variable.api] = round(sum(values) / len(values), digits) if values else None
        days.append(means)
    return days
