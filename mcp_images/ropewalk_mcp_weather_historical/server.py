"""The tools of the historical server: what they take, what they ask Open-Meteo, and what they answer."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from mcp_types import CallToolResult, ToolAnnotations
from prometheus_client import CollectorRegistry

from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.dates import FIRST_DAY, EndDate, StartDate, check_range
from ropewalk_mcp_weather.open_meteo import OpenMeteo
from ropewalk_mcp_weather.places import Place, PlaceArgument
from ropewalk_mcp_weather.text import UnitsArgument, line
from ropewalk_mcp_weather.units import model, record
from ropewalk_mcp_weather_historical.summary import DAILY, SUMMARY, summary

_MAX_DAYS = 366
_MAX_DAYS_BY_HOUR = 7
# More days than these are in the structured answer only: a model reads the summary.
_DAYS_IN_TEXT = 31
HOURLY = (of.WEATHER_NOW, of.TEMPERATURE_NOW, of.HUMIDITY, of.PRECIPITATION_NOW, of.WIND, of.GUSTS)

_PLACE = (Place, "Where")
_TIMEZONE = (str, "The time zone of all times")
_Day = model("Day", "One day.", DAILY, date=(str, "The day, from midnight to midnight"))
_Hour = model("Hour", "One hour.", HOURLY, time_local=(str, "When it began"))
_Summary = model(
    "Summary",
    "What all days come to.",
    SUMMARY,
    wet_days=(int, "Days with at least 1 mm of precipitation"),
    days_without_data=(int, "Days that Open-Meteo has no data for, or none yet"),
)
DailyHistory = model(
    "DailyHistory",
    "The weather of these days.",
    (),
    place=_PLACE,
    timezone=_TIMEZONE,
    summary=(_Summary, "What all days come to"),
    days=(list[_Day], "The first day first"),  # type: ignore[valid-type]
)
HourlyHistory = model(
    "HourlyHistory",
    "The weather of these hours.",
    (),
    place=_PLACE,
    timezone=_TIMEZONE,
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
        async with self._api.one_call():
            where = await self._api.located(place)
            weather = await self._api.archive(where, units, start_date, end_date, daily=DAILY)
        days, overall = weather.daily, summary(weather.daily, units)
        answer = DailyHistory.model_validate(
            {
                "place": where,
                "timezone": weather.timezone,
                "summary": {
                    **record(overall.values, SUMMARY, units),
                    "wet_days": overall.wet_days,
                    "days_without_data": overall.days_without_data,
                },
                "days": [{"date": row["time"], **record(row, DAILY, units)} for row in days],
            }
        )
        lines = [
            f"Weather in {where} from {start_date} to {end_date} ({weather.timezone}):",
            line("All days", overall.values, SUMMARY, units) + f", wet days {overall.wet_days} of {len(days)}",
        ]
        if overall.days_without_data:
            lines.append(f"{overall.days_without_data} days have no data, or none yet: it comes some days late.")
        if len(days) <= _DAYS_IN_TEXT:
            lines += [line(str(row["time"]), row, DAILY, units) for row in days]
        else:
            lines.append(f"For the text of single days ask for at most {_DAYS_IN_TEXT} at once.")
        return result("\n".join(lines), answer)

    async def hourly_history(
        self, place: PlaceArgument, start_date: StartDate, end_date: EndDate, units: UnitsArgument = "metric"
    ) -> Annotated[CallToolResult, HourlyHistory]:
        """Tell the weather of past hours, of at most 7 days at once, since 1940."""
        self._check(start_date, end_date, _MAX_DAYS_BY_HOUR)
        async with self._api.one_call():
            where = await self._api.located(place)
            weather = await self._api.archive(where, units, start_date, end_date, hourly=HOURLY)
        answer = HourlyHistory.model_validate(
            {
                "place": where,
                "timezone": weather.timezone,
                "hours": [{"time_local": row["time"], **record(row, HOURLY, units)} for row in weather.hourly],
            }
        )
        lines = [line(str(row["time"]), row, HOURLY, units) for row in weather.hourly]
        return result("\n".join([f"Weather in {where} ({weather.timezone}):", *lines]), answer)

    def _check(self, start: date, end: date, max_days: int) -> None:
        yesterday = self._today() - timedelta(days=1)
        after = "; later days are weather-forecast's"
        check_range(start, end, first=FIRST_DAY, last=yesterday, max_days=max_days, after=after)


def historical_server(
    api: OpenMeteo, registry: CollectorRegistry, today: Callable[[], date] = lambda: datetime.now(UTC).date()
) -> ToolServer:
    """Return the server with its two tools."""
    tools = HistoricalTools(api, today)
    server = ToolServer("ropewalk-weather-historical", "The weather of any day since 1940.", registry, api.lifespan)
    for tool in (tools.daily_history, tools.hourly_history):
        server.add_tool(tool, annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True))
    return server
