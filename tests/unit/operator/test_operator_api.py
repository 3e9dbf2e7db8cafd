from typing import Any

import pytest

from operator_world import MODEL, agent, mcp_server, owner
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


SHARED = {"sessions": {"store": "redis", "redis": {"urlSecretRef": {"name": "r", "key": "u"}}}}
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
    ("no image of variables", {"pod": {"envFrom": [{"prefix": "A"}]}}, "exactly one of configMapRef and secretRef"),
    (
        "the node's files",
        {"pod": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}},
        "the volume 'a' is hostPath",
    ),
    (
        "the node's files beside a kind that is allowed",
        {"pod": {"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]}},
        "the volume 'a' is emptyDir and hostPath; use exactly one of configMap, csi, downwardAPI",
    ),
    ("a volume of Ropewalk's", {"pod": {"volumes": [{"name": "mcp-a", "emptyDir": {}}]}}, "volumes holds 'mcp-a'"),
    (
        "a mount over Ropewalk's",
        {"pod": {"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/tmp/"}]}},
        "volumeMounts holds '/tmp/', where Ropewalk's own files are; use another path",
    ),
    (
        "a mount of nothing",
        {"pod": {"volumeMounts": [{"name": "a", "mountPath": "/a"}]}},
        "volumeMounts names the volume 'a'; add it to volumes",
    ),
    (
        "autoscaling of sessions that are not shared",
        {"autoscaling": {}},
        "autoscaling is set with sessions.store memory, which is one pod's own",
    ),
    (
        "two masters of replicas",
        {"autoscaling": {}, "replicas": 2, **SHARED},
        "replicas is 2 beside autoscaling, which sets it; remove replicas",
    ),
    (
        "autoscaling the wrong way round",
        {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}, **SHARED},
        "spec.autoscaling: minReplicas is 3 and maxReplicas 2; lower minReplicas, or raise maxReplicas",
    ),
    (
        "autoscaling by nothing",
        {"autoscaling": {}, "pod": {"resources": {"requests": {"cpu": 1}}}, **SHARED},
        "pod.resources.requests lacks memory; add it",
    ),
    (
        "rules without a policy",
        {"networkPolicy": {"enabled": False, "extraEgress": [{}]}},
        "extraEgress has no effect while enabled is false; remove it, or set enabled to true",
    ),
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


