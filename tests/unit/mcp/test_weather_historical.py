"""The historical server over the wire, with a stand-in for Open-Meteo's archive."""

from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest

from mcp_caller import Caller
from mcp_weather import Recorded, today, with_stand_in
from ropewalk_mcp_weather import variables as of
from ropewalk_mcp_weather.units import Row
from ropewalk_mcp_weather_historical.server import historical_server
from ropewalk_mcp_weather_historical.summary import AVERAGE, DAILY, HIGHEST, LOWEST, MEAN, TOTAL, summary


@pytest.fixture
async def both() -> AsyncIterator[tuple[Caller, Recorded]]:
    async with with_stand_in(partial(historical_server, today=today)) as pair:
        yield pair


@pytest.fixture
def server(both: tuple[Caller, Recorded]) -> Caller:
    return both[0]


async def test_days_are_told_one_by_one_and_together(server: Caller, both: tuple[Caller, Recorded]) -> None:
    text, data = await server.call("daily_history", place="London", start_date="2024-02-27", end_date="2024-03-01")
    assert [day["date"] for day in data["days"]] == ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"]
    assert data["summary"]["days_without_data"] == 0
    assert data["summary"]["temperature_highest_celsius"] == max(day["temperature_max_celsius"] for day in data["days"])
    assert text.splitlines()[0] == (
        "Weather in London, England, United Kingdom from 2024-02-27 to 2024-03-01 (Europe/London):"
    )
    assert text.splitlines()[1].startswith("All days: temperature mean ")
    assert len(text.splitlines()) == 6
    query = parse_qs(urlsplit(both[1].queries[-1]).query)
    assert (query["start_date"], query["end_date"]) == (["2024-02-27"], ["2024-03-01"])


async def test_a_year_is_summed_up_and_its_days_are_data_only(server: Caller) -> None:
    text, data = await server.call("daily_history", place="Tokyo", start_date="1940-01-01", end_date="1940-12-31")
    assert len(data["days"]) == 366
    assert len(text.splitlines()) == 3
    assert f"wet days {data['summary']['wet_days']} of 366" in text
    assert "ask for at most 31 at once" in text


async def test_imperial_units_are_in_the_names(server: Caller) -> None:
    days = {"start_date": "2025-01-01", "end_date": "2025-01-02"}
    text, data = await server.call("daily_history", place="Munich", **days, units="imperial")
    assert {"temperature_lowest_fahrenheit", "precipitation_total_inch"} <= data["summary"].keys()
    assert {"snowfall_inch", "wind_speed_max_mph"} <= data["days"][0].keys()
    assert "°F" in text


async def test_days_that_the_archive_does_not_have_yet_are_counted(server: Caller) -> None:
    text, data = await server.call("daily_history", place="Berlin", start_date="2026-04-11", end_date="2026-04-14")
    assert data["summary"]["days_without_data"] == 1
    assert data["days"][-1] == {"date": "2026-04-14"}
    assert "1 days have no data, or none yet" in text
    assert "2026-04-14: –, temperature mean –" in text


async def test_hours_are_told_for_a_week_at_most(server: Caller) -> None:
    text, data = await server.call("hourly_history", place="Berlin", start_date="2020-05-01", end_date="2020-05-07")
    assert len(data["hours"]) == 168
    assert data["hours"][0]["time_local"] == "2020-05-01T00:00"
    assert "2020-05-07T23:00: " in text
    said = await server.refused("hourly_history", place="Berlin", start_date="2020-05-01", end_date="2020-05-08")
    assert said == "INVALID_INPUT: start_date 2020-05-01 to end_date 2020-05-08 are 8 days; ask for at most 7 at once"


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("1939-12-31", "1940-01-02", "start_date is 1939-12-31; the first day that is known is 1940-01-01"),
        ("2026-04-14", "2026-04-15", "end_date is 2026-04-15; the last day that can be asked for is 2026-04-14; later"),
        ("2030-01-01", "2030-01-02", "end_date is 2030-01-02; the last day that can be asked for is 2026-04-14"),
        ("2024-05-02", "2024-05-01", "start_date is 2024-05-02, after end_date 2024-05-01; give the earlier day first"),
        ("2023-01-01", "2024-01-02", "are 367 days; ask for at most 366 at once"),
        ("2023-02-29", "2023-03-01", "start_date is '2023-02-29'; use a day as YYYY-MM-DD"),
        ("yesterday", "2023-03-01", "start_date is 'yesterday'; use a day as YYYY-MM-DD, such as 2024-02-29"),
        ("20230301", "2023-03-01T00:00", "end_date is '2023-03-01T00:00'; use a day as YYYY-MM-DD"),
    ],
)
async def test_days_that_cannot_be_known_are_refused_before_anything_is_asked(
    server: Caller, both: tuple[Caller, Recorded], start: str, end: str, words: str
) -> None:
    said = await server.refused("daily_history", place="Berlin", start_date=start, end_date=end)
    assert said.startswith("INVALID_INPUT: ")
    assert words in said
    assert both[1].queries == []


def test_the_summary_leaves_out_what_is_not_known() -> None:
    def day(mean: float | None, low: float | None, high: float | None, rain: float | None) -> Row:
        values = {MEAN: mean, of.TEMPERATURE_MIN: low, of.TEMPERATURE_MAX: high, of.PRECIPITATION_SUM: rain}
        row: Row = {variable.api: None for variable in DAILY}
        return row | {key.api: value for key, value in values.items()}

    found = summary([day(1, -2, 3, 0.9), day(2, 0, 5, 1.0), day(None, None, None, None)], "metric")
    assert found.values == {AVERAGE.api: 1.5, LOWEST.api: -2, HIGHEST.api: 5, TOTAL.api: 1.9}
    assert (found.wet_days, found.days_without_data) == (1, 1)
    assert summary([day(None, None, None, None)], "metric").values[LOWEST.api] is None
    assert summary([day(50, 40, 60, 0.05), day(50, 40, 60, 0.03)], "imperial").wet_days == 1
