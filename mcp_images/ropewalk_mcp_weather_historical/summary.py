"""Many days in a few numbers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.units import PRECIPITATION, SNOW, TEMPERATURE, Row, Units, Variable, as_numbers

MEAN = Variable("temperature_2m_mean", "temperature_mean", TEMPERATURE, "Mean air temperature of the day")
SNOWFALL = Variable("snowfall_sum", "snowfall", SNOW, "Fresh snow of the day")
DAILY = (
    of.WEATHER_NOW,
    MEAN,
    of.TEMPERATURE_MIN,
    of.TEMPERATURE_MAX,
    of.PRECIPITATION_SUM,
    SNOWFALL,
    of.WIND_MAX,
    of.GUSTS_MAX,
)
# A day on which at least a millimetre falls is a day with precipitation (WMO climatological practice: RR1).
_WET_DAY: dict[Units, float] = {"metric": 1.0, "imperial": 0.04}
AVERAGE = Variable("mean", "temperature_mean", TEMPERATURE, "Mean temperature of all days")
LOWEST = Variable("lowest", "temperature_lowest", TEMPERATURE, "Lowest temperature of any day")
HIGHEST = Variable("highest", "temperature_highest", TEMPERATURE, "Highest temperature of any day")
TOTAL = Variable("total", "precipitation_total", PRECIPITATION, "All precipitation together")
SUMMARY = (AVERAGE, LOWEST, HIGHEST, TOTAL)


@dataclass(frozen=True)
class Summary:
    """What the days come to; `values` under the names of SUMMARY, None where no day has a value."""

    values: Row
    wet_days: int
    days_without_data: int


def summary(days: Sequence[Row], units: Units) -> Summary:
    """Return what these rows of DAILY come to."""
    means, rain = as_numbers(days, MEAN.api), as_numbers(days, of.PRECIPITATION_SUM.api)
    lowest, highest = as_numbers(days, of.TEMPERATURE_MIN.api), as_numbers(days, of.TEMPERATURE_MAX.api)
    return Summary(
        {
            AVERAGE.api: round(sum(means) / len(means), 1) if means else None,
            LOWEST.api: min(lowest, default=None),
            HIGHEST.api: max(highest, default=None),
            TOTAL.api: round(sum(rain), 2) if rain else None,
        },
        sum(amount >= _WET_DAY[units] for amount in rain),
        len(days) - len(means),
    )
