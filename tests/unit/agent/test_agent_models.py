"""Each provider's Model is built with what agent.json says; no call is made."""

from pathlib import Path
from typing import Any

import pytest

from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models import KeyFile, build


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


def test_a_key_file_that_is_away_for_a_moment_keeps_the_last_key(key_file: Path) -> None:
    key = KeyFile(key_file)
    assert key.read() == "first-key"
    key_file.unlink()
    assert key.read() == "first-key"
    assert KeyFile(None).read() == ""