KEY = {"name": "keys", "key": "k"}
CREDENTIALS = {"tokenURL": "https://login.example.com/t", "clientIDSecretRef": KEY, "clientSecretSecretRef": KEY}
URL = "https://a.example.com/mcp"
HEADERS = [{"name": "X-Key", "valueFrom": {"secretKeyRef": KEY}}]
INVALID_SERVERS: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, "set exactly one of image, stdio and remote"),
    ("two things", {"image": "i", "remote": {"url": URL}}, "set exactly one of image, stdio and remote"),
    ("three", {"image": "i", "stdio": {"image": "i", "command": ["c"]}, "remote": {"url": URL}}, "set exactly one"),
    ("an address that is none", {"remote": {"url": "ftp://a"}}, "remote.url is 'ftp://a'; use http:// or https://"),
    ("stdio of nothing", {"stdio": {}}, "spec.stdio: set exactly one of image and package"),
    ("stdio without a program", {"stdio": {"image": "i"}}, "command is missing; with image it names the program"),
    ("two packages", {"stdio": {"package": {"python": "a==1", "node": "a@1"}}}, "exactly one of python and node"),
    ("a package of any version", {"stdio": {"package": {"node": "a@latest"}}}, "spec.stdio.package.node is 'a@latest'"),
    ("an option for a package", {"stdio": {"package": {"python": "--pre==1"}}}, "package.python is '--pre==1'"),
    ("arguments of no image", {"remote": {"url": URL}, "args": ["a"]}, "command and args go with image; use stdio."),
    ("pods elsewhere", {"remote": {"url": URL}, "pod": {}, "autoscaling": {}}, "autoscaling and pod has no effect on"),
    ("a password in the address", {"remote": {"url": "https://me:pw@a.example.com"}}, "names a user or a password"),
    (
        "a key in the address",
        {"remote": {"url": f"{URL}?team=a&apiKey=pw"}},
        "holds 'apiKey', which looks like a secret",
    ),
    (
        "a header of HTTP",
        {"remote": {"url": URL, "headers": [{**HEADERS[0], "name": "Host"}]}},
        "the header Host is set by HTTP",
    ),
    (
        "a header twice",
        {"remote": {"url": URL, "headers": [*HEADERS, {**HEADERS[0], "name": "x-key"}]}},
        "headers names x-key twice",
    ),
    (
        "two authorizations",
        {
            "remote": {"url": URL, "headers": [{**HEADERS[0], "name": "authorization"}]},
            "auth": {"bearerTokenSecretRef": KEY},
        },
        "remote.headers holds Authorization beside auth",
    ),
    ("certificates that are none", {"remote": {"url": URL, "caBundle": "pw"}}, "caBundle holds no certificates in PEM"),
    (
        "certificates that only look so",
        {"remote": {"url": URL, "caBundle": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}},
        "caBundle holds no certificates in PEM",
    ),
    (
        "certificates without TLS",
        {"remote": {"url": "http://a", "caBundle": "pw"}},
        "caBundle has no effect on http://",
    ),
    ("no way in", {"image": "i", "auth": {}}, "exactly one of bearerTokenSecretRef and clientCredentials"),
    (
        "tokens in the open",
        {"image": "i", "auth": {"clientCredentials": {**CREDENTIALS, "tokenURL": "https://a/t?client_secret=pw"}}},
        "clientCredentials.tokenURL holds 'client_secret', which looks like a secret",
    ),
    (
        "hosts of its own",
        {"image": "i", "pod": {"env": [{"name": "ROPEWALK_MCP_ALLOWED_HOSTS", "value": "x"}]}},
        "env holds ROPEWALK_MCP_ALLOWED_HOSTS; Ropewalk sets these itself, remove them",
    ),
    ("too many sessions", {"stdio": {"image": "i", "command": ["c"], "maxSessions": 1001}}, "maxSessions is 1001"),
]


@pytest.mark.parametrize("row", INVALID_SERVERS, ids=[row[0] for row in INVALID_SERVERS])
def test_a_server_that_cannot_be_used_is_refused_without_a_word_of_what_is_secret(
    row: tuple[str, dict[str, Any], str],
) -> None:
    _, spec, words = row
    with pytest.raises(api.InvalidSpec) as error:
        api.mcp_server(owner("MCPServer", "a", spec))
    assert words in str(error.value)
    assert str(error.value).startswith("spec")
    assert "pw" not in str(error.value)


@pytest.mark.parametrize(
    ("allow", "others", "both"),
    [
        (None, None, None),
        (("a", "b"), None, ("a", "b")),
        (None, ("b",), ("b",)),
        (("a", "b"), ("c", "b"), ("b",)),
        (("a",), ("b",), ()),
    ],
)
def test_of_two_filters_only_what_both_let_through_is_seen(
    allow: tuple[str, ...] | None, others: tuple[str, ...] | None, both: tuple[str, ...] | None
) -> None:
    merged = api.ToolFilter(allow=allow, deny=("x", "y")).within(api.ToolFilter(allow=others, deny=("y", "z")))
    assert merged.allow == both
    assert merged.deny == ("x", "y", "z")


def test_only_who_holds_its_secrets_can_ask_a_server_that_wants_them() -> None:
    assert not api.mcp_server(mcp_server()).is_asked_with_secrets
    assert not api.mcp_server(mcp_server(remote={"url": URL})).is_asked_with_secrets
    assert api.mcp_server(mcp_server(remote={"url": URL, "headers": HEADERS})).is_asked_with_secrets
    assert api.mcp_server(mcp_server(auth={"clientCredentials": CREDENTIALS})).is_asked_with_secrets


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
