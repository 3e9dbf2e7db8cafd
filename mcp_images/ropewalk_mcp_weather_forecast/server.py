"""The tools of the forecast server: what they take, what they ask Open-Meteo, and what they answer."""

from typing import Annotated

from mcp_types import CallToolResult
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field

from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.answers import DATE, answer, answer_model, each_row
from ropewalk_mcp_weather.open_meteo import OpenMeteo
from ropewalk_mcp_weather.places import Place, PlaceArgument
from ropewalk_mcp_weather.text import UnitsArgument, line
from ropewalk_mcp_weather.tool_server import weather_server
from ropewalk_mcp_weather.units import DEGREES, INDEX, PERCENT, PRESSURE, Variable, model, record

_RAIN_CHANCE = Variable(
    "precipitation_probability", "precipitation_probability", PERCENT, "How likely any precipitation is"
)
_RAIN_CHANCE_MAX = Variable(
    "precipitation_probability_max", "precipitation_probability", PERCENT, "How likely any precipitation is"
)
NOW = (
    of.WEATHER_NOW,
    of.TEMPERATURE_NOW,
    of.FEELS_LIKE,
    of.HUMIDITY,
    of.PRECIPITATION_NOW,
    of.CLOUDS,
    Variable("pressure_msl", "pressure", PRESSURE, "Air pressure, reduced to sea level"),
    of.WIND,
    Variable("wind_direction_10m", "wind_direction", DEGREES, "Where the wind comes from: 0 north, 90 east"),
    of.GUSTS,
)
HOURLY = (of.WEATHER_NOW, of.TEMPERATURE_NOW, of.FEELS_LIKE, _RAIN_CHANCE, of.PRECIPITATION_NOW, of.WIND, of.GUSTS)
DAILY = (
    of.WEATHER_NOW,
    of.TEMPERATURE_MIN,
    of.TEMPERATURE_MAX,
    _RAIN_CHANCE_MAX,
    of.PRECIPITATION_SUM,
    of.WIND_MAX,
    of.GUSTS_MAX,
    Variable("uv_index_max", "uv_index_max", INDEX, "Highest UV index of the day"),
    of.SUNRISE,
    of.SUNSET,
)


class Places(BaseModel):
    """Places of a name, the largest first."""

    places: list[Place]


_Hour = model("Hour", "One hour.", HOURLY, time_local=(str, "When it begins"))
_Day = model("Day", "One day.", DAILY, date=DATE)
CurrentWeather = answer_model("CurrentWeather", "The weather now.", NOW, time_local=(str, "When it was"))
HourlyForecast = answer_model("HourlyForecast", "The next hours.", hours=(list[_Hour], "This hour first"))  # type: ignore[valid-type]
DailyForecast = answer_model("DailyForecast", "The next days.", days=(list[_Day], "Today first"))  # type: ignore[valid-type]


class ForecastTools:
    """The four tools, over one connection to Open-Meteo."""

    def __init__(self, api: OpenMeteo) -> None:
        self._api = api

    async def find_places(
        self,
        name: Annotated[
            str, Field(description="A name, or a part of one, such as Springfield", min_length=2, max_length=200)
        ],
        limit: Annotated[int, Field(description="At most so many places", ge=1, le=50)] = 10,
    ) -> Annotated[CallToolResult, Places]:
        """Find places by name, with region, country and coordinates: to tell those of the same name apart."""
        async with self._api.one_call():
            found = await self._api.candidates(name)
        places = [one.place for one in sorted(found, key=lambda one: -one.population)[:limit]]
        listed = [f"{place} ({place.latitude},{place.longitude})" for place in places]
        head = f"{len(listed)} places:" if listed else "No place has this name."
        return result("\n".join([head, *listed]), Places(places=places))

    async def current_weather(
        self, place: PlaceArgument, units: UnitsArgument = "metric"
    ) -> Annotated[CallToolResult, CurrentWeather]:
        """Tell the weather of a place right now: temperature, humidity, precipitation, clouds, pressure, wind."""
        async with self._api.one_call_at(place) as where:
            weather = await self._api.forecast(where, units, current=NOW)
        now = weather.current
        return result(
            line(f"Weather in {where} at {now['time']} ({weather.timezone})", now, NOW, units),
            answer(CurrentWeather, weather, time_local=now["time"], **record(now, NOW, units)),
        )

    async def hourly_forecast(
        self,
        place: PlaceArgument,
        hours: Annotated[int, Field(description="How many hours from now", ge=1, le=168)] = 24,
        units: UnitsArgument = "metric",
    ) -> Annotated[CallToolResult, HourlyForecast]:
        """Forecast the weather of a place hour by hour, for up to 168 hours (7 days)."""
        async with self._api.one_call_at(place) as where:
            weather = await self._api.forecast(where, units, hourly=HOURLY, forecast_hours=str(hours))
        return each_row("Forecast for", HourlyForecast, weather, HOURLY, units)

    async def daily_forecast(
        self,
        place: PlaceArgument,
        days: Annotated[int, Field(description="How many days, from today", ge=1, le=16)] = 7,
        units: UnitsArgument = "metric",
    ) -> Annotated[CallToolResult, DailyForecast]:
        """Forecast the weather of a place day by day, for up to 16 days from today."""
        async with self._api.one_call_at(place) as where:
            weather = await self._api.forecast(where, units, daily=DAILY, forecast_days=str(days))
        return each_row("Forecast for", DailyForecast, weather, DAILY, units)


def forecast_server(api: OpenMeteo, registry: CollectorRegistry) -> ToolServer:
    """Return the server with its four tools."""
    tools = ForecastTools(api)
    return weather_server(
        "ropewalk-weather-forecast",
        "The weather now and soon, anywhere.",
        registry,
        api,
        tools.find_places,
        tools.current_weather,
        tools.hourly_forecast,
        tools.daily_forecast,
    )
