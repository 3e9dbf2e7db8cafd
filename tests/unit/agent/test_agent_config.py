"""agent.json and the environment: every problem is named at once, in words that tell the fix."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_server import agent_document
from ropewalk_agent.address import AddressError, listen_address
from ropewalk_agent.config import ConfigError, load, parse

MODEL = {"provider": "openai-compatible", "id": "m", "baseURL": "http://m/v1"}


def test_the_operators_whole_document_is_read() -> None:
    server = {
        "name": "math",
        "url": "http://math:8000/mcp",
        "required": False,
        "tools": {"allow": None, "deny": ["power"]},
    }
    limits = {
        "requestTimeoutSeconds": 5,
        "toolTimeoutSeconds": 3,
        "maxTurns": 2,
        "maxParallelTools": 1,
        "maxTokensPerRequest": None,
    }
    config = parse(
        agent_document(
            namespace="default",
            description="d",
            model={**MODEL, "region": None, "apiKeyFile": None, "parameters": {"temperature": 0.5}},
            mcpServers=[server],
            limits=limits,
            concurrency=3,
            queue={"maxLength": 7},
            sessions={"store": "memory", "ttlSeconds": 5, "maxSessions": 6, "windowSize": 4},
        )
    )
    assert config.model.parameters == {"temperature": 0.5}
    assert config.mcp_servers[0].tools.admits("add")
    assert not config.mcp_servers[0].tools.admits("power")
    assert (config.limits.max_turns, config.queue.max_length, config.sessions.window_size) == (2, 7, 4)


def test_an_allow_list_admits_only_what_it_names_and_deny_wins() -> None:
    server = {"name": "math", "url": "http://math/mcp", "tools": {"allow": ["add", "power"], "deny": ["power"]}}
    tools = parse(agent_document(mcpServers=[server])).mcp_servers[0].tools
    assert [tools.admits(name) for name in ("add", "power", "divide")] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"replica": 2}, "replica is not a field of format 1"),
        ({"formatVersion": 2}, "formatVersion is 2; it should be 1"),
        ({"concurrency": 0}, "concurrency is 0; it should be greater than or equal to 1"),
        ({"model": {"provider": "openai-compatible", "id": "m"}}, "baseURL is missing"),
        ({"model": {"provider": "anthropic", "id": "m"}}, "apiKeyFile is missing; provider anthropic needs a key"),
        ({"model": {**MODEL, "provider": "other"}}, "model.provider is 'other'; it should be 'openai'"),
        ({"mcpServers": [{"name": "a", "url": "http://a"}] * 2}, "mcpServers names a more than once"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(agent_document(**change))
    assert sentence in str(error.value)


def test_every_problem_of_file_and_environment_is_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({"formatVersion": 1, "model": MODEL, "queue": {"maxLength": -1}}))
    environment = {"ROPEWALK_CONFIG_FILE": str(file), "ROPEWALK_PORT": "http", "ROPEWALK_LOG_LEVEL": "loud"}
    with pytest.raises(ConfigError) as error:
        load(environment)
    said = str(error.value)
    for words in (
        "ROPEWALK_PORT is 'http'",
        "ROPEWALK_LOG_LEVEL is 'loud'",
        "name is missing",
        "systemPrompt is missing",
        "queue.maxLength is -1",
    ):
        assert words in said


def test_a_missing_file_and_a_missing_key_are_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load({"ROPEWALK_CONFIG_FILE": str(tmp_path / "none.json")})
    file = tmp_path / "agent.json"
    file.write_text(json.dumps(agent_document(model={**MODEL, "apiKeyFile": str(tmp_path / "key")})))
    with pytest.raises(ConfigError, match=r"model\.apiKeyFile .* does not exist"):
        load({"ROPEWALK_CONFIG_FILE": str(file)})


def test_the_environment_has_defaults(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text(json.dumps(agent_document()))
    settings, config = load({"ROPEWALK_CONFIG_FILE": str(file)})
    assert (settings.log_level, settings.drain_seconds, config.name) == ("info", 65, "tested")
    assert listen_address({}) == ("0.0.0.0", 8080)


@pytest.mark.parametrize("port", ["99999", "8080.0", "0", "-1", " 80", "²", "1" * 5000])
def test_a_port_that_is_none_is_a_problem(port: str) -> None:
    with pytest.raises(AddressError, match="use a whole number from 1 to 65535"):
        listen_address({"ROPEWALK_PORT": port})


def test_host_and_port_are_taken_from_the_environment() -> None:
    assert listen_address({"ROPEWALK_HOST": "127.0.0.1", "ROPEWALK_PORT": "81"}) == ("127.0.0.1", 81)
