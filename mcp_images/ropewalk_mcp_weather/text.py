"""How a model reads weather: one line for each hour or day."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ropewalk_mcp_weather.units import WEATHER, Row, Units, Variable

UnitsArgument = Annotated[
    Units, Field(description="metric: °C, km/h, mm. imperial: °F, mph, inch. Fields are named by their units")
]


def line(head: str, row: Row, variables: Sequence[Variable], units: Units) -> str:
    """Return a row as text: the weather in words, then each value behind its name."""
    shown = [
        variable.shown(row, units)
        if variable.kind == WEATHER
        else f"{variable.field.replace('_', ' ')} {variable.shown(row, units)}"
        for variable in variables
    ]
    return f"{head}: {', '.join(shown)}"
