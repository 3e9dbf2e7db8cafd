"""Servers that cannot answer just now and say so as JSON-RPC, as the stdio bridge does when its process has ended."""

import pytest

from agent_mcp import ADD, READ, Asked, Rogue, named, rogue_connection

RETRY = {"maxAttempts": 3, "initialDelayMilliseconds": 10}


def away_for(times: int, status: int) -> Rogue:
    rogue = Rogue(ADD, READ)

    async def on_call(asked: Asked) -> None:
        if rogue.count("tools/call") > times:
            await asked.text("done")
            return
        error = {"code": -32011, "message": "the process of server 'files' exited with code 3"}
        await asked.answer({"jsonrpc": "2.0", "id": asked.message["id"], "error": error}, status=status)

    rogue.on_call = on_call
    return rogue


@pytest.mark.parametrize("status", [429, 503])
async def test_a_call_that_is_safe_to_repeat_is_made_again(status: int) -> None:
    rogue = away_for(1, status)
    async with rogue_connection(rogue, retry=RETRY) as connection:
        assert (await named(connection, "read").call({})).outcome == "ok"
    assert rogue.count("tools/call") == 2


async def test_any_other_call_is_made_once_and_the_model_is_told_in_the_servers_words() -> None:
    rogue = away_for(1, 503)
    async with rogue_connection(rogue, retry=RETRY) as connection:
        result = await named(connection, "add").call({})
    assert rogue.count("tools/call") == 1
    said = "it answered HTTP 503 Service Unavailable: the process of server 'files' exited with code 3"
    assert (result.outcome, said in result.content[0]["text"]) == ("error", True)
