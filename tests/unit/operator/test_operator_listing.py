"""Asking real servers on loopback for their tools: what is found, and in what words it is said that nothing was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.server.mcpserver import MCPServer

from agent_mcp import ADD, Asked, Rogue
from mcp_wire import served
from ports import free_port
from private_ca import PrivateCa
from ropewalk_operator import listing, wire
from ropewalk_operator.discovery import ListingError
from ropewalk_operator.facts import Discovered
from ropewalk_operator.listing import list_tools


async def found(app: Any, *, ca_bundle: str | None = None, seconds: float = 5.0, **options: Any) -> Discovered:
    async with served(app, **options) as base:
        return await list_tools(f"{base}/mcp", ca_bundle=ca_bundle, time_limit_seconds=seconds)


async def why_not(app: Any, **options: Any) -> str:
    with pytest.raises(ListingError) as error:
        await found(app, **options)
    return str(error.value)


def always(behaviour: Callable[[Asked], Awaitable[None]]) -> Rogue:
    """A server that answers everything so."""
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        await behaviour(asked)
        return True

    rogue.before = before
    return rogue


def at_listing(behaviour: Callable[[Asked], Awaitable[None]]) -> Rogue:
    """A server that answers tools/list so."""
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        if asked.method != "tools/list":
            return False
        await behaviour(asked)
        return True

    rogue.before = before
    return rogue


def sdk(*, description: str = "Adds.") -> MCPServer:
    server = MCPServer("math", version="7")

    @server.tool(description=description)
    def add(a: float, b: float) -> float:
        return a + b

    return server


def older(app: Any) -> Any:
    """The same server for those who do not know server/discover, and so for the older era."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers") or ())
        if headers.get(b"mcp-method") == b"server/discover":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"Not Found"})
        else:
            await app(scope, receive, send)

    return serve


def http_app(server: MCPServer, **options: Any) -> Any:
    return server.streamable_http_app(host="127.0.0.1", **options)


async def test_the_tools_of_a_real_server_are_listed_and_their_hash_follows_their_description() -> None:
    first = await found(http_app(sdk()))
    again = await found(http_app(sdk()))
    other = await found(http_app(sdk(description="Adds two numbers.")))
    assert first == again
    assert [(tool.name, tool.description) for tool in first.tools] == [("add", "Adds.")]
    assert (first.server_name, first.server_version, first.protocol_version) == ("math", "7", "2026-07-28")
    assert other.tools[0].hash != first.tools[0].hash


@pytest.mark.parametrize(
    ("options", "has_session"), [({}, True), ({"stateless_http": True}, False), ({"json_response": True}, True)]
)
async def test_a_server_of_the_older_era_is_listed_and_its_sessions_are_seen(
    options: dict[str, Any], has_session: bool
) -> None:
    said = await found(older(http_app(sdk(), **options)))
    assert [tool.name for tool in said.tools] == ["add"]
    assert (said.protocol_version, said.has_session) == ("2025-11-25", has_session)


async def test_both_eras_give_a_tool_the_same_hash() -> None:
    assert (await found(older(http_app(sdk())))).tools == (await found(http_app(sdk()))).tools


