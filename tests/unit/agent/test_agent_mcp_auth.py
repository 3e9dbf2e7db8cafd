"""Tokens for MCP servers: mounted or fetched, cached, renewed in time, and never where they do not belong."""

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from agent_mcp import Asked, Rogue, connected_to, named
from clock import Clock
from mcp_wire import served
from ropewalk_agent.config import ClientCredentials
from ropewalk_agent.errors import redacted
from ropewalk_agent.tools import auth, wire
from ropewalk_agent.tools.auth import AuthError, BearerFile, ClientCredentialTokens
from ropewalk_agent.tools.headers import MountedHeaders
from waiting import eventually

pytestmark = pytest.mark.usefixtures("short_pauses")

SECRET = "s3cret/with+signs"
GZIP = b"\x1f\x8b"  # what gzip begins with: RFC 1952, section 2.3.1


class TokenEndpoint:
    """An OAuth token endpoint that numbers its tokens; `answer` replaces what it says."""

    def __init__(self) -> None:
        self.forms: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, str]], tuple[int, Any]] | None = None
        self.gate: Callable[[], Awaitable[object]] | None = None
        self.life: object = 3600

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.forms.append(parse_qs((await receive())["body"].decode()))
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.headers.append(headers)
        if self.gate is not None:
            await self.gate()
        token: Any = {"access_token": f"token-{len(self.forms)}", "token_type": "Bearer", "expires_in": self.life}
        status, body = self.answer(headers) if self.answer is not None else (200, token)
        fields = [(b"content-type", b"application/json")]
        if status == 307:
            fields.append((b"location", body.encode()))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if content.startswith(GZIP):
            fields.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})


