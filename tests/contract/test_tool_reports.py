"""The contract about tools: what the operator reads of a server and what an agent reports of it are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_mcp import Rogue
from agent_models import ScriptedModel
from agent_server import running_agent
from mcp_wire import served
from ropewalk_agent.tools import definitions as agents
from ropewalk_operator import definitions as operators
from ropewalk_operator.discovery import AgentPod
from ropewalk_operator.listing import list_tools
from ropewalk_operator.observe import AgentClient
from ropewalk_operator.reports import ask, report
from waiting import eventually

DEEP: dict[str, Any] = {"type": "object"}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"in": DEEP}}

NASTY: list[dict[str, Any]] = [
    {"name": "plain", "description": "Adds.", "inputSchema": {"type": "object"}},
    {"name": "no_description", "inputSchema": {"type": "object"}},
    {"name": "empty_description", "description": "", "inputSchema": {"type": "object"}},
    {"name": "title_only", "title": "A title", "inputSchema": {"type": "object"}},
    {
        "name": "unicode",
        "description": 'Füge "hinzu" \U0001f9ee \u2028 \x07 \\ zwei\nZeilen',
        "inputSchema": {"type": "object"},
    },
    {"name": "order_one", "description": "d", "inputSchema": {"type": "object", "b": 1, "a": {"y": 1, "x": 2}}},
    {"name": "order_two", "description": "d", "inputSchema": {"a": {"x": 2, "y": 1}, "b": 1, "type": "object"}},
    {
        "name": "numbers",
        "inputSchema": {
            "type": "object",
            "n": [1, 1.0, -0.0, 1e300, 1e-7, 0.1, 12345678901234567890, 2**70, True, None],
        },
    },
    {"name": "deep", "inputSchema": DEEP},
    {
        "name": "keys",
        "inputSchema": {"type": "object", "properties": {"ä": {}, "": {}, "\U0001f600": {}, "\uffff": {}, "Z": {}}},
    },
    {"name": "refs", "inputSchema": {"type": "object", "$defs": {"a": {"type": "null"}}, "$ref": "#/$defs/a"}},
    {"name": "long", "description": "ü" * 5000, "inputSchema": {"type": "object"}},
]


def parts(definition: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    return definition["name"], definition.get("description", ""), definition["inputSchema"]


@pytest.mark.parametrize("definition", NASTY, ids=[each["name"] for each in NASTY])
def test_operator_and_agent_hash_a_definition_alike(definition: dict[str, Any]) -> None:
    assert agents.definition_hash(*parts(definition)) == operators.definition_hash(*parts(definition))


def test_a_hash_never_changes_with_a_release() -> None:
    # An upgrade that hashed otherwise would tell of changed tools in every namespace.
    said = operators.definition_hash("add", "Fügt hinzu.", {"type": "object", "b": [1.0, 1], "a": None})
    assert said == "sha256:33f3ba48382d33ee26f02fd04c1470df2f5fc45e5734820d950976c5cdabce84"


def test_the_order_of_keys_does_not_count_and_that_of_lists_does() -> None:
    schemas: list[dict[str, Any]] = [{"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, {"a": 1, "b": [2, 1]}]
    first, second, third = (agents.definition_hash("n", "d", schema) for schema in schemas)
    assert first == second != third


async def test_the_operator_learns_of_an_agent_what_it_would_learn_of_the_server() -> None:
    rogue = Rogue(*NASTY, {"name": "bad", "inputSchema": {"type": "string"}})
    async with served(rogue) as base:
        asked = await list_tools(f"{base}/mcp", ca_bundle=None, time_limit_seconds=10)
        servers = [{"name": "nasty", "url": f"{base}/mcp", "tools": {"deny": ["plain"]}, "prefix": "x_"}]
        async with running_agent(ScriptedModel(), mcpServers=servers) as agent:
            client = AgentClient(int(agent.client.base_url.port or 0))
            reported = await ask("nasty", [AgentPod("calc", "127.0.0.1")], client.tools)
            await client.close()
    assert len(asked.tools) == len(NASTY)
    assert reported.tools == asked.tools
    assert reported.left_out == asked.left_out
    assert (reported.protocol_version, reported.server_name) == (asked.protocol_version, asked.server_name)
    assert reported.note == 'as agent "calc" reports'


async def test_the_operator_quotes_why_an_agent_does_not_reach_a_server(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    servers = [
        {
            "name": "far",
            "url": "http://127.0.0.1:9/mcp",
            "required": False,
            "auth": {"bearerTokenFile": str(tmp_path / "token")},
        }
    ]
    async with running_agent(ScriptedModel(), mcpServers=servers) as agent:
        client = AgentClient(int(agent.client.base_url.port or 0))

        async def error() -> str | None:
            return report("calc", "far", await client.tools("127.0.0.1")).error

        said = await eventually(error, "the agent tells why")
        await client.close()
    assert said.startswith("it cannot be reached: ")
