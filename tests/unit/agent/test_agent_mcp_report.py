"""What /tools tells of a server and of what it defines: enough for somebody who may not ask the server himself."""

from typing import Any

import pytest

from agent_mcp import Asked, Rogue, connected_to, named
from agent_models import ScriptedModel
from agent_server import running_agent
from mcp_wire import served
from ropewalk_agent.tools import mcp
from ropewalk_agent.tools.definitions import LONGEST_DESCRIPTION, definition_hash
from waiting import eventually

SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}}


async def report(rogue: Rogue, **server: Any) -> dict[str, Any]:
    async with (
        served(rogue) as base,
        running_agent(ScriptedModel(), mcpServers=[{"name": "rogue", "url": f"{base}/mcp", **server}]) as agent,
    ):
        told: dict[str, Any] = (await agent.client.get("/tools")).json()["servers"][0]
        return told


async def test_shown_and_hidden_tools_are_told_with_the_hash_of_their_definition() -> None:
    add = {"name": "add", "description": "Adds.", "inputSchema": SCHEMA}
    bad = {"name": "bad", "inputSchema": {"type": "string"}}
    told = await report(Rogue(add, {"name": "read", "inputSchema": SCHEMA}, bad), tools={"deny": ["read"]}, prefix="x_")
    assert told["definitions"] == [
        {"name": "add", "description": "Adds.", "hash": definition_hash("add", "Adds.", SCHEMA)},
        {"name": "read", "description": "", "hash": definition_hash("read", "", SCHEMA)},
    ]
    assert (told["tools"], told["hidden"]) == (["x_add"], ["read"])
    assert [one["tool"] for one in told["left_out"]] == ["bad"]


async def test_a_long_description_is_told_in_part_and_hashed_as_a_whole() -> None:
    long = "d" * (LONGEST_DESCRIPTION + 1)
    (told,) = (await report(Rogue({"name": "add", "description": long, "inputSchema": SCHEMA})))["definitions"]
    assert told["description"] == "d" * LONGEST_DESCRIPTION
    assert told["hash"] == definition_hash("add", long, SCHEMA)


async def test_the_protocols_version_and_the_servers_name_are_told() -> None:
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        if asked.method != "server/discover":
            return False
        info = {"io.modelcontextprotocol/serverInfo": {"name": "n" * 300, "version": "7"}}
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "_meta": info}
        await asked.result({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result})
        return True

    rogue.before = before
    told = await report(rogue)
    assert told["protocol_version"] == "2026-07-28"
    assert told["server_info"] == {"name": "n" * 256, "version": "7"}
    assert told["has_session"] is False


async def test_of_a_server_that_was_never_reached_nothing_is_told() -> None:
    servers = [{"name": "gone", "url": "http://127.0.0.1:9/mcp", "required": False}]
    async with running_agent(ScriptedModel(), mcpServers=servers) as agent:
        told = (await agent.client.get("/tools")).json()["servers"][0]
    assert (told["protocol_version"], told["server_info"], told["definitions"]) == (None, None, [])


async def test_a_changed_definition_has_another_hash_as_soon_as_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(mcp, "_LEAST_PAUSE_SECONDS", 0.02)
    rogue = Rogue({"name": "add", "inputSchema": SCHEMA})
    async with served(rogue) as base, connected_to(f"{base}/mcp") as connection:
        before = connection.status.definitions
        rogue.tools = [{"name": "add", "description": "Adds.", "inputSchema": SCHEMA}]
        await eventually(lambda: connection.status.definitions != before)
        assert [one.hash for one in connection.status.definitions] == [definition_hash("add", "Adds.", SCHEMA)]
        assert named(connection, "add").description == "Adds."
