"""What the weather servers say when Open-Meteo is down, slow, tired of them, or answers nonsense."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

import ropewalk_mcp_weather.open_meteo
from clock import Clock
from mcp_caller import Caller
from mcp_raw import answering, plain
from mcp_weather import NOW, calling, today
from mcp_wire import served
from open_meteo_stand_in.app import create_app
from ropewalk_mcp_common.server import ToolServer
from ropewalk_mcp_upstream.client import Upstream
from ropewalk_mcp_weather.open_meteo import OpenMeteo
from ropewalk_mcp_weather.program import run
from ropewalk_mcp_weather_agricultural.server import agricultural_server
from ropewalk_mcp_weather_forecast.server import DAILY, forecast_server
from ropewalk_mcp_weather_historical.server import historical_server

Server = Callable[[OpenMeteo, CollectorRegistry], ToolServer]
DAYS = {"start_date": "2024-01-01", "end_date": "2024-01-02"}
ONE_TOOL_EACH: list[tuple[Server, str, dict[str, object]]] = [
    (forecast_server, "current_weather", {"place": "52,13"}),
    (partial(historical_server, today=today), "daily_history", {"place": "52,13", **DAYS}),
    (partial(agricultural_server, today=today), "frost_risk", {"place": "52,13"}),
]


@asynccontextmanager
async def broken(*answers: bytes | None, clock: Clock | None = None) -> AsyncIterator[Caller]:
    async with answering(*answers) as raw, calling(forecast_server, raw.url, clock) as caller:
        yield caller


DAY: dict[str, Any] = {variable.api: [1.0] for variable in DAILY} | {
    "time": ["2026-04-15"],
    "sunrise": ["2026-04-15T06:00"],
    "sunset": ["2026-04-15T18:00"],
}


def weather(**changes: Any) -> bytes:
    """Return a day's forecast with parts replaced by nonsense; None leaves a part out."""
    daily = {name: values for name, values in (DAY | changes).items() if values is not None}
    return plain(json.dumps({"timezone": "GMT", "daily": daily}))


@pytest.mark.parametrize(("server", "tool", "arguments"), ONE_TOOL_EACH)
async def test_every_server_names_an_upstream_that_is_not_there(
    server: Server, tool: str, arguments: dict[str, object]
) -> None:
    async with calling(server, "http://127.0.0.1:1") as caller:
        said = await caller.refused(tool, **arguments)
    assert said == ("UPSTREAM_UNAVAILABLE: Open-Meteo at 127.0.0.1 cannot be reached (ConnectError); try again later")


@pytest.mark.parametrize(("server", "tool", "arguments"), ONE_TOOL_EACH)
async def test_every_server_gives_up_on_an_upstream_that_does_not_answer(
    server: Server, tool: str, arguments: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ropewalk_mcp_weather.open_meteo, "CALL_SECONDS", 0.2)
    async with answering(None) as raw, calling(server, raw.url) as caller:
        said = await caller.refused(tool, **arguments)
    assert said == "UPSTREAM_TIMEOUT: Open-Meteo did not answer within 0.2 s; try again later"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (plain("{}", "500 Internal Server Error"), "UPSTREAM_UNAVAILABLE"),
        (plain("{}", "502 Bad Gateway"), "UPSTREAM_UNAVAILABLE"),
        (plain("<html>"), "UPSTREAM_INVALID"),
        (plain("x" * 10_000_000), "UPSTREAM_INVALID"),
        (plain("[]"), "UPSTREAM_INVALID"),
        (plain("null"), "UPSTREAM_INVALID"),
        (plain('{"timezone": "GMT"}'), "UPSTREAM_INVALID"),
        (plain("{}", "403 Forbidden"), "UPSTREAM_INVALID"),
        (plain("{}", "400 Bad Request"), "UPSTREAM_INVALID"),
        (weather(time=["today"]), "UPSTREAM_INVALID"),
        (weather(time=[]), "UPSTREAM_INVALID"),
        (weather(**{name: [] for name in DAY}), "UPSTREAM_INVALID"),
        (weather(temperature_2m_min=None), "UPSTREAM_INVALID"),
        (weather(temperature_2m_min=[1, 2]), "UPSTREAM_INVALID"),
        (weather(temperature_2m_min=["warm"]), "UPSTREAM_INVALID"),
        (weather(temperature_2m_min=[{}]), "UPSTREAM_INVALID"),
        (weather(temperature_2m_min=[float("nan")]), "UPSTREAM_INVALID"),
        (weather(sunrise=[6]), "UPSTREAM_INVALID"),
    ],
)
async def test_an_answer_that_is_none_has_a_code(answer: bytes, code: str) -> None:
    async with broken(answer) as caller:
        assert (await caller.refused("daily_forecast", place="52,13")).startswith(f"{code}: Open-Meteo answered with ")


async def test_a_value_that_is_missing_is_a_dash_and_no_field() -> None:
    async with broken(weather(temperature_2m_min=[None], weather_code=[42])) as caller:
        text, data = await caller.call("daily_forecast", place="52,13")
    assert "weather code 42, temperature min –, temperature max 1°C" in text
    assert "temperature_min_celsius" not in data["days"][0]


async def test_a_list_of_places_that_is_none_has_a_code() -> None:
    for answer in (
        '{"results": 1}',
        '{"results": [{}]}',
        '{"results": [{"name": "x", "latitude": 99, "longitude": 1}]}',
    ):
        async with broken(plain(answer)) as caller:
            assert "UPSTREAM_INVALID: Open-Meteo answered with no list" in await caller.refused(
                "current_weather", place="Berlin"
            )


