"""The tools that an MCP server lists: which of them are offered, under which names, and what a call of one needs."""

import asyncio
from typing import Any

import pytest

from agent_mcp import ADD, READ, Asked, Rogue, named, rogue_connection
from agent_mcp_faults import five_hundred
from agent_models import Call, ScriptedModel
from agent_server import running_agent
from mcp_wire import served
from ropewalk_agent.tools.sieve import Sieve
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.mark.parametrize(
    ("bad", "name", "reason"),
    [
        (
            {"name": "bad", "inputSchema": {"type": "object", "properties": {"a": {"type": "strnig"}}}},
            "bad",
            "properties.a",
        ),
        ({"name": "bad", "inputSchema": {"type": "array"}}, "bad", "not of type object"),
        ({"name": "bad"}, "bad", "inputSchema"),
        ({"name": "bad", "inputSchema": 7}, "bad", "inputSchema"),
        ({"name": "a.b", "inputSchema": {"type": "object"}}, "a.b", "names of 1 to 64"),
        ({"name": "x" * 65, "inputSchema": {"type": "object"}}, "x" * 65, "names of 1 to 64"),
        ({"name": "bad", "inputSchema": {"type": "object", "$ref": "http://127.0.0.1:9/x"}}, "bad", "another document"),
        *(
            ({"name": "bad", "inputSchema": {"type": "object", **odd}}, "bad", reason)
            for odd, reason in (
                ({"$schema": 7}, "is not a JSON Schema"),
                ({"$schema": ["draft"]}, "is not a JSON Schema"),
                ({"$schema": "http://["}, "is not a JSON Schema"),
                ({"not": []}, "is not a JSON Schema"),
                (
                    {"properties": {"a": {"type": "array", "x-mcp-header": "A"}}},
                    "has an x-mcp-header that is not valid",
                ),
                ({"pattern": "a{99999999999999999999}"}, "is not a JSON Schema"),
                ({"description": "x" * 100_000}, "is longer than 100000 characters"),
            )
        ),
        ({"inputSchema": {"type": "object"}}, "(number 2)", "no name"),
        ("text", "(number 2)", "no name"),
    ],
)
async def test_a_tool_that_cannot_be_used_is_left_out_and_the_others_work(bad: Any, name: str, reason: str) -> None:
    async with rogue_connection(Rogue(ADD, bad, READ)) as connection:
        assert connection.status.tools == ("add", "read")
        assert [one.name for one in connection.status.left_out] == [name]
        assert reason in connection.status.left_out[0].reason
        assert (await named(connection, "read").call({})).outcome == "ok"


async def test_the_loop_gets_a_turn_before_each_tool_that_is_checked() -> None:
    turns, over = 0, False

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    page, _ = await Sieve("").sift({"tools": [{**ADD, "name": f"tool_{number}"} for number in range(10)]})
    over = True
    await counting
    assert (len(page["tools"]), turns) == (10, 10)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": ["result"]},
        {"type": "object", "$ref": "#/nothing"},
        {"type": "object", "$ref": "http://127.0.0.1:9/schema"},
        {"type": "no type"},
    ],
)
async def test_a_call_that_was_made_is_not_told_as_failed_whatever_its_output_schema_says(
    schema: dict[str, Any],
) -> None:
    rogue = Rogue({**ADD, "outputSchema": schema})

    async def structured(asked: Asked) -> None:
        content = {"content": [{"type": "text", "text": "done"}], "structuredContent": {"a": 1}}
        await asked.result({"resultType": "complete", **content})

    rogue.on_call = structured
    async with rogue_connection(rogue) as connection:
        result = await named(connection, "add").call({})
    assert (result.outcome, result.content) == ("ok", [{"text": "done"}])


async def test_a_call_of_a_tool_that_is_listed_no_more_asks_for_no_listing() -> None:
    rogue, gone = Rogue(), asyncio.Event()

    async def no_listing(asked: Asked) -> bool:
        if gone.is_set() and asked.method == "tools/list":
            await five_hundred(asked)
            return True
        return False

    rogue.before = no_listing
    async with rogue_connection(rogue) as connection:
        add = named(connection, "add")
        rogue.tools = [READ]
        await eventually(lambda: connection.status.tools == ("read",))
        gone.set()
        result = await add.call({})
    assert (result.outcome, result.content) == ("ok", [{"text": "done"}])


async def test_five_hundred_tools_are_listed_and_called() -> None:
    rogue = Rogue(*({**ADD, "name": f"tool_{number}"} for number in range(500)))
    async with rogue_connection(rogue) as connection:
        assert len(connection.tools) == 500
        assert (await named(connection, "tool_499").call({})).outcome == "ok"


async def test_a_prefix_is_shown_to_the_model_and_the_server_knows_its_own_names() -> None:
    rogue = Rogue()
    async with rogue_connection(rogue, prefix="x_", tools={"deny": ["read"]}) as connection:
        assert (connection.status.tools, connection.status.hidden) == (("x_add",), ("read",))
        assert (await named(connection, "x_add").call({})).outcome == "ok"
    assert next(one for one in rogue.asked if one.method == "tools/call").message["params"]["name"] == "add"


async def test_a_turn_goes_on_with_the_tools_that_are_sound_and_the_report_tells_of_the_others() -> None:
    rogue = Rogue(ADD, {"name": "bad", "inputSchema": {"type": "object", "properties": 1}})
    model = ScriptedModel([Call("add", {})], ["done"])
    async with (
        served(rogue) as base,
        running_agent(model, mcpServers=[{"name": "rogue", "url": f"{base}/mcp"}]) as agent,
    ):
        assert (await agent.query("add")).json()["response"] == "done"
        assert model.tools_shown[0] == ["add"]
        server = (await agent.client.get("/tools")).json()["servers"][0]
        assert server["breaker"] == "closed"
        assert server["left_out"] == [{"tool": "bad", "reason": "its inputSchema is not a JSON Schema (at properties)"}]
