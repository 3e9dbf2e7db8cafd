"""Clients of the stateless era (2026-07-28) in front of a server of the older one, and the other way round."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mcp
import mcp_types
import pytest

from mcp_stdio import META, PER_SESSION, QUICK, SHARED, Peer, bridged, content, messages
from ropewalk_mcp_stdio.calls import Call
from ropewalk_mcp_stdio.jsonrpc import Refusal
from ropewalk_mcp_stdio.translation import Parking
from waiting import eventually

pytestmark = pytest.mark.timeout(60)
ELICIT = {"message": "sure?", "requestedSchema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
# A server of both eras, written with the SDK.
SDK = """
import sys
from mcp.server.mcpserver import Context, MCPServer
server = MCPServer("sdk", instructions="both")
@server.tool()
async def greet(name: str, context: Context) -> str:
    await context.info("greeting")
    return f"hello {name}"
server.run()
"""
# A server that knows the stateless era only.
NEWEST = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request.get("method") == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
        answer = {"result": result}
    elif request.get("method") == "tools/list":
        answer = {"result": {"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}}
    else:
        answer = {"error": {"code": -32022, "message": "newer"}}
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"]} | answer), flush=True)
"""


async def test_an_older_server_is_discovered() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        result = (await peer.stateless("server/discover")).json()["result"]
        assert result["supportedVersions"] == ["2026-07-28"]
        assert result["instructions"] == "Be gentle."
        assert result["capabilities"]["tools"] == {"listChanged": True}
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "by-hand"
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")


async def test_an_older_server_gets_no_envelope_and_its_results_get_what_the_era_demands() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        answer = (await peer.stateless("tools/call", {"name": "params", "_meta": {"own": 1}})).json()
        assert content(answer) == {"name": "params", "_meta": {"own": 1}}
        assert answer["result"]["resultType"] == "complete"
        listed = (await peer.stateless("tools/list")).json()["result"]
        assert (listed["ttlMs"], listed["cacheScope"]) == (0, "private")


async def test_what_an_older_server_asks_becomes_the_calls_result_and_the_call_goes_on_with_the_answer() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        first = (await peer.stateless("tools/call", {"name": "ask_twice"})).json()["result"]
        assert first["resultType"] == "input_required"
        ((key, question),) = first["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        assert question["params"]["message"] == "first?"
        reply = {"action": "accept", "content": {"a": 1}}
        again = {"name": "ask_twice", "requestState": first["requestState"], "inputResponses": {key: reply}}
        second = (await peer.stateless("tools/call", again)).json()["result"]
        ((key, question),) = second["inputRequests"].items()
        assert question["params"]["message"] == "second?"
        again |= {"requestState": second["requestState"], "inputResponses": {key: {"action": "decline"}}}
        assert content((await peer.stateless("tools/call", again)).json()) == [reply, {"action": "decline"}]
        # What has been used is used up.
        used = await peer.stateless("tools/call", again)
        assert used.status_code == 400
        assert "requestState" in used.json()["error"]["message"]


async def test_the_official_client_answers_an_older_servers_question() -> None:
    async def answer(context: Any, params: Any) -> mcp_types.ElicitResult:
        assert params.message == "sure?"
        return mcp_types.ElicitResult(action="accept", content={"a": 7})

    async with bridged() as url, mcp.Client(f"{url}/mcp", elicitation_callback=answer) as client:
        arguments = {"method": "elicitation/create", "params": ELICIT}
        result = await client.call_tool("ask", arguments)
        assert '"content": {"a": 7}' in result.content[0].text  # type: ignore[union-attr]


async def test_a_call_whose_client_does_not_come_back_is_cancelled_at_the_child() -> None:
    async with bridged(timing=replace(QUICK, parked=0.05)) as url, Peer.of(url) as peer:
        first = await peer.stateless("tools/call", {"name": "ask", "arguments": {"method": "elicitation/create"}})
        assert first.json()["result"]["resultType"] == "input_required"

        async def cancelled() -> bool:
            return bool(content((await peer.stateless("tools/call", {"name": "cancelled"})).json()))

        await eventually(cancelled)


async def test_a_question_of_a_child_that_has_died_leaves_nothing_behind() -> None:
    link = SimpleNamespace(park=lambda call: None, tell=lambda message: None)
    parking = Parking(60)
    call = Call(None, {"jsonrpc": "2.0", "id": 1, "method": "tools/call"})
    parking.ask(cast(Any, link), call, {"jsonrpc": "2.0", "id": 5, "method": "elicitation/create"})
    question, _ = call.take()
    assert question is not None
    state = question["result"]["requestState"]
    call.state = "done"
    with pytest.raises(Refusal, match="no call waits for this requestState"):
        parking.resume(Call(None, {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}), {"requestState": state})
    assert not parking._by_call
    assert not parking.waits_for(state)


async def test_a_client_that_closes_its_request_cancels_the_call() -> None:
    async with bridged() as url, Peer.of(url) as peer, Peer.of(url) as other:
        gone = asyncio.create_task(peer.stateless("tools/call", {"name": "wait"}))

        async def count() -> int:
            return int(content((await other.stateless("tools/call", {"name": "cancelled"})).json()))

        assert await count() == 0
        gone.cancel()
        await eventually(count)


async def test_a_listener_hears_what_it_asked_for_under_its_own_id() -> None:
    async with bridged() as url, Peer.of(url) as peer, Peer.of(url) as other:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}
        listen: dict[str, Any] = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen"}
        listen |= {"params": {"notifications": wanted, "_meta": META}}
        own = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
        async with peer.stream(listen, **own) as got:
            first = await anext(got)
            assert first["method"] == "notifications/subscriptions/acknowledged"
            assert first["params"]["notifications"] == wanted
            for uri in ("file:///b", "file:///a"):
                await other.stateless("tools/call", {"name": "update", "arguments": {"uri": uri}})
            await other.stateless("tools/call", {"name": "changed"})
            second, third = await anext(got), await anext(got)
            assert second["params"]["uri"] == "file:///a"
            assert third["method"] == "notifications/tools/list_changed"
            for message in (first, second, third):
                assert message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub"