def credentials(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    (folder / "id").write_text("agent:one\n")
    (folder / "secret").write_text(SECRET + "\n")
    return {
        "tokenURL": url,
        "clientIDFile": str(folder / "id"),
        "clientSecretFile": str(folder / "secret"),
        **more,
    }


def tokens(folder: Path, url: str, clock: Clock, told: list[str] | None = None, **more: Any) -> ClientCredentialTokens:
    config = ClientCredentials.model_validate(credentials(folder, url, **more))
    return ClientCredentialTokens(config, (told if told is not None else []).append, clock=clock)


def demanding(wanted: Callable[[], str]) -> Rogue:
    """A server that lets nobody in without the token that is wanted now."""
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        good = asked.headers.get("authorization") == f"Bearer {wanted()}"
        if not good:
            await asked.answer(b"", status=401)
        return not good

    rogue.before = before
    return rogue


async def test_a_mounted_token_is_sent_and_read_again_when_it_changes(tmp_path: Path) -> None:
    file, wanted = tmp_path / "token", "one"
    file.write_text("one\n")
    rogue = demanding(lambda: wanted)
    async with (
        served(rogue) as base,
        connected_to(f"{base}/mcp", auth={"bearerTokenFile": str(file)}) as connection,
    ):
        assert (await named(connection, "add").call({})).outcome == "ok"
        (tmp_path / "new").write_text("two")
        (tmp_path / "new").replace(file)
        wanted = "two"
        assert (await named(connection, "add").call({})).outcome == "ok"


@pytest.mark.parametrize("content", [None, ""])
async def test_a_missing_token_is_told_and_nothing_is_sent_without_it(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    rogue = Rogue()
    async with (
        served(rogue) as base,
        connected_to(f"{base}/mcp", wait=False, auth={"bearerTokenFile": str(file)}) as connection,
    ):
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.last_error == f"no token: {file} is missing or empty; mount the Secret with it there"
        assert rogue.asked == []


@pytest.mark.parametrize("kind", ["bearerTokenFile", "clientCredentials"])
async def test_a_secret_that_cannot_be_read_is_told_and_used_once_it_can(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_FAILURE_SECONDS", 0.0)
    endpoint, rogue = TokenEndpoint(), demanding(lambda: "token-1")
    async with served(endpoint) as tokens_at, served(rogue) as base:
        config: dict[str, Any] = {"clientCredentials": credentials(tmp_path, tokens_at)}
        if kind == "bearerTokenFile":
            config = {kind: str(tmp_path / "secret")}
        file = tmp_path / "secret"
        file.unlink()
        file.mkdir()
        async with connected_to(f"{base}/mcp", wait=False, auth=config) as connection:
            told = f"no token: {file} cannot be read"
            await eventually(lambda: connection.status.last_error == f"{told} (IsADirectoryError)")
            file.rmdir()
            file.write_bytes(b"\xff")
            await eventually(lambda: connection.status.last_error == f"{told} (UnicodeDecodeError)")
            file.write_text("token-1")
            await eventually(lambda: connection.status.state == "connected")


@pytest.mark.parametrize("content", ["TOPSECRET\nOTHERLINE", "TOPSECRET OTHERLINE", "TOPSECRETé"])
async def test_a_mounted_token_that_no_header_can_carry_is_refused_and_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    file, rogue = tmp_path / "token", Rogue()
    file.write_text(content, encoding="utf-8")
    async with (
        served(rogue) as base,
        connected_to(f"{base}/mcp", wait=False, auth={"bearerTokenFile": str(file)}) as connection,
    ):
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.last_error == f"no token: {file} must hold one word of visible ASCII characters"
        assert "TOPSECRET" not in str([vars(record) for record in caplog.records])
    assert rogue.asked == []


async def test_a_mounted_token_stays_a_secret_after_its_rotation(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    source = BearerFile(file)
    await source.token()
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").replace(file)
    assert source.rejected("one")
    assert {"one", "two"} <= set(source.secrets())


async def test_a_fetched_token_stays_a_secret_after_it_was_rejected_and_renewed(tmp_path: Path) -> None:
    endpoint, clock = TokenEndpoint(), Clock()
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        await source.token()
        clock.now += 60
        assert source.rejected("token-1")
        assert "token-1" in source.secrets()
        assert await source.token() == "token-2"
        assert {"token-1", "token-2"} <= set(source.secrets())


async def test_no_part_of_a_long_token_is_told_although_a_broken_connection_quotes_it(tmp_path: Path) -> None:
    file, token = tmp_path / "token", "TOPSECRET" * 100
    file.write_text(token)

    def breaks(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.LocalProtocolError(f"Illegal header value {request.headers['authorization']!r}", request=request)

    source, url = BearerFile(file), "http://127.0.0.1:9/mcp"
    guarded = wire.GuardedTransport(httpx2.MockTransport(breaks), url, source, MountedHeaders(()))
    with pytest.raises(wire.WireError) as caught:
        await guarded.handle_async_request(httpx2.Request("POST", url))
    assert redacted(str(caught.value), source.secrets()) == (
        "the connection broke: Illegal header value 'Bearer [redacted]'"
    )


async def test_client_credentials_are_exchanged_once_for_many_requests(tmp_path: Path) -> None:
    endpoint, rogue = TokenEndpoint(), demanding(lambda: "token-1")
    async with served(endpoint) as tokens_at, served(rogue) as base:
        config = credentials(tmp_path, f"{tokens_at}/token", scopes=["a", "b"])
        async with connected_to(f"{base}/mcp", auth={"clientCredentials": config}) as connection:
            for _ in range(3):
                assert (await named(connection, "add").call({})).outcome == "ok"
    assert endpoint.forms == [{"grant_type": ["client_credentials"], "scope": ["a b"]}]
    basic = base64.b64encode(b"agent%3Aone:s3cret%2Fwith%2Bsigns").decode()
    assert endpoint.headers[0]["authorization"] == f"Basic {basic}"


@pytest.mark.parametrize(
    ("life", "kept_seconds"),
    [(3600, 3300), (600, 300), (400, 200), ("3600", 3300), (None, 300), ("soon", 300)],
)
async def test_a_token_is_renewed_300_seconds_early_or_at_half_its_life(
    tmp_path: Path, life: object, kept_seconds: float
) -> None:
    endpoint, clock = TokenEndpoint(), Clock()
    endpoint.life = life
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        assert await source.token() == "token-1"
        clock.now += kept_seconds - 0.1
        assert await source.token() == "token-1"
        clock.now += 0.1
        assert await source.token() == "token-2"


async def test_many_callers_make_one_request_for_a_token(tmp_path: Path) -> None:
    endpoint = TokenEndpoint()
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, Clock())
        assert set(await asyncio.gather(*(source.token() for _ in range(20)))) == {"token-1"}
    assert len(endpoint.forms) == 1


async def test_while_a_token_is_renewed_the_others_go_on_with_the_old_one(tmp_path: Path) -> None:
    endpoint, clock, go_on = TokenEndpoint(), Clock(), asyncio.Event()
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        await source.token()
        endpoint.gate = go_on.wait
        clock.now += 3400
        renewing = asyncio.ensure_future(source.token())
        await eventually(lambda: len(endpoint.forms) == 2)
        assert await source.token() == "token-1"
        go_on.set()
        assert await renewing == "token-2"


async def test_a_renewal_that_fails_is_told_and_the_old_token_serves_to_its_end(tmp_path: Path) -> None:
    endpoint, clock, told = TokenEndpoint(), Clock(), list[str]()
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock, told)
        await source.token()
        endpoint.answer = lambda _: (503, {})
        clock.now += 3400
        assert [await source.token() for _ in range(5)] == ["token-1"] * 5
        assert len(endpoint.forms) == 2, "asked once, then left in peace for a while"
        assert told == [f"no token: the token endpoint {base}/ answered HTTP 503"]
        clock.now += 200
        with pytest.raises(AuthError, match="answered HTTP 503"):
            await source.token()


async def test_a_failing_endpoint_is_not_asked_by_every_caller(tmp_path: Path) -> None:
    endpoint, clock = TokenEndpoint(), Clock()
    endpoint.answer = lambda _: (500, {})
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        results = await asyncio.gather(*(source.token() for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, AuthError) for result in results)
        assert len(endpoint.forms) == 1
        endpoint.answer = None
        clock.now += 1.1
        assert await source.token() == "token-2"


async def test_askers_do_not_prolong_the_pause_after_a_failure(tmp_path: Path) -> None:
    endpoint, clock, asked = TokenEndpoint(), Clock(), list[int]()
    endpoint.answer = lambda _: (500, {})
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        for _ in range(4):
            with pytest.raises(AuthError, match="answered HTTP 500"):
                await source.token()
            asked.append(len(endpoint.forms))
            clock.now += 0.6
    assert asked == [1, 1, 2, 2]


async def test_within_the_pause_after_a_failure_a_token_that_is_good_is_used(tmp_path: Path) -> None:
    endpoint, clock = TokenEndpoint(), Clock()
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        await source.token()
        endpoint.answer = lambda _: (503, {})
        clock.now += 3599
        assert await source.token() == "token-1"
        clock.now += 0.6
        assert await source.token() == "token-1"
    assert len(endpoint.forms) == 2


async def test_an_endpoint_that_takes_the_secret_in_the_body_only_gets_it_there(tmp_path: Path) -> None:
    endpoint, clock = TokenEndpoint(), Clock()

    def in_the_body(headers: dict[str, str]) -> tuple[int, Any]:
        if "authorization" in headers:
            return 401, {"error": "invalid_client"}
        return 200, {"access_token": "from-body", "token_type": "bearer", "expires_in": 3600}

    endpoint.answer = in_the_body
    async with served(endpoint) as base:
        source = tokens(tmp_path, base, clock)
        assert await source.token() == "from-body"
        assert endpoint.forms[1]["client_secret"] == [SECRET]
        clock.now += 3600
        await source.token()
        assert len(endpoint.forms) == 3, "it remembers what the endpoint takes"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, {"error": "invalid_scope", "error_description": SECRET}, "answered HTTP 400: invalid_scope"),
        (400, {"error": SECRET}, "answered HTTP 400"),
        (200, {"token_type": "bearer"}, "sent no access_token"),
        (200, {"access_token": "a\nb"}, "sent no access_token"),
        (200, {"access_token": "a", "token_type": "mac"}, "not of type Bearer"),
        (200, {"access_token": "a", "expires_in": -1}, "ended already"),
        (200, "text", "sent no access_token"),
        (200, b"[" * 60_000, "sent no access_token"),
        (200, gzip.compress(b'{"access_token": "a"}', mtime=0), "sent a compressed answer, which was not asked for"),
        (200, {"access_token": "x" * 70_000}, "sent more than 65536 bytes"),
        (307, "http://127.0.0.1:9/elsewhere", "answered HTTP 307"),
    ],
)
async def test_what_is_wrong_with_the_endpoint_is_told_without_the_secret(
    tmp_path: Path, status: int, body: Any, reason: str
) -> None:
    endpoint = TokenEndpoint()
    endpoint.answer = lambda _: (status, body)
    async with served(endpoint) as base:
        with pytest.raises(AuthError) as caught:
            await tokens(tmp_path, base, Clock()).token()
    assert str(caught.value).endswith(reason)
    assert SECRET not in str(caught.value)


