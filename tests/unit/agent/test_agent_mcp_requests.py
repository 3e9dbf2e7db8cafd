"""What goes out to an MCP server: where redirects may lead it, what goes along, how long it may be silent."""

import httpx2
import pytest

from agent_mcp import Asked, Rogue, named, rogue_connection
from mcp_wire import served
from ropewalk_agent.tools import wire
from ropewalk_agent.tools.headers import MountedHeaders

pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    victim = Rogue()
    async with served(victim) as elsewhere:
        rogue = Rogue()

        async def redirect(asked: Asked) -> None:
            await asked.answer(b"", status=307, location=f"{elsewhere}/mcp")

        rogue.on_call = redirect
        async with rogue_connection(rogue) as connection:
            result = await named(connection, "add").call({})
    assert "redirects to another host" in result.content[0]["text"]
    assert victim.asked == []


async def test_a_redirect_within_the_host_is_followed() -> None:
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        if asked.path == "/mcp":
            await asked.answer(b"", status=307, location="/mcp/")
        return asked.path == "/mcp"

    rogue.before = before
    async with rogue_connection(rogue) as connection:
        assert (await named(connection, "add").call({})).outcome == "ok"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/mcp", "it redirects more than 5 times (http://127.0.0.1:"),
        ("//", "it redirects more than 5 times (http://127.0.0.1:"),
        ("mailto:somebody", "it redirects to what is no address"),
        ("http://xn--\u00ff.com/", "it redirects to what is no address"),
        ("ftp://127.0.0.1/mcp", "it redirects to another host (ftp://127.0.0.1:"),
    ],
)
async def test_a_redirect_that_leads_nowhere_costs_only_the_call_that_meets_it(location: str, said: str) -> None:
    rogue = Rogue()

    async def redirect(asked: Asked) -> None:
        await asked.answer(b"", status=307, location=location)

    rogue.on_call = redirect
    async with rogue_connection(rogue) as connection:
        session = connection.session
        assert said in (await named(connection, "add").call({})).content[0]["text"]
        rogue.on_call = None
        assert (await named(connection, "add").call({})).outcome == "ok"
        assert connection.session is session


async def test_the_outgoing_context_goes_along_in_headers_and_meta() -> None:
    rogue = Rogue()
    async with rogue_connection(rogue) as connection:
        connection.calls._outgoing_context = lambda: {"traceparent": "00-1-2-01"}
        await named(connection, "add").call({})
    call = next(one for one in rogue.asked if one.method == "tools/call")
    assert call.headers["traceparent"] == "00-1-2-01"
    assert call.message["params"]["_meta"]["traceparent"] == "00-1-2-01"
    assert all("traceparent" not in one.headers for one in rogue.asked if one.method == "tools/list")


@pytest.mark.parametrize(
    ("method", "headers", "seconds"),
    [
        ("GET", {}, None),
        ("POST", {"mcp-method": "subscriptions/listen"}, None),
        ("POST", {"mcp-method": "tools/call"}, 7.0),
    ],
)
async def test_only_a_stream_of_notifications_may_be_silent(
    method: str, headers: dict[str, str], seconds: float | None
) -> None:
    seen: list[float | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx2.Response(202)

    guarded = wire.GuardedTransport(httpx2.MockTransport(answer), "http://127.0.0.1:9/mcp", None, MountedHeaders(()))
    async with httpx2.AsyncClient(transport=guarded, timeout=7.0) as client:
        await client.request(method, "http://127.0.0.1:9/mcp", headers=headers)
    assert seen == [seconds]
