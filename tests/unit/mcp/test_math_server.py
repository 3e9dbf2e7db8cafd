"""The math server, over the wire and in both eras of the protocol."""

import logging
from collections.abc import AsyncIterator

import httpx
import mcp
import pytest
from prometheus_client import CollectorRegistry

from mcp_wire import served
from ropewalk_mcp_math.server import math_server


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with served(math_server(CollectorRegistry()).app()) as address:
        yield address


@pytest.fixture(params=["2026-07-28", "legacy"])
def client(url: str, request: pytest.FixtureRequest) -> mcp.Client:
    # A client must be left by the task that entered it, which a fixture does not promise: each test enters it.
    return mcp.Client(f"{url}/mcp", mode=request.param)


async def call(client: mcp.Client, tool: str, **arguments: object) -> tuple[bool, str, object]:
    async with client:
        result = await client.call_tool(tool, arguments)
        assert result.content[0].type == "text"
        return bool(result.is_error), result.content[0].text, result.structured_content


async def test_tools_are_listed_with_plain_schemas(client: mcp.Client) -> None:
    async with client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["add", "subtract", "multiply", "divide", "power"]
    assert tools["add"].input_schema["properties"]["a"]["type"] == "number"
    assert tools["add"].input_schema["required"] == ["a", "b"]
    assert tools["add"].output_schema is not None
    assert tools["power"].annotations is not None
    assert tools["power"].annotations.read_only_hint is True


@pytest.mark.parametrize(
    ("tool", "arguments", "text", "value"),
    [
        ("add", {"a": 21.5, "b": 20.5}, "21.5 + 20.5 = 42", 42),
        ("add", {"a": 0.1, "b": 0.2}, "0.1 + 0.2 = 0.3", 0.3),
        ("subtract", {"a": "5", "b": 7}, "5 - 7 = -2", -2),
        ("multiply", {"a": 12345678901234567890, "b": 10}, "12345678901234567890 * 10 = 123456789012345678900", None),
        ("divide", {"a": 10, "b": 4}, "10 / 4 = 2.5", 2.5),
        ("divide", {"a": 10**30, "b": 10}, f"{10**30} / 10 = {10**29}", 10**29),
        ("power", {"base": 2, "exponent": 10}, "2 ^ 10 = 1024", 1024),
        ("power", {"base": 4, "exponent": -0.5}, "4 ^ -0.5 = 0.5", 0.5),
        ("power", {"base": -1, "exponent": 10**300 + 1}, None, -1),
        ("power", {"base": 0, "exponent": 0}, "0 ^ 0 = 1", 1),
        ("power", {"base": -2, "exponent": -(2**1024 - 1)}, None, 0),
    ],
)
async def test_a_calculation_gives_text_and_a_number(
    client: mcp.Client, tool: str, arguments: dict[str, object], text: str | None, value: object
) -> None:
    failed, said, structured = await call(client, tool, **arguments)
    assert not failed
    assert text is None or said == text
    assert isinstance(structured, dict)
    assert value is None or structured["result"] == value


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("divide", {"a": 1, "b": 0}, ["b is 0", "division by zero", "use any other number"]),
        ("divide", {"a": 1.5, "b": 0.0}, ["b is 0"]),
        ("power", {"base": 9, "exponent": 9**9}, ["too large", "1.8e308"]),
        ("power", {"base": 1.0000001, "exponent": 1e300}, ["too large"]),
        ("power", {"base": 0, "exponent": -1}, ["division by zero"]),
        ("power", {"base": -8, "exponent": 0.5}, ["negative base", "whole exponent"]),
        ("multiply", {"a": 1e200, "b": 1e200}, ["too large"]),
        ("multiply", {"a": 10**300, "b": 10**300}, ["too large"]),
        ("add", {"a": "x", "b": 1}, ["a is 'x'", "finite number"]),
        ("add", {"a": "inf", "b": 1}, ["a is 'inf'", "finite number"]),
        ("add", {"a": True, "b": 1}, ["a is 'True'"]),
        ("add", {"a": 10**400, "b": 1}, ["below 1.8e308"]),
        ("add", {"b": 1}, ["a is missing"]),
    ],
)
async def test_what_cannot_be_calculated_is_refused_with_the_reason(
    client: mcp.Client, tool: str, arguments: dict[str, object], words: list[str]
) -> None:
    failed, said, _ = await call(client, tool, **arguments)
    assert failed
    assert said.startswith("INVALID_INPUT: ")
    for word in words:
        assert word in said


async def test_a_tool_that_does_not_exist_is_named(client: mcp.Client) -> None:
    failed, said, _ = await call(client, "evaluate")
    assert failed
    assert said == "NOT_FOUND: there is no tool 'evaluate'; list the tools to see their names"


async def test_the_name_of_a_service_is_accepted_as_host(url: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{url}/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "ping"},
            headers={"host": "math-mcp.default.svc:8000", "accept": "application/json, text/event-stream"},
        )
    assert answer.status_code == 200


async def test_no_stream_is_held_open_without_sessions(url: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}/mcp", headers={"accept": "text/event-stream"})
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


async def test_health_and_metrics_tell_calls_by_tool_and_outcome(url: str) -> None:
    async with mcp.Client(f"{url}/mcp") as client:
        await client.call_tool("add", {"a": 1, "b": 2})
        await client.call_tool("divide", {"a": 1, "b": 0})
        await client.call_tool("text of the caller", {})
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/health")).json() == {"status": "ok"}
        metrics = (await http.get(f"{url}/metrics")).text
    assert 'ropewalk_mcp_tool_calls_total{outcome="ok",tool="add"} 1.0' in metrics
    assert 'ropewalk_mcp_tool_calls_total{outcome="invalid_input",tool="divide"} 1.0' in metrics
    assert 'ropewalk_mcp_tool_calls_total{outcome="not_found",tool="unknown"} 1.0' in metrics
    assert 'ropewalk_mcp_tool_call_duration_seconds_count{tool="add"} 1.0' in metrics
    assert "text of the caller" not in metrics


async def test_openmetrics_are_given_when_asked_for(url: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_a_call_is_logged_without_its_arguments(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ropewalk")
    async with mcp.Client(f"{url}/mcp") as client:
        await client.call_tool("add", {"a": 98765, "b": 2})
    record = next(record for record in caplog.records if record.message == "tool call")
    assert vars(record)["tool"] == "add"
    assert vars(record)["outcome"] == "ok"
    assert "98765" not in str(vars(record))
