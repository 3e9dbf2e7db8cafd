"""Every provider by its own client library against a local server that speaks its protocol, over real HTTP."""

import asyncio
import datetime
import ipaddress
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent_model_desk import Desk, model_document
from agent_providers import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    PROTOCOLS,
    Breaks,
    Calls,
    IsSilent,
    Refuses,
    Says,
    provider,
)
from ports import free_port
from ropewalk_agent.events import TextDelta
from ropewalk_agent.tools import Tool, ToolResult
from waiting import eventually

pytestmark = pytest.mark.parametrize("name", PROTOCOLS)

KEY = "sk-first-key"
ATTEMPTS = dict.fromkeys(PROTOCOLS, 3) | dict.fromkeys(("mistral", "ollama", "llamacpp"), 1)
PATHS = {
    "anthropic": "/v1/messages",
    "bedrock": "/model/m/converse-stream",
    "gemini": "/v1beta/models/m:streamGenerateContent",
    "ollama": "/api/chat",
}
TOO_LONG = {
    "anthropic": "prompt is too long: 9 tokens > 5 maximum",
    "bedrock": "Input is too long for requested model.",
    "gemini": "The input token count (9) exceeds the maximum number of tokens allowed (5).",
    "mistral": "Prompt contains 9 tokens, too large for model with 5 maximum context length",
    "ollama": "the input length exceeds the context length",
    "llamacpp": "the request exceeds the available context size",
}
FILTERED = "Blocked by the content filter"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(f"{KEY}\n")
    return tmp_path / "key"


@pytest.fixture
def once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the provider's client ask once, for the sake of speed."""
    module = import_module(f"ropewalk_agent.models.{name.removesuffix('-compatible')}")
    monkeypatch.setattr(module, "RETRIES", 0, raising=False)


