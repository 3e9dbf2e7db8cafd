"""Refusals that are JSON nested without end: they cost the one question that meets them, and are told as refusals."""

from agent_mcp import Asked, Rogue, named, rogue_connection
from ropewalk_agent.models.failures import failure_of

NESTED = "[" * 60_000


class Refused(Exception):
    """What a provider's client raises: it keeps the answer as `body`."""

    status_code = 400
    body = NESTED


async def test_a_servers_nested_refusal_costs_only_the_call_that_meets_it() -> None:
    rogue = Rogue()

    async def refuse(asked: Asked) -> None:
        await asked.answer(NESTED.encode(), status=400)

    rogue.on_call = refuse
    async with rogue_connection(rogue) as connection:
        result = await named(connection, "add").call({})
        assert (result.outcome, "it answered HTTP 400" in result.content[0]["text"]) == ("error", True)
        rogue.on_call = None
        assert (await named(connection, "add").call({})).outcome == "ok"
        assert rogue.count("server/discover") == 1, "the connection went on"


def test_a_models_nested_refusal_is_told_as_one() -> None:
    assert failure_of(Refused()).kind == "refused"
