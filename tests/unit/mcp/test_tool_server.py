"""What the leaf makes of a tool that fails in a way of its own."""

import asyncio
import logging
from pathlib import Path

import pytest
from mcp.server.mcpserver.exceptions import ToolError
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_common.server import ToolServer

COMMON = Path(__file__).parents[3] / "mcp_images" / "ropewalk_mcp_common"


def test_what_all_servers_share_stays_small_enough_to_be_read() -> None:
    lines = [line for file in COMMON.glob("*.py") for line in file.read_text().splitlines()]
    assert 50 < len(lines) <= 150


class Answer(BaseModel):
    """An answer of a tool."""

    number: int


async def misshapen(number: int) -> str:
    """Break off, as a tool does whose upstream's answer fits no model."""
    return str(Answer.model_validate({"number": f"secret {number}"}))


async def endless() -> str:
    """Wait for ever."""
    return str(await asyncio.Event().wait())


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def server(registry: CollectorRegistry) -> ToolServer:
    server = ToolServer("test", "A test.", registry)
    server.add_tool(misshapen)
    server.add_tool(endless)
    return server


def outcomes(registry: CollectorRegistry, outcome: str, tool: str = "misshapen") -> float | None:
    return registry.get_sample_value("ropewalk_mcp_tool_calls_total", {"tool": tool, "outcome": outcome})


async def test_a_tool_that_breaks_is_not_blamed_on_the_arguments(
    server: ToolServer, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ropewalk")
    with pytest.raises(ToolError) as raised:
        await server.call_tool("misshapen", {"number": 1})
    assert not isinstance(raised.value, CodedError)
    assert "secret" not in str(raised.value)
    assert outcomes(registry, "internal") == 1
    assert [vars(record)["outcome"] for record in caplog.records] == ["internal"]


async def test_wrong_arguments_are_named(server: ToolServer, registry: CollectorRegistry) -> None:
    with pytest.raises(CodedError, match="INVALID_INPUT: number is 'x'; "):
        await server.call_tool("misshapen", {"number": "x"})
    assert outcomes(registry, "invalid_input") == 1


async def test_an_argument_that_a_tool_does_not_have_is_named_with_those_that_it_has(
    server: ToolServer, registry: CollectorRegistry
) -> None:
    with pytest.raises(CodedError, match="INVALID_INPUT: 'nmber' is no argument of misshapen; use number"):
        await server.call_tool("misshapen", {"number": 1, "nmber": 1})
    with pytest.raises(CodedError, match="INVALID_INPUT: 'x' is no argument of endless; it takes none"):
        await server.call_tool("endless", {"x": 1})
    assert outcomes(registry, "invalid_input") == 1


async def test_a_call_that_is_given_up_is_no_fault_of_the_server(
    server: ToolServer, registry: CollectorRegistry
) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.call_tool("endless", {}), 0.05)
    assert outcomes(registry, "cancelled", "endless") == 1
