"""The tools of the agricultural server: what they take, what they ask Open-Meteo, and what they answer."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from mcp_types import CallToolResult
from prometheus_client import CollectorRegistry
from pydantic import Field

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.answers import DATE, answer, answer_model, lines, records
from ropewalk_mcp_weather.dates import FIRST_DAY, EndDate, StartDate, check_range
from ropewalk_mcp_weather.open_meteo import OpenMeteo, Weather
from ropewalk_mcp_weather.places import Place, PlaceArgument
from ropewalk_mcp_weather.text import UnitsArgument, line
from ropewalk_mcp_weather.tool_server import weather_server
from ropewalk_mcp_weather.units import (
    DEGREE_DAYS,
    PRECIPITATION,
    TEMPERATURE,
    Row,
    Units,
    Variable,
    as_numbers,
    model,
    record,
)
from ropewalk_mcp_weather_agricultural import frost
from ropewalk_mcp_weather_agricultural.growth import degree_days
from ropewalk_mcp_weather_agricultural.soil import SOIL, daily_means

_MAX_DAYS = 366
_FORECAST_DAYS = 16
# The archive is complete only some days later; until then the forecast has what was measured.
_ARCHIVE_IS_COMPLETE_AFTER_DAYS = 8
_DAYS_IN_TEXT = 31
_USUAL_BASE: dict[Units, float] = {"metric": 10.0, "imperial": 50.0}

ET0 = Variable(
    "et0_fao_evapotranspiration",
    "reference_evapotranspiration",
    PRECIPITATION,
    "Reference evapotranspiration ET0 (FAO-56 Penman-Monteith): the water that well-watered short grass gives off",
)
BALANCE = Variable("balance", "water_balance", PRECIPITATION, "Precipitation less ET0: negative where water is missing")
WATER = (ET0, of.PRECIPITATION_SUM, BALANCE)
GROWTH = (
    of.TEMPERATURE_MIN,
    of.TEMPERATURE_MAX,
    Variable("degree_days", "growing_degree_days", DEGREE_DAYS, "Growing degree days of the day"),
    Variable("accumulated", "accumulated_degree_days", DEGREE_DAYS, "Growing degree days since the first day"),
)
BASE = Variable("base", "base_temperature", TEMPERATURE, "The base temperature")
CAP = Variable("cap", "cap_temperature", TEMPERATURE, "The cap temperature, where there is one")
TOTAL = Variable("total", "total_degree_days", DEGREE_DAYS, "All growing degree days together")

_Soil = model("Soil", "The soil now, or the mean of a day.", SOIL, date=DATE)
_Water = model("Water", "One day.", WATER, date=DATE)
_Growth = model("Growth", "One day.", GROWTH, date=DATE)
_Night = model(
    "Night",
    "One night, from 18:00 to 09:00.",
    (frost.LOWEST,),
    date=(str, "The day on which it begins"),
    risk=(frost.Risk, "What the rule in the tool's description says"),
    coldest_local_time=(str, "When the lowest temperature is expected"),
)
_SoilNow = model("SoilNow", "The soil now.", SOIL, time_local=(str, "When"))
SoilConditions = answer_model(
    "SoilConditions",
    "Soil temperature and moisture.",
    now=(_SoilNow, "This hour"),
    days=(list[_Soil], "The mean of each day, today (its rest) first"),  # type: ignore[valid-type]
)
Evapotranspiration = answer_model(
    "Evapotranspiration",
    "Water that comes and goes.",
    total=(model("WaterTotal", "All days together.", WATER), "All days together"),
    days=(list[_Water], "Today first"),  # type: ignore[valid-type]
)
GrowingDegreeDays = answer_model(
    "GrowingDegreeDays",
    "Growing degree days.",
    (BASE, CAP, TOTAL),
    days_without_data=(int, "Days that are left out, for want of data"),
    days=(list[_Growth], "The first day first"),  # type: ignore[valid-type]
)
FrostRisk = answer_model(
    "FrostRisk",
    "The next nights.",
    nights=(list[_Night], "The next night first, or this one"),  # type: ignore[valid-type]
)
DaysArgument = Annotated[int, Field(description="How many days, from today", ge=1, le=_FORECAST_DAYS)]


class AgriculturalTools:
    """The four tools, over one connection to Open-Meteo."""

    def __init__(self, api: OpenMeteo, today: Callable[[], date]) -> None:
        self._api = api
        self._today = today

    async def soil_conditions(
        self, place: PlaceArgument, days: DaysArgument = 3, units: UnitsArgument = "metric"
    ) -> Annotated[CallToolResult, SoilConditions]:
        """Tell soil temperature (0 to 54 cm) and soil moisture (0 to 81 cm) of a place, now and for up to 16 days."""
        async with self._api.one_call_at(place) as where:
            weather = await self._api.forecast(where, units, hourly=SOIL, forecast_hours=str(days * 24))
        now = weather.hourly[0]
        means = daily_means(weather.hourly)[:days]
        [hour] = records([now], SOIL, units, "time_local")
        found = answer(SoilConditions, weather, now=hour, days=records(means, SOIL, units, "date"))
        text = [
            f"Soil in {where} ({weather.timezone}):",
            line(f"now ({now['time']})", now, SOIL, units),
            *(line(f"mean of {row['time']}", row, SOIL, units) for row in means),
        ]
        return result("\n".join(text), found)

    async def evapotranspiration(
        self, place: PlaceArgument, days: DaysArgument = 7, units: UnitsArgument = "metric"
    ) -> Annotated[CallToolResult, Evapotranspiration]:
        """Forecast reference evapotranspiration (ET0, FAO-56), precipitation and their balance: how much to water."""
        async with self._api.one_call_at(place) as where:
            weather = await self._api.forecast(where, units, daily=(ET0, of.PRECIPITATION_SUM), forecast_days=str(days))
        known = [
            _balanced(row)
            for row in weather.daily
            if isinstance(row[ET0.api], int | float) and isinstance(row[of.PRECIPITATION_SUM.api], int | float)
        ]
        total: Row = {
            variable.api: round(sum(as_numbers(known, variable.api)), 2) if known else None for variable in WATER
        }
        all_days, each_day = record(total, WATER, units), records(known, WATER, units, "date")
        text = [
            f"Water in {where} ({weather.timezone}):",
            line(f"{len(known)} days together", total, WATER, units),
            *lines(known, WATER, units),
        ]
        return result("\n".join(text), answer(Evapotranspiration, weather, total=all_days, days=each_day))

    async def growing_degree_days(
        self,
        *,
        place: PlaceArgument,
        start_date: StartDate,
        end_date: EndDate,
        base_temperature: Annotated[
            float | None,
            Field(description="Below it nothing grows, in the units asked for; default 10 °C or 50 °F", ge=-20, le=120),
        ] = None,
        cap_temperature: Annotated[
            float | None,
            Field(description="Above it nothing grows faster, such as 30 °C or 86 °F; default none", ge=-20, le=150),
        ] = None,
        units: UnitsArgument = "metric",
    ) -> Annotated[CallToolResult, GrowingDegreeDays]:
        """Add up growing degree days: max(0, (Tmin + Tmax) / 2 - base) a day, both lowered to the cap before.

        From any day since 1940 to 15 days from now, at most 366 days.
        """
        base = _USUAL_BASE[units] if base_temperature is None else base_temperature
        if cap_temperature is not None and cap_temperature <= base:
            raise CodedError(
                "INVALID_INPUT",
                f"cap_temperature is {cap_temperature:g}; it must be above base_temperature, {base:g}",
            )
        last = self._today() + timedelta(days=_FORECAST_DAYS - 1)
        check_range(start_date, end_date, first=FIRST_DAY, last=last, max_days=_MAX_DAYS, after="")
        async with self._api.one_call_at(place) as where:
            weather = await self._temperatures(where, units, start_date, end_date)
        days: list[Row] = []
        total = 0.0
        for row in weather.daily:
            low, high = row[of.TEMPERATURE_MIN.api], row[of.TEMPERATURE_MAX.api]
            if isinstance(low, int | float) and isinstance(high, int | float):
                grown = degree_days(low, high, base, cap_temperature)
                total += grown
                days.append(row | {"degree_days": round(grown, 2), "accumulated": round(total, 1)})
        settings: Row = {"base": base, "cap": cap_temperature, "total": round(total, 1)}
        missing = len(weather.daily) - len(days)
        found = answer(
            GrowingDegreeDays,
            weather,
            **record(settings, (BASE, CAP, TOTAL), units),
            days_without_data=missing,
            days=records(days, GROWTH, units, "date"),
        )
        above = f"above {BASE.shown(settings, units)}" + (
            f", capped at {CAP.shown(settings, units)}" if cap_temperature is not None else ""
        )
        text = [f"{total:.1f} growing degree days {above} in {where} from {start_date} to {end_date}."]
        if missing:
            text.append(f"{missing} days are left out, for want of data.")
        if len(days) <= _DAYS_IN_TEXT:
            text += lines(days, GROWTH, units)
        return result("\n".join(text), found)

    async def frost_risk(
        self,
        place: PlaceArgument,
        nights: Annotated[int, Field(description="How many nights", ge=1, le=14)] = 7,
        units: UnitsArgument = "metric",
    ) -> Annotated[CallToolResult, FrostRisk]:
        """Tell in which of the next nights frost may come, from the lowest air temperature of each at 2 m.

        severe_frost: -2.2 °C (28 °F) or less; frost: 0 °C or less; ground_frost_possible: 4 °C or less in a calm,
        clear hour; none otherwise.
        """
        async with self._api.one_call_at(place) as where:
            hours = str((nights + 1) * 24)
            weather = await self._api.forecast(where, units, hourly=frost.HOURLY, forecast_hours=hours)
        judged = frost.nights(weather.hourly, units)[:nights]
        found = answer(
            FrostRisk,
            weather,
            nights=[
                {
                    "date": night.date,
                    "risk": night.risk,
                    "coldest_local_time": night.coldest_local_time,
                    **record({"lowest": night.lowest}, (frost.LOWEST,), units),
                }
                for night in judged
            ],
        )
        risky = sum(night.risk != "none" for night in judged)
        text = [f"Frost may come in {risky} of the next {len(judged)} nights in {where} ({weather.timezone}):"]
        text += [
            f"night of {night.date}: {night.risk.replace('_', ' ')}, lowest "
            f"{frost.LOWEST.shown({'lowest': night.lowest}, units)} at {night.coldest_local_time}"
            for night in judged
        ]
        return result("\n".join(text), found)

    async def _temperatures(self, where: Place, units: Units, start: date, end: date) -> Weather:
        """Return the days: old ones from the archive, the others from the forecast."""
        wanted = (of.TEMPERATURE_MIN, of.TEMPERATURE_MAX)
        recent = self._today() - timedelta(days=_ARCHIVE_IS_COMPLETE_AFTER_DAYS)
        asked = []
        if start < recent:
            asked.append(self._api.archive(where, units, start, min(end, recent - timedelta(days=1)), daily=wanted))
        if end >= recent:
            asked.append(
                self._api.forecast(
                    where, units, daily=wanted, start_date=max(start, recent).isoformat(), end_date=end.isoformat()
                )
            )
        answers = await asyncio.gather(*asked)
        return replace(answers[-1], daily=[row for part in answers for row in part.daily])


def _balanced(row: Row) -> Row:
    (gone,), (come,) = as_numbers([row], ET0.api), as_numbers([row], of.PRECIPITATION_SUM.api)
    return row | {BALANCE.api: round(come - gone, 2)}


def agricultural_server(
    api: OpenMeteo, registry: CollectorRegistry, today: Callable[[], date] = lambda: datetime.now(UTC).date()
) -> ToolServer:
    """Return the server with its four tools."""
    tools = AgriculturalTools(api, today)
    return weather_server(
        "ropewalk-weather-agricultural",
        "Soil, water, growth and frost, anywhere.",
        registry,
        api,
        tools.soil_conditions,
        tools.evapotranspiration,
        tools.growing_degree_days,
        tools.frost_risk,
    )
