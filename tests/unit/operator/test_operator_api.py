from typing import Any

import pytest

from operator_world import MODEL, agent, mcp_server
from ropewalk_operator import api, names


def test_defaults_are_those_of_the_schema() -> None:
    parsed = api.agent(agent())
    assert (parsed.concurrency, parsed.queue.max_length, parsed.replicas, parsed.suspend) == (8, 100, 1, False)
    assert parsed.limits.model_dump() == {
        "request_timeout_seconds": 60,
        "tool_timeout_seconds": 30,
        "max_turns": 20,
        "max_parallel_tools": 10,
        "max_tokens_per_request": None,
    }
    server = api.mcp_server(mcp_server())
    assert (server.port, server.path, server.replicas) == (8000, "/mcp", 1)


INVALID: list[tuple[str, dict[str, Any], str]] = [
    (
        "both prompts",
        {"systemPrompt": "a", "systemPromptFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
        "exactly one",
    ),
    ("no such provider", {"model": {**MODEL, "provider": "acme"}}, "spec.model.provider is 'acme'"),
    ("no address", {"model": {"provider": "openai-compatible", "id": "m"}}, "baseURL is missing"),
    ("no key", {"model": {"provider": "anthropic", "id": "m"}}, "apiKeySecretRef is missing"),
    (
        "a key for bedrock",
        {"model": {"provider": "bedrock", "id": "m", "apiKeySecretRef": {"name": "a", "key": "b"}}},
        "remove them",
    ),
    ("a region elsewhere", {"model": {**MODEL, "region": "x"}}, "for provider bedrock only"),
    ("an address that is none", {"model": {**MODEL, "baseURL": "demo:99999999"}}, "use http:// or https://"),
    ("a port that is none", {"model": {**MODEL, "baseURL": "http://demo:99999999"}}, "use http:// or https://"),
    ("no address of ollama", {"model": {"provider": "ollama", "id": "m"}}, "baseURL is missing"),
    ("no key of gemini", {"model": {"provider": "gemini", "id": "m"}}, "apiKeySecretRef is missing; provider gemini"),
    (
        "no key of a fallback",
        {"model": {**MODEL, "fallbacks": [MODEL, {"provider": "mistral", "id": "m"}]}},
        "spec.model.fallbacks.1: apiKeySecretRef is missing; provider mistral",
    ),
    (
        "replicas that share no sessions",
        {"replicas": 2},
        "replicas is 2 with sessions.store memory, which is one pod's own; set sessions.store to redis",
    ),
    ("replicas of files", {"replicas": 2, "sessions": {"store": "file"}}, "replicas is 2 with sessions.store file"),
    ("no address of redis", {"sessions": {"store": "redis"}}, "redis.urlSecretRef goes with store redis"),
    ("an answer of no type", {"outputSchema": {"properties": {}}}, "it has neither a type nor a $ref"),
    (
        "an answer that is too large",
        {"outputSchema": {"type": "object", "description": "x" * 65536}},
        "spec.outputSchema: it has 65570 bytes as JSON; use at most 65536",
    ),
    ("a prefix that is none", {"mcpServers": [{"name": "a", "prefix": "a."}]}, "spec.mcpServers.0.prefix is 'a.'"),
    ("too few replicas", {"replicas": -1}, "spec.replicas is -1"),
    ("a reserved label", {"pod": {"labels": {"ropewalk.dev/agent": "x"}}}, "ropewalk.dev/agent"),
    ("a reserved annotation", {"pod": {"annotations": {"app.kubernetes.io/name": "x"}}}, "app.kubernetes.io/name"),
    ("a reserved variable", {"pod": {"env": [{"name": "ROPEWALK_PORT", "value": "1"}]}}, "ROPEWALK_PORT"),
    ("a variable twice", {"pod": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}}, "twice"),
]


@pytest.mark.parametrize("row", INVALID, ids=[row[0] for row in INVALID])
def test_what_cannot_be_used_is_refused_with_the_field_and_the_fix(row: tuple[str, dict[str, Any], str]) -> None:
    _, spec, words = row
    body = agent(**spec)
    if "systemPromptFrom" in spec:
        body["spec"]["systemPrompt"] = "a"
    with pytest.raises(api.InvalidSpec) as error:
        api.agent(body)
    assert words in str(error.value)
    assert str(error.value).startswith("spec")


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(api.InvalidSpec) as error:
        api.agent(agent(replicas=-1, concurrency=0))
    assert "spec.replicas" in str(error.value)
    assert "spec.concurrency" in str(error.value)


def test_a_server_is_an_image_or_remote() -> None:
    both = mcp_server(remote={"url": "https://a.example.com"})
    both["spec"]["image"] = "x"
    for body in (both, {**mcp_server(), "spec": {}}, mcp_server(remote={"url": "ftp://a"})):
        with pytest.raises(api.InvalidSpec, match="spec"):
            api.mcp_server(body)


def test_a_server_may_have_the_variables_that_the_operator_sets_for_agents() -> None:
    env = [{"name": "ROPEWALK_PORT", "value": "8000"}]
    assert api.mcp_server(mcp_server(pod={"env": env})).pod.env == tuple(env)


def test_names_and_addresses_are_those_that_users_know() -> None:
    parsed, server = api.agent(agent()), api.mcp_server(mcp_server())
    assert names.child(parsed) == "calc-agent"
    assert names.child(server) == "math-mcp"
    assert names.agent_url(parsed) == "http://calc-agent.default.svc:8080"
    assert names.mcp_url(server) == "http://math-mcp.default.svc:8000/mcp"
    assert names.mcp_url(api.mcp_server(mcp_server(remote={"url": "https://a.example.com"}))) == "https://a.example.com"
    assert names.selector_text(parsed) == "ropewalk.dev/agent=calc"
