"""The forecast server over the wire, with a stand-in for Open-Meteo that refuses what it does not document."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from clock import Clock
from mcp_caller import Caller
from mcp_weather import Recorded, with_stand_in
from ropewalk_mcp_weather_forecast.server import forecast_server


@pytest.fixture
async def both() -> AsyncIterator[tuple[Caller, Recorded]]:
    async with with_stand_in(forecast_server) as pair:
        yield pair


@pytest.fixture
def server(both: tuple[Caller, Recorded]) -> Caller:
    return both[0]


@pytest.fixture
def asked(both: tuple[Caller, Recorded]) -> list[str]:
    return both[1].queries


async def test_the_weather_now_is_told_with_place_and_units(server: Caller) -> None:
    text, data = await server.call("current_weather", place="Berlin")
    assert text.startswith("Weather in Berlin, State of Berlin, Germany at 2026-04-15T14:00 (Europe/Berlin): ")
    assert f"temperature {data['temperature_celsius']:g}°C" in text
    assert data["place"]["timezone"] == data["timezone"] == "Europe/Berlin"
    assert {"weather", "wind_speed_kmh", "precipitation_mm", "relative_humidity_percent", "pressure_hpa"} <= data.keys()
    assert not [name for name in data if name.endswith(("fahrenheit", "mph", "inch"))]


async def test_imperial_units_are_in_the_names_and_in_the_values(server: Caller) -> None:
    _, metric = await server.call("current_weather", place="Berlin")
    text, data = await server.call("current_weather", place="Berlin", units="imperial")
    assert data["temperature_fahrenheit"] == pytest.approx(metric["temperature_celsius"] * 1.8 + 32, abs=0.2)
    assert data["wind_speed_mph"] == pytest.approx(metric["wind_speed_kmh"] / 1.609, abs=0.2)
    assert "temperature_celsius" not in data
    assert f"temperature {data['temperature_fahrenheit']:g}°F" in text


async def test_hours_begin_with_this_one_and_are_as_many_as_asked_for(server: Caller) -> None:
    text, data = await server.call("hourly_forecast", place="Tokyo", hours=30)
    assert [hour["time_local"] for hour in data["hours"]][:2] == ["2026-04-15T21:00", "2026-04-15T22:00"]
    assert len(data["hours"]) == 30
    assert len(text.splitlines()) == 31
    assert "precipitation_probability_percent" in data["hours"][0]


async def test_days_begin_with_today_and_go_to_sixteen(server: Caller) -> None:
    text, data = await server.call("daily_forecast", place="Sydney", days=16)
    assert [data["days"][0]["date"], data["days"][15]["date"]] == ["2026-04-15", "2026-04-30"]
    assert data["days"][0]["sunrise_local_time"] == "2026-04-15T06:00"
    assert "2026-04-30: " in text
    assert len((await server.call("daily_forecast", place="Sydney"))[1]["days"]) == 7


async def test_coordinates_need_no_search(server: Caller, asked: list[str]) -> None:
    text, data = await server.call("current_weather", place=" 52.524371, 13.41053 ")
    assert text.startswith("Weather in 52.5244,13.4105 at ")
    assert data["place"] == {"name": "52.5244,13.4105", "latitude": 52.5244, "longitude": 13.4105}
    assert [urlsplit(each).path for each in asked] == ["/v1/forecast"]


async def test_what_is_asked_of_open_meteo_is_what_it_documents(server: Caller, asked: list[str]) -> None:
    await server.call("hourly_forecast", place="-33.5,-70.25", hours=5, units="imperial")
    query = parse_qs(urlsplit(asked[0]).query)
    assert query.pop("hourly")[0].split(",")[:2] == ["weather_code", "temperature_2m"]
    assert query == {
        "latitude": ["-33.5"],
        "longitude": ["-70.25"],
        "timezone": ["auto"],
        "forecast_hours": ["5"],
        "temperature_unit": ["fahrenheit"],
        "wind_speed_unit": ["mph"],
        "precipitation_unit": ["inch"],
    }


@pytest.mark.parametrize(
    ("place", "country", "region"),
    [
        ("Paris", "France", "Île-de-France"),
        ("paris, texas", "United States", "Texas"),
        ("Paris, US", "United States", "Texas"),
        ("Springfield, Illinois, United States", "United States", "Illinois"),
    ],
)
async def test_the_place_is_the_one_that_people_mean(server: Caller, place: str, country: str, region: str) -> None:
    _, data = await server.call("current_weather", place=place)
    assert (data["place"]["country"], data["place"]["region"]) == (country, region)


async def test_an_ambiguous_name_gives_the_candidates(server: Caller) -> None:
    said = await server.refused("current_weather", place="Springfield")
    assert said.splitlines() == [
        "INVALID_INPUT: place is 'Springfield', which may be several; name one with its region, or give its "
        "coordinates:",
        "- Springfield, Missouri, United States (37.2153,-93.2982)",
        "- Springfield, Massachusetts, United States (42.1015,-72.5898)",
        "- Springfield, Illinois, United States (39.8017,-89.6437)",
    ]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("Xanaduville", "NOT_FOUND: place is 'Xanaduville', which is unknown; check the spelling"),
        (
            "Springfield, France",
            "NOT_FOUND: place is 'Springfield, France', which is unknown; places of that name:\n- S",
        ),
        ("91,0", "INVALID_INPUT: place is '91,0'; give a latitude of -90 to 90 and a longitude of -180 to 180"),
        ("x", "INVALID_INPUT: place is 'x'; "),
        ("", "INVALID_INPUT: place is ''; "),
    ],
)
async def test_a_place_that_is_none_is_refused(server: Caller, place: str, words: str) -> None:
    assert (await server.refused("current_weather", place=place)).startswith(words)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("daily_forecast", {"days": 17}, "days is '17'; Input should be less than or equal to 16"),
        ("daily_forecast", {"days": 0}, "days is '0'; "),
        ("hourly_forecast", {"hours": 169}, "hours is '169'; Input should be less than or equal to 168"),
        ("current_weather", {"units": "kelvin"}, "units is 'kelvin'; Input should be 'metric' or 'imperial'"),
    ],
)
async def test_wrong_arguments_are_named_with_what_is_allowed(
    server: Caller, asked: list[str], tool: str, arguments: dict[str, object], words: str
) -> None:
    assert f"INVALID_INPUT: {words}" in await server.refused(tool, place="Berlin", **arguments)
    assert asked == []


async def test_places_are_found_by_name_the_largest_first(server: Caller) -> None:
    text, data = await server.call("find_places", name="Berlin", limit=1)
    assert text == "1 places:\nBerlin, State of Berlin, Germany (52.5244,13.4105)"
    assert data["places"][0]["timezone"] == "Europe/Berlin"
    assert (await server.refused("find_places", name="x" * 201)).startswith("INVALID_INPUT: name is ")
    text, data = await server.call("find_places", name="Nowhereville")
    assert (text, data) == ("No place has this name.", {"places": []})


async def test_the_same_question_is_asked_of_open_meteo_once(asked: list[str]) -> None:
    clock = Clock()
    async with with_stand_in(forecast_server, clock) as (server, recorded):
        for _ in range(3):
            await server.call("current_weather", place="Hamburg")
        assert len(recorded.queries) == 2
        clock.now += 601
        await server.call("current_weather", place="Hamburg")
        # The place is still known, the weather is not.
        assert [urlsplit(each).path for each in recorded.queries] == ["/v1/search", "/v1/forecast", "/v1/forecast"]


async def test_every_answer_fits_the_schema_that_the_tool_declares() -> None:
    async with with_stand_in(forecast_server) as (server, _):
        tools = await server.tools()
        assert list(tools) == ["find_places", "current_weather", "hourly_forecast", "daily_forecast"]
        for name, tool in tools.items():
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is True
            assert tool.output_schema is not None
            arguments = {"name": "Berlin"} if name == "find_places" else {"place": "Berlin"}
            _, data = await server.call(name, **arguments)
            Draft202012Validator(tool.output_schema).validate(data)
        fields = tools["current_weather"].output_schema["properties"]  # type: ignore[index]
        assert {"temperature_celsius", "temperature_fahrenheit"} <= fields.keys()
