"""The tools of the historical server: what they take, what they ask Open-Meteo, and what they answer."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from mcp_types import CallToolResult
from prometheus_client import CollectorRegistry

from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.answers import DATE, answer, answer_model, each_row, lines, records
from ropewalk_mcp_weather.dates import FIRST_DAY, EndDate, StartDate, check_range
from ropewalk_mcp_weather.open_meteo import OpenMeteo
from ropewalk_mcp_weather.places import PlaceArgument
from ropewalk_mcp_weather.text import UnitsArgument, line
from ropewalk_mcp_weather.tool_server import weather_server
from ropewalk_mcp_weather.units import model, record
from ropewalk_mcp_weather_historical.summary import DAILY, SUMMARY, summary

_MAX_DAYS = 366
_MAX_DAYS_BY_HOUR = 7
# More days than these are in the structured answer only: a model reads the summary.
_DAYS_IN_TEXT = 31
HOURLY = (of.WEATHER_NOW, of.TEMPERATURE_NOW, of.HUMIDITY, of.PRECIPITATION_NOW, of.WIND, of.GUSTS)

_Day = model("Day", "One day.", DAILY, date=DATE)
_Hour = model("Hour", "One hour.", HOURLY, time_local=(str, "When it began"))
_Summary = model(
    "Summary",
    "What all days come to.",
    SUMMARY,
    wet_days=(int, "Days with at least 1 mm of precipitation"),
    days_without_data=(int, "Days that Open-Meteo has no data for, or none yet"),
)
DailyHistory = answer_model(
    "DailyHistory",
    "The weather of these days.",
    summary=(_Summary, "What all days come to"),
    days=(list[_Day], "The first day first"),  # type: ignore[valid-type]
)
HourlyHistory = answer_model(
    "HourlyHistory",
    "The weather of these hours.",
    hours=(list[_Hour], "The first hour first"),  # type: ignore[valid-type]
)


class HistoricalTools:
    """The two tools, over one connection to Open-Meteo."""

    def __init__(self, api: OpenMeteo, today: Callable[[], date]) -> None:
        self._api = api
        self._today = today

    async def daily_history(
        self, place: PlaceArgument, start_date: StartDate, end_date: EndDate, units: UnitsArgument = "metric"
    ) -> Annotated[CallToolResult, DailyHistory]:
        """Tell the weather of past days, of at most a year at once, since 1940: each day, and what they come to."""
        self._check(start_date, end_date, _MAX_DAYS)
        async with self._api.one_call_at(place) as where:
            weather = await self._api.archive(where, units, start_date, end_date, daily=DAILY)
        days, overall = weather.daily, summary(weather.daily, units)
        found = answer(
            DailyHistory,
            weather,
            summary={
                **record(overall.values, SUMMARY, units),
                "wet_days": overall.wet_days,
                "days_without_data": overall.days_without_data,
            },
            days=records(days, DAILY, units, "date"),
        )
        text = [
            f"Weather in {where} from {start_date} to {end_date} ({weather.timezone}):",
            line("All days", overall.values, SUMMARY, units) + f", wet days {overall.wet_days} of {len(days)}",
        ]
        if overall.days_without_data:
            text.append(f"{overall.days_without_data} days have no data, or none yet: it comes some days late.")
        if len(days) <= _DAYS_IN_TEXT:
            text += lines(days, DAILY, units)
        else:
            text.append(f"For the text of single days ask for at most {_DAYS_IN_TEXT} at once.")
        return result("\n".join(text), found)

    async def hourly_history(
        self, place: PlaceArgument, start_date: StartDate, end_date: EndDate, units: UnitsArgument = "metric"
    ) -> Annotated[CallToolResult, HourlyHistory]:
        """Tell the weather of past hours, of at most 7 days at once, since 1940."""
        self._check(start_date, end_date, _MAX_DAYS_BY_HOUR)
        async with self._api.one_call_at(place) as where:
            weather = await self._api.archive(where, units, start_date, end_date, hourly=HOURLY)
        return each_row("Weather in", HourlyHistory, weather, HOURLY, units)

    def _check(self, start: date, end: date, max_days: int) -> None:
        yesterday = self._today() - timedelta(days=1)
        after = "; later days are weather-forecast's"
        check_range(start, end, first=FIRST_DAY, last=yesterday, max_days=max_days, after=after)


def historical_server(
    api: OpenMeteo, registry: CollectorRegistry, today: Callable[[], date] = lambda: datetime.now(UTC).date()
) -> ToolServer:
    """Return the server with its two tools."""
    tools = HistoricalTools(api, today)
    instructions = "The weather of any day since 1940."
    return weather_server(
        "ropewalk-weather-historical", instructions, registry, api, tools.daily_history, tools.hourly_history
    )
