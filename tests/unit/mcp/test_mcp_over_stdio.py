"""Every server that ships speaks MCP over stdin and stdout as well, with the SDK's own client."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mcp
import pytest
from mcp.client.stdio import StdioServerParameters, stdio_client

ROOT = Path(__file__).parents[3]
SERVERS = sorted(
    path.parent.name.removeprefix("ropewalk_mcp_") for path in (ROOT / "mcp_images").glob("ropewalk_mcp_*/server.py")
)
SHIPPED = [name for name in SERVERS if name != "common"]


@asynccontextmanager
async def started(name: str, folder: Path, mode: str = "auto") -> AsyncIterator[tuple[mcp.Client, Path]]:
    """Start this server as a child; nothing that it asks of the world is there."""
    kubeconfig = folder / "kubeconfig"
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    nowhere = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    config = {"clusters": [nowhere], "users": [{"name": "u", "user": {}}], "contexts": [context]}
    kubeconfig.write_text(json.dumps(config | {"current-context": "x"}))
    environment = {
        "PYTHONPATH": str(ROOT / "mcp_images"),
        "KUBECONFIG": str(kubeconfig),
        "ROPEWALK_OPEN_METEO_URL": "http://127.0.0.1:1",
        "ROPEWALK_SEARCH_URL": "http://127.0.0.1:1",
        "ROPEWALK_PROMETHEUS_URL": "http://127.0.0.1:1",
    }
    child = StdioServerParameters(
        command=sys.executable, args=["-m", f"ropewalk_mcp_{name}", "--stdio"], env=environment
    )
    log = folder / "log"
    with log.open("w") as stderr:
        async with mcp.Client(stdio_client(child, stderr), mode=mode) as client:
            yield client, log


def test_all_servers_that_ship_are_in_this_test() -> None:
    weather = {"weather_agricultural", "weather_forecast", "weather_historical"}
    assert {"kubernetes", "math", "prometheus", "websearch"} | weather <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
async def test_a_server_lists_its_tools_and_logs_to_stderr(name: str, tmp_path: Path) -> None:
    async with started(name, tmp_path) as (client, log):
        tools = (await client.list_tools()).tools
        assert client.server_info
        assert client.server_info.name == f"ropewalk-{name.replace('_', '-')}"
        # The shortest way through a call that every server has: it refuses arguments before it asks the world.
        result = await client.call_tool("no_such_tool", {})
    assert tools
    assert result.is_error
    assert result.content[0].type == "text"
    assert result.content[0].text.startswith("NOT_FOUND: ")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["outcome"] for line in lines if line["message"] == "tool call"] == ["not_found"]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_math_calculates_over_stdio_in_both_eras(mode: str, tmp_path: Path) -> None:
    async with started("math", tmp_path, mode) as (client, _):
        result = await client.call_tool("power", {"base": 2, "exponent": 100})
    assert result.structured_content == {"expression": "2 ^ 100", "result": 2**100}


async def test_an_upstream_that_is_not_there_is_named_over_stdio_too(tmp_path: Path) -> None:
    async with started("weather_forecast", tmp_path) as (client, _):
        result = await client.call_tool("current_weather", {"place": "52,13"})
    assert result.content[0].type == "text"
    assert result.content[0].text.startswith("UPSTREAM_UNAVAILABLE: Open-Meteo at 127.0.0.1 ")
