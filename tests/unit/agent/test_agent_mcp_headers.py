"""Headers for an MCP server: from mounted files, to that server alone, and what a caller sends goes to none."""

import logging
from pathlib import Path
from typing import Any

import pytest

from agent_mcp import ADD, Asked, Rogue, connected_to, named
from agent_models import Call, ScriptedModel
from agent_server import running_agent
from mcp_wire import served
from ropewalk_agent.config import ConfigError, parse
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")

VALUE = "ApiKey k3y-value"


def mounted(folder: Path, value: str | bytes, name: str = "X-Api-Key") -> dict[str, str]:
    file = folder / "header-0"
    file.write_bytes(value if isinstance(value, bytes) else value.encode())
    return {"name": name, "valueFile": str(file)}


async def test_a_header_goes_along_with_every_request_and_a_rotated_value_is_used_at_once(tmp_path: Path) -> None:
    rogue = Rogue()
    header = mounted(tmp_path, f"{VALUE}\n")
    async with served(rogue) as base, connected_to(f"{base}/mcp", headers=[header]) as connection:
        assert {one.headers.get("x-api-key") for one in rogue.asked} == {VALUE}
        (tmp_path / "new").write_text("second value")
        (tmp_path / "new").replace(tmp_path / "header-0")
        assert (await named(connection, "add").call({})).outcome == "ok"
    assert rogue.asked[-1].headers["x-api-key"] == "second value"


async def test_two_headers_and_a_token_go_along_together(tmp_path: Path) -> None:
    rogue = Rogue()
    (tmp_path / "token").write_text("mine")
    (tmp_path / "tenant").write_text("7")
    headers = [mounted(tmp_path, VALUE), {"name": "X-Tenant", "valueFile": str(tmp_path / "tenant")}]
    config: dict[str, Any] = {"headers": headers, "auth": {"bearerTokenFile": str(tmp_path / "token")}}
    async with served(rogue) as base, connected_to(f"{base}/mcp", **config):
        sent = rogue.asked[0].headers
    assert (sent["authorization"], sent["x-api-key"], sent["x-tenant"]) == ("Bearer mine", VALUE, "7")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is missing or empty; mount the Secret with it there"),
        (b"", "is missing or empty; mount the Secret with it there"),
        (b"one\ntwo-secret", "must hold one line of visible ASCII characters"),
        ("sécret".encode(), "must hold one line of visible ASCII characters"),
        (b"\xff\xfe", "cannot be read (UnicodeDecodeError)"),
    ],
)
async def test_without_a_value_that_a_header_can_carry_nothing_is_sent_and_the_file_is_named(
    value: bytes | None, said: str, tmp_path: Path
) -> None:
    rogue = Rogue()
    header = mounted(tmp_path, value or b"")
    if value is None:
        (tmp_path / "header-0").unlink()
    async with served(rogue) as base, connected_to(f"{base}/mcp", wait=False, headers=[header]) as connection:
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.last_error == f"no header X-Api-Key: {header['valueFile']} {said}"
    assert rogue.asked == []


async def test_a_refused_header_is_told_and_its_value_stands_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ropewalk")
    rogue = Rogue()

    async def refuse(asked: Asked) -> bool:
        await asked.answer(b"", status=401)
        return True

    async def quote(asked: Asked) -> bool:
        scheme, key = asked.headers["x-api-key"].split()
        message = f"bad key: {key} ({scheme} {key})"
        error = {"jsonrpc": "2.0", "id": asked.message.get("id"), "error": {"code": -32000, "message": message}}
        await asked.answer(error, status=400)
        return True

    rogue.before = refuse
    header = mounted(tmp_path, VALUE)
    async with served(rogue) as base, connected_to(f"{base}/mcp", wait=False, headers=[header]) as connection:
        await eventually(lambda: "headers" in (connection.status.last_error or ""))
        told = [connection.status.last_error]
        rogue.before = quote
        await eventually(lambda: "bad key" in (connection.status.last_error or ""))
        told.append(connection.status.last_error)
    assert told == [
        "it answered HTTP 401 Unauthorized; it does not accept the agent's headers",
        "bad key: [redacted] ([redacted])",
    ]
    assert VALUE.split()[1] not in str([vars(record) for record in caplog.records])


