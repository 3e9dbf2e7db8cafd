"""The agricultural server over the wire, with a stand-in for Open-Meteo, and its rules by themselves."""

import json
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest

from mcp_caller import Caller
from mcp_raw import answering, plain
from mcp_weather import Recorded, calling, today, with_stand_in
from ropewalk_mcp_weather.units import Row, Units
from ropewalk_mcp_weather_agricultural.frost import nights
from ropewalk_mcp_weather_agricultural.growth import degree_days
from ropewalk_mcp_weather_agricultural.server import agricultural_server


@pytest.fixture
async def both() -> AsyncIterator[tuple[Caller, Recorded]]:
    async with with_stand_in(partial(agricultural_server, today=today)) as pair:
        yield pair


@pytest.fixture
def server(both: tuple[Caller, Recorded]) -> Caller:
    return both[0]


async def test_soil_is_told_by_depth_now_and_day_by_day(server: Caller) -> None:
    text, data = await server.call("soil_conditions", place="Berlin", days=2)
    assert data["now"]["time_local"] == "2026-04-15T14:00"
    assert [name for name in data["now"] if name.startswith("soil_moisture")] == [
        "soil_moisture_0_to_1cm_m3_per_m3",
        "soil_moisture_1_to_3cm_m3_per_m3",
        "soil_moisture_3_to_9cm_m3_per_m3",
        "soil_moisture_9_to_27cm_m3_per_m3",
        "soil_moisture_27_to_81cm_m3_per_m3",
    ]
    assert {"soil_temperature_0cm_celsius", "soil_temperature_54cm_celsius"} <= data["now"].keys()
    assert [day["date"] for day in data["days"]] == ["2026-04-15", "2026-04-16"]
    assert "soil moisture 9 to 27cm 0." in text
    assert "m³/m³" in text


async def test_the_balance_of_water_is_rain_less_evapotranspiration(server: Caller) -> None:
    text, data = await server.call("evapotranspiration", place="Berlin", days=5)
    for day in [*data["days"], data["total"]]:
        assert day["water_balance_mm"] == pytest.approx(
            day["precipitation_mm"] - day["reference_evapotranspiration_mm"], abs=0.011
        )
    assert data["total"]["reference_evapotranspiration_mm"] > 0
    assert text.splitlines()[1].startswith("5 days together: reference evapotranspiration ")


async def test_water_of_which_nothing_is_known_is_not_said_to_be_none() -> None:
    daily = {"time": ["2026-04-15"], "et0_fao_evapotranspiration": [None], "precipitation_sum": [1]}
    answer = plain(json.dumps({"timezone": "GMT", "daily": daily}))
    async with answering(answer) as raw, calling(partial(agricultural_server, today=today), raw.url) as caller:
        text, data = await caller.call("evapotranspiration", place="52,13")
    assert data["total"] == {}
    assert text.endswith("0 days together: reference evapotranspiration –, precipitation –, water balance –")


async def test_degree_days_come_from_the_archive_and_the_forecast(
    server: Caller, both: tuple[Caller, Recorded]
) -> None:
    text, data = await server.call(
        "growing_degree_days", place="Berlin", start_date="2026-04-01", end_date="2026-04-20", base_temperature=5
    )
    assert [day["date"] for day in data["days"]] == [f"2026-04-{day:02}" for day in range(1, 21)]
    spans = {
        urlsplit(each).path: [parse_qs(urlsplit(each).query)[name][0] for name in ("start_date", "end_date")]
        for each in both[1].queries[1:]
    }
    assert spans == {"/v1/archive": ["2026-04-01", "2026-04-06"], "/v1/forecast": ["2026-04-07", "2026-04-20"]}
    expected = sum(
        max(0, (day["temperature_min_celsius"] + day["temperature_max_celsius"]) / 2 - 5) for day in data["days"]
    )
    assert data["total_degree_days_celsius"] == pytest.approx(expected, abs=0.1)
    assert data["days"][-1]["accumulated_degree_days_celsius"] == data["total_degree_days_celsius"]
    assert text.startswith(f"{data['total_degree_days_celsius']} growing degree days above 5°C in Berlin")
    assert text.endswith(f", accumulated degree days {data['total_degree_days_celsius']}")


@pytest.mark.parametrize(
    ("start", "end", "paths"),
    [
        ("1999-04-01", "1999-04-02", ["/v1/archive"]),
        ("2026-04-15", "2026-04-30", ["/v1/forecast"]),
        ("2026-04-06", "2026-04-06", ["/v1/archive"]),
        ("2026-04-07", "2026-04-07", ["/v1/forecast"]),
    ],
)
async def test_only_the_part_that_has_the_days_is_asked(
    server: Caller, both: tuple[Caller, Recorded], start: str, end: str, paths: list[str]
) -> None:
    await server.call("growing_degree_days", place="52,13", start_date=start, end_date=end)
    assert [urlsplit(each).path for each in both[1].queries] == paths


