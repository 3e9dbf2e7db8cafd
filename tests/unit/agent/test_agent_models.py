"""Each provider's Model is built with what agent.json says; no call is made."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agent_server import agent_config
from ropewalk_agent.bridge import Turn
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.events import TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.models import KeyFile, build
from ropewalk_agent.sessions.memory import MemorySessions
from ropewalk_agent.turn import TurnRunner
from waiting import eventually


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("first-key\n")
    return tmp_path / "key"


def config_of(**fields: Any) -> ModelConfig:
    return ModelConfig.model_validate(fields)


def inside(model: Any) -> Any:
    """Look into a provider's own Model, whose details Strands' base class does not know."""
    return model


async def test_openai_compatible_reaches_its_server_through_one_client_and_needs_no_key() -> None:
    config = config_of(provider="openai-compatible", id="m", baseURL="http://m:8080/v1", parameters={"temperature": 0})
    built = build(config, 7.0)
    client = inside(built.model)._custom_client
    assert str(client.base_url) == "http://m:8080/v1/"
    assert (client.timeout.read, client.timeout.connect, client.max_retries) == (7.0, 5.0, 2)
    request = inside(built.model).format_request([{"role": "user", "content": [{"text": "hi"}]}])
    assert (request["model"], request["temperature"], request["stream"]) == ("m", 0, True)
    await built.close()


async def test_openai_takes_its_key_from_the_file_and_follows_a_rotation(key_file: Path) -> None:
    built = build(config_of(provider="openai", id="m", apiKeyFile=key_file), 7.0)
    client = inside(built.model)._custom_client
    assert client.api_key == "first-key"
    rotated = key_file.with_name("new")
    rotated.write_text("second-key")
    rotated.rename(key_file)
    built.refresh_key()
    assert client.api_key == "second-key"
    await built.close()


async def test_anthropic_gets_model_bound_key_and_address(key_file: Path) -> None:
    parameters = {"max_tokens": 99, "temperature": 0.5}
    config = config_of(provider="anthropic", id="c", apiKeyFile=key_file, baseURL="http://a", parameters=parameters)
    built = build(config, 7.0)
    model = inside(built.model)
    assert (model.client.api_key, str(model.client.base_url), model.client.max_retries) == ("first-key", "http://a", 2)
    request = model.format_request([{"role": "user", "content": [{"text": "hi"}]}])
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("c", 99, 0.5)
    await built.close()


async def test_bedrock_gets_region_time_limits_and_parameters() -> None:
    parameters = {"temperature": 0.5, "top_k": 3}
    built = build(config_of(provider="bedrock", id="b", region="eu-central-1", parameters=parameters), 7.0)
    config = inside(built.model).get_config()
    assert (config["model_id"], config["temperature"]) == ("b", 0.5)
    assert config["additional_request_fields"] == {"top_k": 3}
    meta = inside(built.model).client.meta
    assert (meta.region_name, meta.config.read_timeout) == ("eu-central-1", 7.0)
    assert meta.config.retries["total_max_attempts"] == 3
    await built.close()


class EndlessStream:
    """Bedrock's answer in a blocked thread: one chunk, and many more from when the test says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.closed = threading.Event()
        self.read = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockDelta": {"delta": {"text": "first"}}}
        self.go_on.wait(10)
        while self.read < 10_000:
            self.read += 1
            yield {"contentBlockDelta": {"delta": {"text": "more"}}}

    def close(self) -> None:
        self.closed.set()


async def test_a_cancelled_turn_ends_bedrocks_thread_at_its_next_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(config_of(provider="bedrock", id="b", region="eu-central-1"), 7.0)
    stream, model = EndlessStream(), inside(built.model)
    monkeypatch.setattr(model.client, "converse_stream", lambda **_: {"stream": stream}, raising=False)
    sessions = MemorySessions(ttl_seconds=60, max_sessions=10, clock=lambda: 0.0)
    runner = TurnRunner(agent_config(), built, lambda: (), sessions, Metrics())
    told: list[Any] = []

    async def turn() -> None:
        async with aclosing(runner.run(TurnRequest("q", "s", "", "r", streaming=True), Turn())) as events:
            async for event in events:
                told.append(event)

    running = asyncio.create_task(turn())
    await eventually(lambda: bool(told))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    stream.go_on.set()
    await eventually(lambda: stream.closed.is_set() or stream.read == 10_000)
    assert stream.closed.is_set()
    await built.close()