async def test_an_endpoint_that_nobody_serves_or_that_is_silent_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AuthError, match=r"cannot be asked \(ConnectError\)"):
        await tokens(tmp_path, "http://127.0.0.1:9/", Clock()).token()
    monkeypatch.setattr(auth, "_ENDPOINT_SECONDS", 0.1)
    endpoint, over = TokenEndpoint(), asyncio.Event()
    endpoint.gate = over.wait
    async with served(endpoint) as base:
        with pytest.raises(AuthError, match=r"did not answer within 0.1 s|cannot be asked"):
            await tokens(tmp_path, base, Clock()).token()
        over.set()


async def test_a_token_that_the_server_takes_no_more_is_renewed_once_and_the_call_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_NEW_SECONDS", 0.0)
    endpoint, wanted = TokenEndpoint(), "token-1"
    rogue = demanding(lambda: wanted)
    async with served(endpoint) as tokens_at, served(rogue) as base:
        config = {"clientCredentials": credentials(tmp_path, tokens_at)}
        async with connected_to(f"{base}/mcp", auth=config) as connection:
            wanted = "token-2"
            assert (await named(connection, "add").call({})).outcome == "ok"
            assert len(endpoint.forms) == 2
            assert connection.status.state == "connected"


async def test_a_server_that_takes_no_token_at_all_does_not_cause_a_flood_of_them(tmp_path: Path) -> None:
    endpoint, rogue = TokenEndpoint(), demanding(lambda: "never")
    async with served(endpoint) as tokens_at, served(rogue) as base:
        config = {"clientCredentials": credentials(tmp_path, tokens_at)}
        async with connected_to(f"{base}/mcp", wait=False, auth=config) as connection:
            await eventually(lambda: len(rogue.asked) > 10)
            assert connection.status.last_error == (
                "it answered HTTP 401 Unauthorized; it does not accept the agent's token"
            )
    assert len(endpoint.forms) == 1


