"""What the leaf makes of a tool that fails in a way of its own."""

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


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def server(registry: CollectorRegistry) -> ToolServer:
    server = ToolServer("test", "A test.", registry)
    server.add_tool(misshapen)
    return server


def outcomes(registry: CollectorRegistry, outcome: str) -> float | None:
    return registry.get_sample_value("ropewalk_mcp_tool_calls_total", {"tool": "misshapen", "outcome": outcome})


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