async def test_five_hundred_tools_on_five_pages_are_listed_by_name() -> None:
    tools = [{**ADD, "name": f"tool_{number:03}"} for number in reversed(range(500))]

    async def page(asked: Asked) -> None:
        start = int(asked.message["params"].get("cursor") or 0)
        result: dict[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        result["tools"] = tools[start : start + 100]
        if start < 400:
            result["nextCursor"] = str(start + 100)
        await asked.result(result)

    said = await found(at_listing(page))
    assert [tool.name for tool in said.tools] == [f"tool_{number:03}" for number in range(500)]


async def test_a_definition_that_cannot_be_used_is_named_and_spoils_no_other() -> None:
    rogue = Rogue()
    rogue.tools = [
        ADD,
        {"name": "text", "inputSchema": {"type": "string"}},
        {"name": "none"},
        {"inputSchema": {"type": "object"}},
        {"name": "odd", "inputSchema": {"type": "object"}, "annotations": "secret-looking"},
        7,
    ]
    said = await found(rogue)
    assert [tool.name for tool in said.tools] == ["add"]
    assert [(each.name, each.reason) for each in said.left_out] == [
        ("text", "its inputSchema is not of type object"),
        ("none", "its inputSchema is not of type object"),
        ("(number 4)", "it has no name"),
        ("odd", "its definition is not valid: annotations"),
        ("(number 6)", "it has no name"),
    ]


async def test_of_two_tools_with_one_name_the_first_counts() -> None:
    first, second = ({**ADD, "description": text} for text in ("one", "two"))
    assert [tool.description for tool in (await found(Rogue(first, second))).tools] == ["one"]


async def test_what_a_server_calls_itself_and_its_tools_is_cut() -> None:
    rogue = Rogue({**ADD, "name": "n" * 300, "description": "d" * 2000})
    (tool,) = (await found(rogue)).tools
    assert (len(tool.name), len(tool.description)) == (256, 1024)


async def test_no_redirect_is_followed_and_the_final_address_is_told_without_credentials() -> None:
    victim = Rogue()
    async with served(victim) as elsewhere:

        async def redirect(asked: Asked) -> None:
            place = elsewhere.replace("//", "//user:pa55@")
            await asked.answer(b"", status=307, location=f"{place}/private?key=s3cret#part")

        said = await why_not(always(redirect))
    assert said == (
        f"it redirects to {elsewhere}/private by HTTP 307, which is not followed; "
        "put the final address into spec.remote.url"
    )
    assert victim.asked == []


async def test_a_redirect_within_a_pod_names_the_path_as_the_field_to_change() -> None:
    async def redirect(asked: Asked) -> None:
        await asked.answer(b"", status=308, location="/mcp/")

    rogue = always(redirect)
    async with served(rogue) as base:
        with pytest.raises(ListingError, match=r"/mcp/ by HTTP 308.*put the final address into spec\.path"):
            await list_tools(f"{base}/mcp", ca_bundle=None, time_limit_seconds=5, final_address="spec.path")
    assert {one.path for one in rogue.asked} == {"/mcp"}


async def test_a_redirect_at_the_listing_is_not_followed_either() -> None:
    async def redirect(asked: Asked) -> None:
        await asked.answer(b"", status=302, location="http://169.254.169.254/latest/meta-data")

    said = await why_not(at_listing(redirect))
    assert said.startswith("it redirects to http://169.254.169.254/latest/meta-data by HTTP 302")


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"body": b"", "status": 401}, "it answered HTTP 401 Unauthorized"),
    ({"body": b"go\r\n\x00 away", "status": 403}, "it answered HTTP 403 Forbidden: go away"),
    ({"body": b"x" * 100_000, "status": 500}, f"it answered HTTP 500 Internal Server Error: {'x' * 200}…"),
    ({"body": b"", "status": 404}, "it answered HTTP 404 Not Found"),
    (
        {"body": {"error": {"message": "no such tenant"}}, "status": 400},
        "it answered HTTP 400 Bad Request: no such tenant",
    ),
    ({"body": b"<html>", "content_type": "text/html"}, "it answered text/html where JSON or an event stream is due"),
    ({"body": b"\xff\x00", "content_type": "application/json"}, "its answer is not JSON-RPC"),
    ({"body": b"", "content_encoding": "gzip"}, "it sent a compressed answer, which was not asked for"),
]


@pytest.mark.parametrize(("answer", "said"), REFUSALS, ids=[said for _, said in REFUSALS])
async def test_a_refusal_is_told_with_its_status_and_a_piece_of_its_words(answer: dict[str, Any], said: str) -> None:
    async def refuse(asked: Asked) -> None:
        await asked.answer(**answer)

    assert await why_not(always(refuse)) == said
    assert await why_not(at_listing(refuse)) == said