async def test_a_failure_of_the_token_endpoint_is_the_last_error_of_the_server(tmp_path: Path) -> None:
    config = {"clientCredentials": credentials(tmp_path, "http://127.0.0.1:9/token")}
    rogue = Rogue()
    async with served(rogue) as base, connected_to(f"{base}/mcp", wait=False, auth=config) as connection:
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.last_error == (
            "no token: the token endpoint http://127.0.0.1:9/token cannot be asked (ConnectError)"
        )
        assert rogue.asked == []


async def test_a_token_does_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    rogue, victim = Rogue(), Rogue()
    async with served(victim) as elsewhere, served(rogue) as base:

        async def redirect(asked: Asked) -> bool:
            await asked.answer(b"", status=307, location=f"{elsewhere}/mcp")
            return True

        rogue.before = redirect
        config = {"bearerTokenFile": str(tmp_path / "token")}
        async with connected_to(f"{base}/mcp", wait=False, auth=config) as connection:
            await eventually(lambda: connection.status.last_error is not None)
            assert "redirects to another host" in (connection.status.last_error or "")
    assert rogue.asked[0].headers["authorization"] == "Bearer mine"
    assert victim.asked == []


async def test_no_token_or_secret_is_logged_or_told_although_the_server_quotes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_NEW_SECONDS", 0.0)
    caplog.set_level(logging.DEBUG, "ropewalk")
    endpoint, rogue = TokenEndpoint(), Rogue()
    endpoint.answer = lambda _: (200, {"access_token": "t0ken-value", "expires_in": 3600})

    async def quote(asked: Asked) -> bool:
        message = f"bad credentials: {asked.headers.get('authorization')} {SECRET}"
        error = {"jsonrpc": "2.0", "id": asked.message.get("id"), "error": {"code": -32000, "message": message}}
        await asked.answer(error, status=400)
        return True

    rogue.before = quote
    async with served(endpoint) as tokens_at, served(rogue) as base:
        config = {"clientCredentials": credentials(tmp_path, tokens_at)}
        async with connected_to(f"{base}/mcp", wait=False, auth=config) as connection:
            await eventually(lambda: connection.status.last_error is not None)
            told = str(connection.status)
    logged = str([vars(record) for record in caplog.records])
    assert "bad credentials: Bearer [redacted] [redacted]" in told
    assert "'fault': 'refused'" in logged
    assert "bad credentials" not in logged, "a server's own words are not for the log"
    told += logged
    assert "t0ken-value" not in told
    assert SECRET not in told