async def test_a_text_turn_is_asked_told_and_counted(name: str, key_file: Path) -> None:
    async with provider(name, Says(("Hel", "lo"))) as server:
        async with Desk(model_document(name, server.url, key_file)) as desk:
            *deltas, answer = [event async for event in desk.told("what?")]
        assert "".join(delta.text for delta in deltas) == answer.response == "Hello"
        assert (answer.input_tokens, answer.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
        (asked,) = server.asked
        assert asked.path == PATHS.get(name, "/v1/chat/completions")
        assert server.keys == [KEY]
        assert "what?" in str(asked.body)
        assert "You are tested." in str(asked.body)


async def test_a_piece_is_told_before_the_next_is_written(name: str, key_file: Path) -> None:
    hold = asyncio.Event()
    async with (
        provider(name, Says(("one", "two"), hold)) as server,
        Desk(model_document(name, server.url, key_file)) as desk,
    ):
        events = desk.told()
        assert await asyncio.wait_for(anext(events), 5) == TextDelta("one")
        hold.set()
        assert [event async for event in events][-1].response == "onetwo"


async def test_a_tool_is_called_and_its_result_goes_back(name: str, key_file: Path) -> None:
    calls: list[dict[str, Any]] = []

    async def add(arguments: dict[str, Any]) -> ToolResult:
        calls.append(arguments)
        return ToolResult("ok", [{"text": "the sum is 42"}])

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = Tool("add", "srv", "adds numbers", schema, add)
    async with (
        provider(name, Calls("add", {"a": 40}), Says(("It is 42.",))) as server,
        Desk(model_document(name, server.url, key_file), tools=(tool,)) as desk,
    ):
        answer = await desk.answer()
        assert (calls, answer.response, answer.tools_used) == ([{"a": 40}], "It is 42.", ("add",))
        assert answer.input_tokens == 2 * INPUT_TOKENS
        assert "adds numbers" in str(server.asked[0].body)
        assert "the sum is 42" in str(server.asked[1].body)


async def test_a_rotated_key_is_used_by_the_next_turn_and_the_next_call_of_a_running_one(
    name: str, key_file: Path
) -> None:
    hold = asyncio.Event()

    async def look(arguments: dict[str, Any]) -> ToolResult:
        await hold.wait()
        return ToolResult("ok", [{"text": "seen"}])

    tool = Tool("look", "srv", "looks", {"type": "object", "properties": {}}, look)
    async with (
        provider(name, Calls("look", {}), Says(("after",)), Says(("before",))) as server,
        Desk(model_document(name, server.url, key_file), tools=(tool,)) as desk,
    ):
        running = asyncio.create_task(desk.answer(session="running"))
        await eventually(lambda: len(server.asked) == 1)
        rotated = key_file.with_name("new")
        rotated.write_text("sk-second-key")
        rotated.rename(key_file)
        assert (await desk.answer()).response == "after"
        hold.set()
        assert (await running).response == "before"
        assert server.keys == [KEY, "sk-second-key", "sk-second-key"]


async def test_the_client_makes_no_more_attempts_than_documented(
    name: str, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ropewalk_agent.models.gemini._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("ropewalk_agent.models.gemini._JITTER_SECONDS", 0.001)
    busy = Refuses(503, "come back later", headers=(("retry-after-ms", "1"),))
    async with provider(name, busy) as server, Desk(model_document(name, server.url, key_file)) as desk:
        assert "its provider has failed (status 503): come back later" in await desk.failure()
        assert len(server.asked) == ATTEMPTS[name]


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("status", "words", "code", "said"),
    [
        (400, "temperature must be moderate", "bad", "refused the request (status 400): temperature must be moderate"),
        (400, FILTERED, "content_filter", f"content filter refused (status 400): {FILTERED}"),
        (400, "", "context_length_exceeded", "too long for its context window (status 400): "),
        (401, "no such key", "bad", "refused the key (status 401): no such key"),
        (403, "not for you", "bad", "refused the key (status 403): not for you"),
        (404, "no model m", "bad", "does not know the model or the address (status 404): no model m"),
        (429, "slow down", "bad", "limits the rate of requests (status 429): slow down"),
        (500, "we are broken", "bad", "has failed (status 500): we are broken"),
        (529, "we are overloaded", "bad", "has failed (status 529): we are overloaded"),
    ],
)
async def test_a_refusal_is_told_in_the_providers_words_and_without_the_key(
    name: str,
    status: int,
    words: str,
    code: str,
    said: str,
    key_file: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    words = words or TOO_LONG.get(name, "This model's maximum context length is 5 tokens")
    refuses = Refuses(status, f"{words} (your key is {KEY})", code)
    async with provider(name, refuses) as server, Desk(model_document(name, server.url, key_file)) as desk:
        message = await desk.failure("a secret question")
    assert f"the model {desk.config.model.id} failed: " in message
    assert said in message
    assert message.endswith("(your key is [redacted])")
    written = caplog.text + "".join(capfd.readouterr())
    assert "a secret question" not in written


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_is_told_and_takes_neither_key_nor_prompt_elsewhere(
    name: str, status: int, key_file: Path
) -> None:
    async with provider(name) as elsewhere, provider(name) as server:
        server.steps = [Refuses(status, "moved", headers=(("location", f"{elsewhere.url}/v1/anything"),))]
        async with Desk(model_document(name, server.url, key_file)) as desk:
            assert f"redirects to another address (status {status}): " in await desk.failure()
        assert len(server.asked) == 1
        assert elsewhere.asked == []


@pytest.mark.usefixtures("once")
async def test_a_host_that_nobody_listens_at_is_told(name: str, key_file: Path) -> None:
    async with Desk(model_document(name, f"http://127.0.0.1:{free_port()}", key_file)) as desk:
        assert "failed: its provider cannot be reached: " in await desk.failure()


@pytest.mark.usefixtures("once")
async def test_a_silent_provider_is_given_up_after_the_time_limit(name: str, key_file: Path) -> None:
    end = asyncio.Event()
    async with provider(name, IsSilent(end)) as server:
        async with Desk(model_document(name, server.url, key_file), timeout_seconds=0.2) as desk:
            assert "failed: its provider did not answer in time: " in await desk.failure()
        end.set()


@pytest.mark.usefixtures("once")
async def test_a_connection_that_breaks_is_told_wherever_it_breaks(name: str, key_file: Path) -> None:
    async with (
        provider(name, Breaks(), Breaks(("half an",))) as server,
        Desk(model_document(name, server.url, key_file)) as desk,
    ):
        assert "failed: its provider broke the connection off: " in await desk.failure()
        assert "failed: its provider broke the connection off: " in await desk.failure()


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A key and a certificate that nobody has signed, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted))
    (folder / "certificate").write_bytes(certificate.public_bytes(pem))
    return str(folder / "key"), str(folder / "certificate")


@pytest.mark.usefixtures("once")
async def test_a_certificate_that_is_not_trusted_ends_the_call(
    name: str, key_file: Path, untrusted: tuple[str, str]
) -> None:
    async with provider(name, ssl_files=untrusted) as server:
        url = server.url.replace("http://", "https://")
        async with Desk(model_document(name, url, key_file)) as desk:
            assert "failed: TLS with its provider has failed: " in await desk.failure()
        assert server.asked == []