async def test_parameters_that_openais_client_does_not_know_go_into_the_body() -> None:
    parameters = {"temperature": 0, "top_k": 5, "extra_body": {"min_p": 1}}
    built = build(config_of(provider="openai-compatible", id="m", baseURL="http://m/v1", parameters=parameters), 7.0)
    assert inside(built.model).get_config()["params"] == {"temperature": 0, "extra_body": {"min_p": 1, "top_k": 5}}
    await built.close()


async def test_parameters_of_ollama_go_where_its_protocol_has_them() -> None:
    parameters = {"max_tokens": 9, "think": True, "num_ctx": 4096, "options": {"seed": 1}}
    built = build(config_of(provider="ollama", id="m", baseURL="http://m", parameters=parameters), 7.0)
    request = inside(built.model).format_request([{"role": "user", "content": [{"text": "hi"}]}])
    assert request["options"] == {"seed": 1, "num_ctx": 4096, "num_predict": 9}
    assert request["think"] is True
    await built.close()


async def test_parameters_of_mistral_beyond_those_of_strands_are_sent(key_file: Path) -> None:
    parameters = {"temperature": 0.1, "random_seed": 3}
    built = build(config_of(provider="mistral", id="m", apiKeyFile=key_file, parameters=parameters), 7.0)
    request = inside(built.model).format_request([{"role": "user", "content": [{"text": "hi"}]}])
    assert (request["temperature"], request["random_seed"]) == (0.1, 3)
    await built.close()


async def test_parameters_of_gemini_are_sent(key_file: Path) -> None:
    parameters = {"temperature": 0.1, "max_output_tokens": 3}
    built = build(config_of(provider="gemini", id="m", apiKeyFile=key_file, parameters=parameters), 7.0)
    assert inside(built.model).get_config()["params"] == parameters
    await built.close()


@pytest.mark.parametrize("provider", ["gemini", "mistral"])
def test_a_parameter_that_a_provider_does_not_take_is_named(provider: str, key_file: Path) -> None:
    config = config_of(provider=provider, id="m", apiKeyFile=key_file, parameters={"tempreature": 0.1})
    with pytest.raises(ValueError, match="tempreature"):
        build(config, 7.0)


@pytest.mark.parametrize("base_url", ["http://m:8080", "http://m:8080/", "http://m:8080/v1"])
async def test_llamacpp_is_reached_with_and_without_v1(base_url: str) -> None:
    built = build(config_of(provider="llamacpp", id="m", baseURL=base_url), 7.0)
    assert str(inside(built.model).client.base_url) == "http://m:8080"
    await built.close()


def test_a_rotated_key_stays_a_secret_and_one_with_a_line_break_too(key_file: Path) -> None:
    key = KeyFile(key_file)
    assert key.read() == "first-key"
    (key_file.with_name("new")).write_text("second\nkey")
    key_file.with_name("new").rename(key_file)
    assert key.read() == "second\nkey"
    assert {"first-key", "second\nkey", "second\\nkey"} <= set(key.secrets())


def test_a_key_file_that_is_away_for_a_moment_keeps_the_last_key(key_file: Path) -> None:
    key = KeyFile(key_file)
    assert key.read() == "first-key"
    key_file.unlink()
    assert key.read() == "first-key"
    assert KeyFile(None).read() == ""


def test_a_key_that_can_be_read_no_more_stays_in_use_and_that_is_told_once(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = KeyFile(key_file)
    key.read()
    key_file.write_bytes(b"\xff\xfe not text")
    assert [key.read(), key.read()] == ["first-key", "first-key"]
    key_file.unlink()
    key_file.mkdir()
    assert key.read() == "first-key"
    assert key.secrets() == ("first-key", "first-key")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    key_file.rmdir()
    key_file.write_text("second-key")
    assert key.read() == "second-key"