async def test_degree_days_in_fahrenheit_have_their_own_usual_base(server: Caller) -> None:
    days = {"start_date": "2025-07-01", "end_date": "2025-07-02"}
    text, data = await server.call(
        "growing_degree_days", place="Paris, Texas", **days, cap_temperature=86, units="imperial"
    )
    assert (data["base_temperature_fahrenheit"], data["cap_temperature_fahrenheit"]) == (50, 86)
    assert "above 50°F, capped at 86°F" in text
    _, metric = await server.call("growing_degree_days", place="Paris, Texas", **days, cap_temperature=30)
    assert data["total_degree_days_fahrenheit"] == pytest.approx(metric["total_degree_days_celsius"] * 1.8, abs=0.3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"end_date": "2026-05-01"}, "end_date is 2026-05-01; the last day that can be asked for is 2026-04-30"),
        ({"start_date": "1939-01-01"}, "the first day that is known is 1940-01-01"),
        ({"cap_temperature": 10}, "cap_temperature is 10; it must be above base_temperature, 10"),
        ({"base_temperature": 1000}, "base_temperature is '1000'; "),
    ],
)
async def test_what_cannot_be_added_up_is_refused(server: Caller, arguments: dict[str, object], words: str) -> None:
    usual = {"place": "Berlin", "start_date": "2026-04-01", "end_date": "2026-04-02"}
    said = await server.refused("growing_degree_days", **(usual | arguments))
    assert said.startswith("INVALID_INPUT: ")
    assert words in said


async def test_frost_is_told_night_by_night(server: Caller) -> None:
    text, data = await server.call("frost_risk", place="Tromsø", nights=3)
    assert [night["date"] for night in data["nights"]] == ["2026-04-15", "2026-04-16", "2026-04-17"]
    for night in data["nights"]:
        expected = (-300 <= night["temperature_min_celsius"] <= -2.2, -2.2 < night["temperature_min_celsius"] <= 0)
        assert (night["risk"] == "severe_frost", night["risk"] == "frost") == expected
    assert text.splitlines()[0].endswith("of the next 3 nights in Tromsø, Troms, Norway (Europe/Oslo):")
    assert len((await server.call("frost_risk", place="Sydney", nights=14))[1]["nights"]) == 14


@pytest.mark.parametrize(
    ("low", "high", "cap", "expected"),
    [
        (10, 20, None, 5),
        (0, 12, None, 0),
        (5, 15, None, 0),
        (5, 16, None, 0.5),
        (20, 40, 30, 15),
        (32, 40, 30, 20),
        (-5, 4, None, 0),
    ],
)
def test_a_degree_day_is_the_mean_above_the_base_below_the_cap(
    low: float, high: float, cap: float | None, expected: float
) -> None:
    assert degree_days(low, high, base=10, cap=cap) == expected


def hour(time: str, temperature: float | None, wind: float | None = 20, clouds: float | None = 100) -> Row:
    return {"time": time, "temperature_2m": temperature, "wind_speed_10m": wind, "cloud_cover": clouds}


@pytest.mark.parametrize(
    ("row", "risk"),
    [
        (("2026-04-15T23:00", -2.2), "severe_frost"),
        (("2026-04-15T23:00", -2.1), "frost"),
        (("2026-04-15T23:00", 0), "frost"),
        (("2026-04-15T23:00", 0.1), "none"),
        (("2026-04-15T23:00", 4, 7.1, 25), "ground_frost_possible"),
        (("2026-04-15T23:00", 4.1, 0, 0), "none"),
        (("2026-04-15T23:00", 4, 7.2, 0), "none"),
        (("2026-04-15T23:00", 4, 0, 26), "none"),
        (("2026-04-15T23:00", 4, None, None), "ground_frost_possible"),
    ],
)
def test_the_risk_of_a_night_is_that_of_its_worst_hour(row: tuple[str, float], risk: str) -> None:
    (night,) = nights([hour(*row), hour("2026-04-16T05:00", 12)], "metric")
    assert (night.date, night.risk, night.lowest) == ("2026-04-15", risk, row[1])


def test_a_night_lasts_from_evening_to_morning_and_has_the_name_of_the_evening() -> None:
    times = ["15T08:00", "15T09:00", "15T17:00", "15T18:00", "16T08:00", "16T09:00", "16T23:00"]
    found = nights([hour(f"2026-04-{time}", 10 - index) for index, time in enumerate(times)], "metric")
    assert [(night.date, night.coldest_local_time) for night in found] == [
        ("2026-04-14", "2026-04-15T08:00"),
        ("2026-04-15", "2026-04-16T08:00"),
        ("2026-04-16", "2026-04-16T23:00"),
    ]


def test_a_night_of_which_nothing_is_known_is_left_out() -> None:
    assert nights([hour("2026-04-15T23:00", None)], "metric") == []


@pytest.mark.parametrize(
    ("units", "temperature", "risk"),
    [("imperial", 28, "severe_frost"), ("imperial", 32, "frost"), ("imperial", 39.2, "ground_frost_possible")],
)
def test_the_rule_is_the_same_in_fahrenheit(units: Units, temperature: float, risk: str) -> None:
    (night,) = nights([hour("2026-04-15T23:00", temperature, 4, 0)], units)
    assert night.risk == risk