async def test_a_list_of_places_that_is_none_is_asked_for_again() -> None:
    answers = (plain("<html>Welcome to the hotel</html>"), plain('{"results": 1}'), plain("{}"))
    async with broken(*answers) as caller:
        for said in ("UPSTREAM_INVALID: ", "UPSTREAM_INVALID: ", "NOT_FOUND: "):
            assert (await caller.refused("current_weather", place="Berlin")).startswith(said)


async def test_a_refusal_of_open_meteo_is_passed_on_in_its_own_words() -> None:
    async with broken(plain('{"error": true, "reason": "No data there."}', "400 Bad Request")) as caller:
        said = await caller.refused("current_weather", place="52,13")
    assert said == "INVALID_INPUT: Open-Meteo refuses this: No data there."


async def test_an_upstream_that_is_tired_is_left_alone_for_a_minute() -> None:
    clock = Clock()
    tired = plain('{"error": true, "reason": "Minutely API request limit exceeded."}', "429 Too Many Requests")
    async with broken(tired, weather(), clock=clock) as caller:
        assert (await caller.refused("daily_forecast", place="52,13")) == (
            "RATE_LIMITED: Open-Meteo asks for fewer requests; try again in 60 s"
        )
        clock.now += 20
        assert (await caller.refused("daily_forecast", place="52,13")) == (
            "RATE_LIMITED: Open-Meteo is not asked now, to stay within its limits; try again in 40 s"
        )
        clock.now += 40
        await caller.call("daily_forecast", place="52,13")


async def test_many_questions_at_once_are_asked_no_faster_than_is_polite() -> None:
    clock = Clock()
    async with served(create_app(lambda: NOW)) as url, calling(forecast_server, url, clock) as caller:
        for latitude in range(14):
            await caller.call("current_weather", place=f"{latitude},13")
    assert clock.slept == [0.5] * 4


@pytest.mark.parametrize(
    ("server", "tool", "arguments", "host"),
    [
        (forecast_server, "find_places", {"name": "Berlin"}, "geocoding-api.open-meteo.com:443"),
        (forecast_server, "current_weather", {"place": "52,13"}, "api.open-meteo.com:443"),
        (*ONE_TOOL_EACH[1], "archive-api.open-meteo.com:443"),
    ],
)
async def test_open_meteo_itself_is_asked_where_no_other_is_named(
    server: Server, tool: str, arguments: dict[str, object], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy sees the name, and nothing leaves this machine.
    async with answering(plain("", "403 Forbidden")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        upstream = Upstream("Open-Meteo", CollectorRegistry(), trust_environment=True)
        app = server(OpenMeteo(upstream), CollectorRegistry()).app()
        async with served(app) as url:
            said = await Caller(url).refused(tool, **arguments)
    assert proxy.requests[0].startswith(f"CONNECT {host} HTTP/1.1")
    assert said.startswith("UPSTREAM_UNAVAILABLE: Open-Meteo at ")


def test_a_wrong_base_url_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ropewalk-mcp"])
    monkeypatch.setenv("ROPEWALK_OPEN_METEO_URL", "open-meteo:8080")
    with pytest.raises(SystemExit) as ended:
        run("The weather.", forecast_server)
    assert ended.value.code == 2
    assert "--base-url: 'open-meteo:8080' is no base URL; use http:// or https://" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/forecast?latitude=52&longitude=13&wind=1", "Unknown parameter 'wind'"),
        ("/v1/forecast?latitude=52&longitude=13&hourly=warmth", "invalid String value warmth"),
        ("/v1/forecast?latitude=99&longitude=13", "Latitude must be in range of -90 to 90°. Given: 99.0."),
        ("/v1/forecast?latitude=52&longitude=13&forecast_days=17", "Allowed range 0 to 16. Given 17."),
        ("/v1/forecast?longitude=13", "Parameter 'latitude' must be a number"),
        ("/v1/forecast?latitude=52&longitude=13&temperature_unit=kelvin", "invalid String value kelvin"),
        ("/v1/forecast?latitude=warm&longitude=13", "Parameter 'latitude' must be a number"),
        ("/v1/forecast?latitude=nan&longitude=13", "Latitude must be in range of -90 to 90°. Given: nan."),
        ("/v1/forecast?latitude=52&longitude=13&timezone=Europe", "Invalid timezone"),
        (f"/v1/forecast?latitude=52&longitude=13&timezone={'a' * 5000}", "Invalid timezone"),
        ("/v1/forecast?latitude=52&longitude=13&forecast_days=--5", "Allowed range 0 to 16. Given --5."),
        (f"/v1/forecast?latitude=52&longitude=13&forecast_hours={'9' * 5000}", "Allowed range 1 to 384. Given 999"),
        (f"/v1/search?name=Berlin&count={'9' * 5000}", "Parameter count must be between 1 and 100."),
        ("/v1/archive?latitude=52&longitude=13&start_date=2024-01-01", "Parameter 'end_date' is required"),
        (
            "/v1/archive?latitude=52&longitude=13&start_date=1939-12-31&end_date=1940-01-01",
            "Parameter 'start_date' is out of allowed range from 1940-01-01 to 2026-04-15",
        ),
        ("/v1/search?name=Berlin&count=101", "Parameter count must be between 1 and 100."),
        ("/v1/search?count=1", "Value required for key 'name'."),
    ],
)
async def test_the_stand_in_refuses_what_open_meteo_does_not_document(path: str, reason: str) -> None:
    async with served(create_app(lambda: NOW)) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"] is True
    assert reason in answer.json()["reason"]