def listening(wanted: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The request that subscribes to this, and its headers."""
    params = {"notifications": wanted, "_meta": META}
    listen = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen", "params": params}
    return listen, {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}


async def test_the_child_is_unsubscribed_when_the_last_listener_has_gone(tmp_path: Path) -> None:
    methods = tmp_path / "methods"
    async with bridged(MCP_TEST_FILE=str(methods)) as url, Peer.of(url) as peer:
        listen, own = listening({"resourceSubscriptions": ["file:///a"]})
        async with peer.stream(listen, **own) as got:
            await anext(got)
            await eventually(lambda: "resources/subscribe" in methods.read_text())
        await eventually(lambda: "resources/unsubscribe" in methods.read_text())


@pytest.mark.parametrize("uris", [7, [{"uri": "file:///a"}], "file:///a"])
async def test_a_subscription_of_a_wrong_form_is_refused_and_hurts_nobody(uris: Any) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        listen, own = listening({"resourceSubscriptions": uris})
        assert (await peer.post(listen, **own)).status_code == 400
        await peer.initialize()
        assert "result" in await peer.ask("resources/unsubscribe", {"uri": "file:///a"})


async def test_an_open_subscription_does_not_hold_up_the_end_of_the_bridge() -> None:
    async with Peer.of("") as peer:
        async with bridged(timing=replace(QUICK, drain=1000)) as url:
            peer.url = f"{url}/mcp"
            listen, own = listening({"toolsListChanged": True})
            stream = peer.stream(listen, **own)
            got = await stream.__aenter__()
            await anext(got)
        last = await anext(got)
        assert last["error"]["message"] == "the server is shutting down"
        await stream.__aexit__(None, None, None)


async def test_calls_that_come_while_the_tools_are_listed_are_checked_too() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        params = {"name": "params", "arguments": {"region": "eu"}}
        calls = [peer.stateless("tools/call", params, **{"mcp-param-region": "us"}) for _ in range(5)]
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [400] * 5


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "resources/subscribe"])
async def test_what_the_stateless_era_does_not_have_is_not_found(method: str) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        answer = await peer.stateless(method)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("headers", "meta", "code"),
    [
        ({"mcp-method": "tools/list"}, {}, -32020),
        ({"mcp-name": "other"}, {}, -32020),
        ({"mcp-name": "=?base64?cGFyYW1z?="}, {}, None),
        ({"mcp-name": "=?base64?cGFyYW1z"}, {}, -32020),
        ({"mcp-protocol-version": "2027-01-01"}, {}, -32020),
        ({"mcp-protocol-version": "2027-01-01"}, {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}, -32022),
        ({"mcp-param-region": "eu"}, {}, -32020),
    ],
)
async def test_headers_must_say_what_the_body_says(
    headers: dict[str, str], meta: dict[str, str], code: int | None
) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        answer = await peer.stateless("tools/call", {"name": "params", "_meta": meta}, **headers)
        assert answer.json().get("error", {}).get("code") == code
        assert answer.status_code == (400 if code else 200)


@pytest.mark.parametrize(("header", "code"), [("eu", None), ("us", -32020), ("=?base64?ZXU=?=", None), (None, -32020)])
async def test_an_argument_that_is_repeated_in_a_header_is_the_same_in_both(
    header: str | None, code: int | None
) -> None:
    async with bridged() as url, Peer.of(url) as peer:
        own = {"mcp-param-region": header} if header else {}
        answer = await peer.stateless("tools/call", {"name": "params", "arguments": {"region": "eu"}}, **own)
        assert answer.json().get("error", {}).get("code") == code


async def test_a_request_without_its_envelope_is_refused() -> None:
    async with bridged() as url, Peer.of(url) as peer:
        own = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
        answer = await peer.post(peer.request("tools/list"), **own)
        assert answer.status_code == 400
        assert "clientCapabilities" in answer.json()["error"]["message"]


async def test_a_server_of_both_eras_serves_clients_of_both(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SDK)
    async with bridged(sys.executable, str(tmp_path / "server.py")) as url:
        for mode in ("legacy", "auto"):
            async with mcp.Client(f"{url}/mcp", mode=mode) as client:
                answer = await client.call_tool("greet", {"name": mode})
                assert answer.content[0].text == f"hello {mode}"  # type: ignore[union-attr]


async def test_a_server_of_the_stateless_era_only_says_so_to_an_older_client(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(NEWEST)
    async with bridged(sys.executable, str(tmp_path / "server.py")) as url, Peer.of(url) as peer:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = await peer.post(peer.request("initialize", params))
        assert answer.status_code == 400
        assert "2026-07-28" in answer.json()["error"]["message"]
        # And stays well for others.
        assert messages(await peer.stateless("tools/list"))[0]["result"]["tools"] == []


@pytest.mark.parametrize("session_mode", [SHARED, PER_SESSION])
async def test_a_stateless_server_whose_first_start_failed_is_served_all_the_same(
    tmp_path: Path, session_mode: str
) -> None:
    failed = tmp_path / "failed"
    fail = f"import pathlib, sys\nif not (it := pathlib.Path({str(failed)!r})).exists(): sys.exit(it.touch() or 1)\n"
    (tmp_path / "server.py").write_text(fail + NEWEST)
    serving = bridged(sys.executable, str(tmp_path / "server.py"), mode=session_mode)
    async with serving as url, Peer.of(url) as peer:
        assert failed.exists()
        assert messages(await peer.stateless("tools/list"))[0]["result"]["tools"] == []


async def test_a_stateless_call_waits_for_the_first_start_of_a_process_of_its_own() -> None:
    async with bridged(mode=PER_SESSION, ready=False) as url, Peer.of(url) as peer:
        assert (
            content((await peer.stateless("tools/call", {"name": "echo", "arguments": {"text": "up"}})).json()) == "up"
        )


@pytest.mark.parametrize("habit", ["ignore", "die"])
async def test_an_old_server_that_cannot_bear_discover_is_greeted_all_the_same(habit: str) -> None:
    async with bridged(timing=replace(QUICK, patience=0.1), MCP_TEST_DISCOVER=habit) as url, Peer.of(url) as peer:
        await peer.initialize()
        assert await peer.call("echo", text="well") == "well"


async def test_white_space_around_a_headers_value_is_no_part_of_it() -> None:
    async with bridged() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pid", "_meta": META}})
        head = [
            "POST /mcp HTTP/1.1", "Host: localhost", "Connection: close", "Content-Type: application/json",
            "Accept: application/json, text/event-stream", f"Content-Length: {len(body)}",
            "MCP-Protocol-Version: \t2026-07-28 ", "Mcp-Method: tools/call", "Mcp-Name:   pid\t ",
        ]  # fmt: skip
        writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        assert b" 200 " in await reader.readline()
        writer.close()