async def test_an_error_of_the_server_is_told_in_its_own_words() -> None:
    async def refuse(asked: Asked) -> None:
        error = {"code": -32603, "message": "the database\nis away"}
        await asked.answer({"jsonrpc": "2.0", "id": asked.message.get("id"), "error": error})

    said = "it answered with an error: the database is away (code -32603)"
    assert await why_not(at_listing(refuse)) == said
    assert await why_not(always(refuse)) == said


async def test_an_answer_that_the_protocol_does_not_allow_is_not_quoted() -> None:
    async def odd(asked: Asked) -> None:
        await asked.result({"tools": "secret-looking"})

    assert await why_not(at_listing(odd)) == "its answer is not what the protocol says"


async def fifty_megabytes(asked: Asked) -> None:
    head = [(b"content-type", b"application/json")]
    await asked.send({"type": "http.response.start", "status": 200, "headers": head})
    for _ in range(50):
        await asked.send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
    await asked.send({"type": "http.response.body", "body": b""})


async def test_fifty_megabytes_are_not_read() -> None:
    said = "its answer to tools/list is larger than 10000000 bytes, which is not read"
    assert await why_not(at_listing(fifty_megabytes)) == said


def event_stream(*sizes: int) -> Callable[[Asked], Awaitable[None]]:
    """Answers tools/list by notifications of so many bytes each, and then the tools."""

    async def answer(asked: Asked) -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": ""}}
        notes = [{**note, "params": {"level": "info", "data": "x" * size}} for size in sizes]
        listed = {"tools": [ADD], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        events = [*notes, {"jsonrpc": "2.0", "id": asked.message["id"], "result": listed}]
        content = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        await asked.answer(content.encode(), content_type="text/event-stream")

    return answer


async def test_an_event_that_is_too_large_is_told_and_many_smaller_ones_are_read() -> None:
    said = await why_not(at_listing(event_stream(1_000_001)))
    assert said.startswith("an event of its answer to tools/list is larger than 1000000 bytes, which is not read")
    assert [tool.name for tool in (await found(at_listing(event_stream(600_000, 600_000, 600_000)))).tools] == ["add"]


async def test_pages_that_are_too_large_only_together_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGEST_LISTING_BYTES", 50_000)

    async def endless(asked: Asked) -> None:
        tool = {**ADD, "description": "d" * 10_000}
        await asked.result(
            {"tools": [tool], "nextCursor": "more", "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        )

    assert (await why_not(at_listing(endless))).startswith("its answer to tools/list is larger than 50000 bytes")


async def test_pages_without_end_and_tools_without_number_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(asked: Asked) -> None:
        await asked.result(
            {"tools": [ADD, ADD], "nextCursor": "more", "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        )

    assert await why_not(at_listing(endless)) == "it lists its tools on more than 64 pages, which are not read"
    monkeypatch.setattr(listing, "TOOLS", 10)
    assert await why_not(at_listing(endless)) == "it lists more than 10 tools, which are not read"


async def test_a_server_that_does_not_answer_in_time_is_given_up() -> None:
    over = asyncio.Event()

    async def hang(_: Asked) -> None:
        await over.wait()

    async with served(always(hang)) as base:
        with pytest.raises(ListingError) as error:
            await list_tools(f"{base}/mcp", ca_bundle=None, time_limit_seconds=0.1)
        over.set()
    assert str(error.value) == "no answer within 0.1 s (connecting); agents wait no longer"


async def test_of_a_listing_that_takes_too_long_the_page_is_known() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def hang(_: Asked) -> None:
        begun.set()
        await over.wait()

    doing = ["connecting"]
    async with served(at_listing(hang)) as base:
        guard = wire.Guard(httpx2.AsyncHTTPTransport(), has_bundle=False, final_address="")
        asking = asyncio.create_task(listing._listed(f"{base}/mcp", guard, doing))
        await begun.wait()
        asking.cancel()
        await asyncio.wait([asking])
        over.set()
    assert doing[-1] == "waiting for page 1 of tools/list"


async def test_an_answer_that_breaks_off_is_told() -> None:
    async def cut_off(asked: Asked) -> None:
        head = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await asked.send({"type": "http.response.start", "status": 200, "headers": head})
        await asked.send({"type": "http.response.body", "body": b'{"jsonrpc"', "more_body": True})
        raise ConnectionError

    assert (await why_not(at_listing(cut_off))).startswith("its answer broke off: ")


async def test_a_stream_that_ends_without_an_answer_is_told() -> None:
    async def empty(asked: Asked) -> None:
        await asked.answer(b": nothing follows\n\n", content_type="text/event-stream")

    assert await why_not(at_listing(empty)) == "its stream ended without an answer"


async def test_a_port_that_nobody_serves_and_a_name_that_nobody_has_are_told() -> None:
    with pytest.raises(ListingError, match=r"^it cannot be reached: Connection refused$"):
        await list_tools(f"http://127.0.0.1:{free_port()}/mcp", ca_bundle=None, time_limit_seconds=5)
    with pytest.raises(ListingError, match=r"^it cannot be reached: .*[Nn]ame"):
        await list_tools("http://nobody.invalid/mcp", ca_bundle=None, time_limit_seconds=5)


async def test_a_private_authority_is_trusted_by_its_bundle_and_else_the_way_out_is_told(tmp_path: Path) -> None:
    authority = PrivateCa()
    options: dict[str, Any] = authority.server(tmp_path)
    assert [tool.name for tool in (await found(Rogue(), ca_bundle=authority.pem, **options)).tools] == ["add", "read"]
    said = await why_not(Rogue(), **options)
    assert said.startswith("its TLS certificate is not accepted: unable to get local issuer certificate")
    assert said.endswith("put that one's certificate into spec.remote.caBundle")
    said = await why_not(Rogue(), ca_bundle=PrivateCa("another").pem, **options)
    assert said.endswith("spec.remote.caBundle has none that vouches for it")


async def test_a_certificate_for_another_host_and_one_that_has_ended_are_told(tmp_path: Path) -> None:
    authority = PrivateCa()
    said = await why_not(Rogue(), ca_bundle=authority.pem, **authority.server(tmp_path, address="192.0.2.1"))
    assert said.startswith("its TLS certificate is not accepted: IP address mismatch")
    said = await why_not(Rogue(), ca_bundle=authority.pem, **authority.server(tmp_path, days=-1))
    assert said == "its TLS certificate is not accepted: certificate has expired"


async def test_https_to_a_port_without_tls_is_told() -> None:
    async with served(Rogue()) as base:
        with pytest.raises(ListingError, match=r"^there is no TLS at its address .* https may be wrong for this port$"):
            await list_tools(base.replace("http", "https") + "/mcp", ca_bundle=None, time_limit_seconds=5)


async def test_no_proxy_of_the_environment_stands_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (await found(Rogue())).tools


async def test_a_session_is_ended_when_all_is_known() -> None:
    ended: list[str] = []
    app = older(http_app(sdk()))

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "DELETE":
            ended.append(dict(scope["headers"])[b"mcp-session-id"].decode())
        await app(scope, receive, send)

    await found(watching)
    assert len(ended) == 1


@pytest.mark.parametrize("hangs", ["at once", "in the body"])
async def test_a_server_that_never_lets_go_of_the_session_is_left(hangs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FAREWELL_SECONDS", 0.05)
    app, over = older(http_app(sdk())), asyncio.Event()

    async def clinging(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "DELETE":
            await app(scope, receive, send)
            return
        if hangs == "in the body":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await over.wait()

    async with served(clinging) as base:
        async with asyncio.timeout(10):
            listed = await list_tools(f"{base}/mcp", ca_bundle=None, time_limit_seconds=60)
        over.set()
    assert [tool.name for tool in listed.tools] == ["add"]


def test_words_hold_no_line_breaks_and_no_control_characters() -> None:
    assert wire.one_line("a\r\nb\x1b[31m\tc", 100) == "a b [31m c"
    assert json.loads(json.dumps(wire.one_line("é" * 300, 200))) == "é" * 200 + "…"