async def test_what_a_server_quotes_of_a_header_in_its_definitions_is_not_told(tmp_path: Path) -> None:
    rogue = Rogue({**ADD, "description": f"For {VALUE}. {'x' * 995} {VALUE}"})

    async def before(asked: Asked) -> bool:
        if asked.method != "server/discover":
            return False
        info = {"io.modelcontextprotocol/serverInfo": {"name": VALUE, "version": f"7 {VALUE}"}}
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "_meta": info}
        await asked.result({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result})
        return True

    rogue.before = before
    header = mounted(tmp_path, VALUE)
    async with served(rogue) as base, connected_to(f"{base}/mcp", headers=[header]) as connection:
        status = connection.status
    assert status.info is not None
    assert (status.info.name, status.info.version) == ("[redacted]", "7 [redacted]")
    assert status.definitions[0].description == f"For [redacted]. {'x' * 995} [redacted]"


async def test_headers_do_not_follow_a_redirect_to_another_origin(tmp_path: Path) -> None:
    rogue, victim = Rogue(), Rogue()
    async with served(victim) as elsewhere, served(rogue) as base:

        async def redirect(asked: Asked) -> bool:
            place = elsewhere.replace("//", "//user:pa55@")
            await asked.answer(b"", status=307, location=f"{place}/mcp?key=s3cret#part")
            return True

        rogue.before = redirect
        async with connected_to(f"{base}/mcp", wait=False, headers=[mounted(tmp_path, VALUE)]) as connection:
            await eventually(lambda: connection.status.last_error is not None)
            assert connection.status.last_error == (
                f"it redirects to another host ({elsewhere}/mcp), which is not followed; "
                "set the server's url to its real one"
            )
    assert victim.asked == []


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_drop_the_request_is_an_error(status: int) -> None:
    rogue = Rogue()

    async def redirect(asked: Asked) -> bool:
        await asked.answer(b"", status=status, location="/new?key=s3cret")
        return True

    rogue.before = redirect
    async with served(rogue) as base, connected_to(f"{base}/mcp", wait=False) as connection:
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.last_error == (
            f"it redirects by HTTP {status} ({base}/new), which is not followed; set the server's url to its real one"
        )
    assert {one.path for one in rogue.asked} == {"/mcp"}


async def test_what_a_caller_proves_itself_with_goes_to_no_mcp_server() -> None:
    rogue, model = Rogue(), ScriptedModel([Call("add", {})], ["done"])
    inbound = {
        "Authorization": "Bearer caller-token",
        "Proxy-Authorization": "Basic caller-proxy",
        "Cookie": "session=caller-cookie",
        "X-Api-Key": "caller-key",
        "X-Forwarded-User": "caller-user",
        "Baggage": "who=caller-baggage",
    }
    async with (
        served(rogue) as base,
        running_agent(model, mcpServers=[{"name": "rogue", "url": f"{base}/mcp"}]) as agent,
    ):
        answer = await agent.client.post("/query", json={"query": "add"}, headers=inbound)
        assert answer.json()["tools_used"] == ["add"]
    called = next(one for one in rogue.asked if one.method == "tools/call")
    assert "authorization" not in called.headers
    assert "cookie" not in called.headers
    assert "caller-" not in str([(one.headers, one.message) for one in rogue.asked])


def parsed(**server: Any) -> None:
    model = {"provider": "openai-compatible", "id": "m", "baseURL": "http://m/v1"}
    servers = [{"name": "s", "url": "https://s/mcp", **server}]
    parse({"formatVersion": 1, "name": "a", "systemPrompt": "p", "model": model, "mcpServers": servers})


@pytest.mark.parametrize("name", ["Host", "content-length", "Connection", "Mcp-Session-Id", "TE"])
def test_headers_that_http_and_mcp_use_themselves_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which HTTP and MCP use themselves"):
        parsed(headers=[{"name": name, "valueFile": "/f"}])


@pytest.mark.parametrize("name", ["", "two words", "a:b", "ä", "line\nbreak"])
def test_a_name_that_is_no_headers_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"mcpServers\.0\.headers\.0\.name"):
        parsed(headers=[{"name": name, "valueFile": "/f"}])


@pytest.mark.parametrize(
    "server",
    [
        {"headers": [{"name": "X-Key", "valueFile": "/f"}, {"name": "x-key", "valueFile": "/g"}]},
        {"headers": [{"name": "authorization", "valueFile": "/f"}], "auth": {"bearerTokenFile": "/t"}},
    ],
)
def test_a_header_that_is_set_twice_is_refused(server: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="more than once; set it in one place"):
        parsed(**server)
