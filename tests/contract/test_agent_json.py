"""The contract between operator and agent: what the operator renders, the agent reads; and so do later agents.

agent_json/<release>/ holds what each release rendered. Files of a release are written once, by
ROPEWALK_GOLDEN=write, and never change afterwards: an agent that no longer reads one would break on the first upgrade.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from ropewalk_agent import config
from ropewalk_agent.address import listen_address
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import local
from ropewalk_operator import __version__, api, names, pods
from ropewalk_operator.api import mcpservers
from ropewalk_operator.render.agent import agent_children
from ropewalk_operator.render.config import agent_json

STORED = Path(__file__).parent / "agent_json"

CERTIFICATE = (Path(__file__).parent / "certificate.pem").read_text()
SERVERS: list[dict[str, Any]] = [
    {"name": "math", "spec": {"image": "ropewalk.dev/mcp-math:0.1.0"}},
    {"name": "weather", "spec": {"remote": {"url": "https://weather.example.com/mcp"}}},
    {
        "name": "tickets",
        "spec": {
            "remote": {
                "url": "https://tickets.example.com/mcp",
                "headers": [
                    {"name": "X-Team", "valueFrom": {"secretKeyRef": {"name": "tickets", "key": "team"}}},
                    {"name": "X-API-Key", "valueFrom": {"secretKeyRef": {"name": "tickets", "key": "key"}}},
                ],
                "caBundle": CERTIFICATE,
            },
            "auth": {
                "clientCredentials": {
                    "tokenURL": "https://login.example.com/token",
                    "clientIDSecretRef": {"name": "oauth", "key": "id"},
                    "clientSecretSecretRef": {"name": "oauth", "key": "secret"},
                    "scopes": ["tickets:read"],
                }
            },
            "tools": {"allow": ["read", "close"], "deny": ["close"]},
            "toolTimeoutSeconds": 900,
            "retry": {"maxAttempts": 10, "initialDelayMilliseconds": 60000, "maxDelaySeconds": 300},
        },
    },
    {
        "name": "notes",
        "spec": {
            "stdio": {"package": {"node": "@example/notes@1.2.3"}},
            "auth": {"bearerTokenSecretRef": {"name": "notes", "key": "token"}},
            "port": 9000,
            "path": "/notes",
        },
    },
]
SPECS: dict[str, dict[str, Any]] = {
    "minimal": {
        "systemPrompt": "You are a calculator.",
        "model": {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"},
    },
    "everything": {
        "description": "Helps.",
        "systemPrompt": 'You help.\n"Brief" – bitte.',
        "model": {
            "provider": "anthropic",
            "id": "m",
            "baseURL": "https://proxy.example.com",
            "apiKeySecretRef": {"name": "keys", "key": "k"},
            "parameters": {"temperature": 0.5, "nested": {"a": [1, None, True]}},
            "fallbacks": [
                {"provider": "ollama", "id": "f", "baseURL": "http://ollama:11434", "parameters": {"think": True}},
                {"provider": "mistral", "id": "g", "apiKeySecretRef": {"name": "keys", "key": "m"}},
            ],
        },
        "mcpServers": [
            {"name": "math", "prefix": "math_", "tools": {"allow": ["add"], "deny": ["divide"]}},
            {"name": "weather", "required": False},
        ],
        "localTools": ["current_time", "fibonacci"],
        "outputSchema": {"type": "object", "properties": {"n": {"type": "number"}}},
        "limits": {
            "requestTimeoutSeconds": 900,
            "toolTimeoutSeconds": 1,
            "maxTurns": 200,
            "maxParallelTools": 64,
            "maxTokensPerRequest": 1,
        },
        "concurrency": 256,
        "queue": {"maxLength": 0},
        "sessions": {
            "store": "redis",
            "ttlSeconds": 1,
            "maxSessions": 1,
            "windowSize": 1,
            "redis": {"urlSecretRef": {"name": "redis", "key": "url"}},
        },
    },
    "secured": {
        "systemPrompt": "Hi.",
        "model": {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"},
        "mcpServers": [{"name": "tickets", "tools": {"allow": ["read", "write"], "deny": ["drop"]}}, {"name": "notes"}],
    },
    "bedrock": {"systemPrompt": "Hi.", "model": {"provider": "bedrock", "id": "m", "region": "eu-central-1"}},
    "openai": {
        "systemPrompt": "Hi.",
        "model": {"provider": "openai", "id": "m", "apiKeySecretRef": {"name": "keys", "key": "k"}},
    },
    "files": {
        "systemPrompt": "Hi.",
        "model": {"provider": "gemini", "id": "m", "apiKeySecretRef": {"name": "keys", "key": "k"}},
        "sessions": {"store": "file", "file": {"size": "2Gi"}},
    },
    "llamacpp": {
        "systemPrompt": "Hi.",
        "model": {"provider": "llamacpp", "id": "m", "baseURL": "http://llamacpp:8080"},
    },
    "litellm": {"systemPrompt": "Hi.", "model": {"provider": "litellm", "id": "groq/m"}},
}


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "generation": 1}
    return {"kind": kind, "metadata": metadata, "spec": spec}


def parsed(name: str) -> tuple[api.Agent, dict[str, api.MCPServer]]:
    servers = {each["name"]: api.mcp_server(resource("MCPServer", **each)) for each in SERVERS}
    return api.agent(resource("Agent", name, SPECS[name])), servers


def text_of(name: str) -> str:
    agent, servers = parsed(name)
    assert agent.model is not None
    return agent_json(agent, agent.model, agent.system_prompt or "", servers)


@pytest.mark.parametrize("name", SPECS)
def test_the_agent_reads_what_the_operator_renders(name: str) -> None:
    read = config.parse(json.loads(text_of(name)))
    spec = SPECS[name]
    assert read.name == name
    assert read.system_prompt == spec["systemPrompt"]
    assert read.model.provider == spec["model"]["provider"]
    assert read.model.parameters == spec["model"].get("parameters", {})
    assert [server.name for server in read.mcp_servers] == [server["name"] for server in spec.get("mcpServers", [])]
    assert [server.prefix for server in read.mcp_servers] == [
        server.get("prefix", "") for server in spec.get("mcpServers", [])
    ]
    fallbacks = spec["model"].get("fallbacks", [])
    assert [(model.provider, model.id, model.base_url, model.parameters) for model in read.fallbacks] == [
        (model["provider"], model["id"], model.get("baseURL"), model.get("parameters", {})) for model in fallbacks
    ]
    assert read.local_tools == tuple(spec.get("localTools", ()))
    assert read.output_schema == spec.get("outputSchema")
    assert read.sessions.store == spec.get("sessions", {}).get("store", "memory")
    assert read.limits.request_timeout_seconds == spec.get("limits", {}).get("requestTimeoutSeconds", 60)


def test_the_agent_reads_how_it_proves_itself_to_each_server() -> None:
    tickets, notes = config.parse(json.loads(text_of("secured"))).mcp_servers
    secrets = Path("/etc/ropewalk/secrets/mcp")
    assert tickets.auth is not None
    assert tickets.auth.client_credentials is not None
    assert tickets.auth.client_credentials.token_url == "https://login.example.com/token"
    assert tickets.auth.client_credentials.client_id_file == secrets / "tickets" / "client-id"
    assert tickets.auth.client_credentials.client_secret_file == secrets / "tickets" / "client-secret"
    assert tickets.auth.client_credentials.scopes == ("tickets:read",)
    assert [(header.name, header.value_file) for header in tickets.headers] == [
        ("X-Team", secrets / "tickets" / "header-0"),
        ("X-API-Key", secrets / "tickets" / "header-1"),
    ]
    assert tickets.ca_bundle == CERTIFICATE
    assert notes.auth is not None
    assert notes.auth.bearer_token_file == secrets / "notes" / "bearer-token"
    assert (notes.headers, notes.ca_bundle) == ((), None)
    assert notes.url == "http://notes-mcp.default.svc:9000/notes"


def test_the_agent_knows_one_filter_and_the_limits_of_each_server() -> None:
    tickets, notes = config.parse(json.loads(text_of("secured"))).mcp_servers
    assert (tickets.tools.allow, tickets.tools.deny) == (("read",), ("close", "drop"))
    assert [tool for tool in ("read", "close", "write", "drop") if tickets.tools.admits(tool)] == ["read"]
    assert (notes.tools.allow, notes.tools.deny) == (None, ())
    assert (tickets.tool_timeout_seconds, notes.tool_timeout_seconds) == (900, 30)
    assert (tickets.retry.max_attempts, tickets.retry.initial_delay_milliseconds) == (10, 60000)
    assert tickets.retry.max_delay_seconds == 300


def test_every_file_of_a_server_is_in_the_volume_that_is_mounted_for_it() -> None:
    agent, servers = parsed("secured")
    assert agent.model is not None
    children = agent_children(
        agent, model=agent.model, system_prompt="Hi.", servers=servers, image="i", pull_policy="Always"
    )
    pod = children[-1]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    files: dict[str, tuple[str, str]] = {}
    for volume in pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            (item,) = source["secret"]["items"]
            assert "subPath" not in mounts[volume["name"]], "a file that is mounted alone never sees a rotated Secret"
            place = f"{mounts[volume['name']]['mountPath']}/{item['path']}"
            files[place] = (source["secret"]["name"], item["key"])
    read = json.dumps(json.loads(text_of("secured"))["mcpServers"])
    assert files == {
        "/etc/ropewalk/secrets/mcp/tickets/client-id": ("oauth", "id"),
        "/etc/ropewalk/secrets/mcp/tickets/client-secret": ("oauth", "secret"),
        "/etc/ropewalk/secrets/mcp/tickets/header-0": ("tickets", "team"),
        "/etc/ropewalk/secrets/mcp/tickets/header-1": ("tickets", "key"),
        "/etc/ropewalk/secrets/mcp/notes/bearer-token": ("notes", "token"),
    }
    assert all(place in read for place in files)


def test_the_queue_by_which_pods_are_scaled_is_a_metric_of_theirs() -> None:
    assert names.QUEUE_METRIC in {family.name for family in Metrics().registry.collect()}


def test_operator_and_agent_refuse_the_same_headers() -> None:
    assert mcpservers.RESERVED_HEADERS == config.HEADERS_OF_THE_PROTOCOL


def test_operator_and_agent_know_the_same_providers() -> None:
    assert set(get_args(api.Provider)) == set(get_args(config.Provider))


def rendered(name: str) -> tuple[config.AgentConfig, set[str], dict[str, str], str]:
    """What the agent reads, its mount paths, its environment, and the file's text."""
    agent, servers = parsed(name)
    assert agent.model is not None
    children = agent_children(
        agent, model=agent.model, system_prompt="Hi.", servers=servers, image="i", pull_policy="Always"
    )
    container = children[-1]["spec"]["template"]["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    text = children[0]["data"]["agent.json"]
    return config.parse(json.loads(text)), mounts, environment, text


def test_the_agent_finds_its_file_and_its_key_where_the_operator_mounts_them() -> None:
    read, mounts, environment, _ = rendered("everything")
    assert environment["ROPEWALK_CONFIG_FILE"] in mounts
    assert str(read.model.api_key_file) == "/etc/ropewalk/secrets/model/api-key"
    assert str(Path(str(read.model.api_key_file)).parent) in mounts


def test_every_secret_is_a_file_of_its_own_below_a_mount() -> None:
    read, mounts, _, _ = rendered("everything")
    files = [
        read.model.api_key_file,
        *(model.api_key_file for model in read.fallbacks if model.api_key_file),
        read.sessions.redis_url_file,
    ]
    assert len(set(files)) == 3
    assert {str(Path(str(file)).parent) for file in files} <= mounts
    assert read.fallbacks[0].api_key_file is None, "it needs no key"


def test_the_agent_keeps_its_sessions_where_the_operator_mounts_the_volume() -> None:
    read, mounts, _, _ = rendered("files")
    assert str(read.sessions.directory) in mounts
    assert read.sessions.directory == config.SessionsConfig().directory
    _, others, _, _ = rendered("everything")
    assert str(read.sessions.directory) not in others


def test_the_agents_own_loader_takes_the_environment_that_the_operator_gives(tmp_path: Path) -> None:
    _, _, environment, text = rendered("minimal")
    file = tmp_path / "agent.json"
    file.write_text(text)
    settings, read = config.load({**environment, "ROPEWALK_CONFIG_FILE": str(file)})
    assert read.name == "minimal"
    assert str(listen_address(environment)[1]) == environment["ROPEWALK_PORT"]
    assert str(int(settings.drain_seconds)) == environment["ROPEWALK_DRAIN_SECONDS"]


def test_unknown_settings_are_refused_so_that_a_typing_error_cannot_pass() -> None:
    with pytest.raises(config.ConfigError):
        config.parse({**json.loads(text_of("minimal")), "concurency": 1})


def test_the_last_words_of_an_agent_with_an_unknown_local_tool_reach_the_status_whole() -> None:
    with pytest.raises(config.ConfigError) as refused:
        local.load(("current_time", "rocket"), 1.0)
    message = last_words(str(refused.value))
    assert "localTools names 'rocket'; this image has" in message
    assert "current_time" in message


def last_words(said: str) -> str:
    """What the operator makes of a pod that ended with these words."""
    ended = {"exitCode": 1, "reason": "Error", "message": said}
    container = {"name": "agent", "restartCount": 2, "state": {"terminated": ended}}
    body = resource("Pod", "p", {})
    body["metadata"]["labels"] = {"ropewalk.dev/agent": "a"}
    found = pods.pod({**body, "status": {"containerStatuses": [container]}})
    assert found is not None
    assert found.trouble is not None
    assert found.trouble.reason == "CrashLoop"
    return found.trouble.message


@pytest.mark.parametrize("name", SPECS)
def test_the_file_of_this_release_is_stored(name: str) -> None:
    stored = STORED / __version__ / f"{name}.json"
    if os.environ.get("ROPEWALK_GOLDEN") == "write":
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(text_of(name))
    assert stored.read_text() == text_of(name), "raise the version, and run the tests with ROPEWALK_GOLDEN=write"


@pytest.mark.parametrize(
    "stored", sorted(STORED.glob("*/*.json")), ids=lambda stored: f"{stored.parent.name}-{stored.stem}"
)
def test_the_agent_reads_the_files_of_every_release(stored: Path) -> None:
    assert config.parse(json.loads(stored.read_text())).name == stored.stem
