"""The API server itself refuses a wrong Agent, says how to mend it, and fills in the rest."""

from __future__ import annotations

import json

import pytest

from apiserver import ApiServer
from crd_bodies import (
    AGENT,
    KEY,
    REDIS,
    REMOVED,
    Object,
    agent,
    assert_taken,
    changed,
    create,
    fallback,
    lacking,
    provided,
    refusal,
)

WRONG = {
    "no prompt": (agent(systemPrompt=REMOVED), "set exactly one of spec.systemPrompt and spec.systemPromptFrom"),
    "two prompts": (
        agent(systemPromptFrom={"configMapKeyRef": {"name": "a", "key": "b"}}),
        "set exactly one of spec.systemPrompt and spec.systemPromptFrom",
    ),
    "empty prompt": (
        agent(systemPrompt=""),
        'spec.systemPrompt: Invalid value: "": spec.systemPrompt in body should be',
    ),
    "prompt from nothing": (
        agent(systemPrompt=REMOVED, systemPromptFrom={}),
        "spec.systemPromptFrom.configMapKeyRef: Required",
    ),
    "no model": (
        agent(model=REMOVED),
        "set exactly one of spec.modelRef.name (a Model of this namespace) and spec.model",
    ),
    "two models": (
        agent(modelRef={"name": "house"}),
        "set exactly one of spec.modelRef.name (a Model of this namespace) and spec.model (a model for this agent "
        "alone)",
    ),
    "a reference to no Model": (agent(model=REMOVED, modelRef={}), "spec.modelRef.name: Required value"),
    "a reference to another namespace": (
        agent(model=REMOVED, modelRef={"name": "house", "namespace": "other"}),
        'unknown field "spec.modelRef.namespace"',
    ),
    "a reference by a name that is none": (
        agent(model=REMOVED, modelRef={"name": "My House"}),
        "spec.modelRef.name in body should match",
    ),
    "unknown provider": (
        agent(model__provider="acme"),
        'supported values: "openai", "openai-compatible", "anthropic", "bedrock", "gemini", "mistral", "ollama", '
        '"litellm", "llamacpp"',
    ),
    **lacking(provided, "spec.model."),
    **lacking(fallback, 'spec.model.fallbacks[0]: Invalid value: "object": ', " to fall back to"),
    "address without http": (
        agent(model__baseURL="demo-model:8080/v1"),
        "spec.model.baseURL must be http:// or https://",
    ),
    "address with ftp": (agent(model__baseURL="ftp://demo-model/v1"), "spec.model.baseURL must be http:// or https://"),
    "address with a password": (
        agent(model__baseURL="http://me:secret@host/v1"),
        "without user name, query or fragment",
    ),
    "address with a query": (agent(model__baseURL="http://host/v1?a=b"), "without user name, query or fragment"),
    "address without a host": (agent(model__baseURL="http:///v1"), "a host and an optional path"),
    "address with a port that is none": (agent(model__baseURL="http://host:port/v1"), "spec.model.baseURL must be"),
    "bedrock with an address": (
        agent(model={"provider": "bedrock", "id": "m", "baseURL": "http://host/v1"}),
        "spec.model.baseURL is not used by provider bedrock: remove it, and set spec.model.region instead",
    ),
    "bedrock with a key": (
        agent(model={"provider": "bedrock", "id": "m", "apiKeySecretRef": KEY}),
        "spec.model.apiKeySecretRef is not used by provider bedrock: remove it",
    ),
    "region without bedrock": (
        agent(model__region="eu-central-1"),
        "spec.model.region is for provider bedrock only: remove it, or set spec.model.provider to bedrock",
    ),
    "bedrock to fall back to with an address": (
        fallback("bedrock", baseURL="http://host/v1"),
        'spec.model.fallbacks[0]: Invalid value: "object": baseURL is not used by provider bedrock: remove it',
    ),
    "bedrock to fall back to with a key": (
        fallback("bedrock", apiKeySecretRef=KEY),
        'spec.model.fallbacks[0]: Invalid value: "object": apiKeySecretRef is not used by provider bedrock: remove it',
    ),
    "a fallback with a region and without bedrock": (
        fallback("openai", apiKeySecretRef=KEY, region="eu-central-1"),
        'spec.model.fallbacks[0]: Invalid value: "object": region is for provider bedrock only: remove it',
    ),
    "a fallback whose address has a password": (
        fallback("ollama", baseURL="http://me:secret@host"),
        "baseURL must be http:// or https://, a host and an optional path, without user name, query or fragment",
    ),
    "a fallback of a fallback": (
        fallback("litellm", fallbacks=[]),
        'unknown field "spec.model.fallbacks[0].fallbacks"',
    ),
    "too many fallbacks": (
        agent(model__fallbacks=[{"provider": "litellm", "id": "m"}] * 5),
        "spec.model.fallbacks: Too many: 5: must have at most 4 items",
    ),
    "key reference without a key": (
        agent(model__apiKeySecretRef={"name": "a"}),
        "spec.model.apiKeySecretRef.key: Required",
    ),
    "parameters that are no object": (agent(model__parameters="hot"), "spec.model.parameters"),
    "description of two lines": (agent(description="a\nb"), "spec.description must be one line"),
    "a server twice": (agent(mcpServers=[{"name": "math"}, {"name": "math"}]), "spec.mcpServers[1]: Duplicate value"),
    "too many servers": (agent(mcpServers=[{"name": f"s{n}"} for n in range(33)]), "must have at most 32 items"),
    "a tool allowed twice": (
        agent(mcpServers=[{"name": "math", "tools": {"allow": ["add", "add"]}}]),
        'spec.mcpServers[0].tools.allow[1]: Duplicate value: "add"',
    ),
    "a tool denied twice": (
        agent(mcpServers=[{"name": "math", "tools": {"deny": ["add", "add"]}}]),
        'spec.mcpServers[0].tools.deny[1]: Duplicate value: "add"',
    ),
    "no tool allowed": (agent(mcpServers=[{"name": "math", "tools": {"allow": []}}]), "should have at least 1 items"),
    "a prefix that no tool's name may have": (
        agent(mcpServers=[{"name": "math", "prefix": "math."}]),
        "spec.mcpServers[0].prefix in body should match '^[A-Za-z0-9_-]*$'",
    ),
    "a prefix that is too long": (
        agent(mcpServers=[{"name": "math", "prefix": "a" * 33}]),
        "spec.mcpServers[0].prefix: Too long",
    ),
    "a local tool twice": (agent(localTools=["a", "a"]), 'spec.localTools[1]: Duplicate value: "a"'),
    "a local tool without a name": (agent(localTools=[""]), "spec.localTools[0] in body should be at least 1 chars"),
    "a local tool whose name is none": (agent(localTools=["a b"]), "spec.localTools[0] in body should match"),
    "an answer of no type": (
        agent(outputSchema={"properties": {}}),
        "spec.outputSchema.type: Required value",
    ),
    "an answer whose schema is text": (
        agent(outputSchema="object"),
        "spec.outputSchema in body must be of type object",
    ),
    "request timeout of nothing": (agent(limits__requestTimeoutSeconds=0), "should be greater than or equal to 1"),
    "request timeout too long": (agent(limits__requestTimeoutSeconds=901), "should be less than or equal to 900"),
    "tool timeout too long": (agent(limits__toolTimeoutSeconds=901), "should be less than or equal to 900"),
    "too many turns": (agent(limits__maxTurns=201), "should be less than or equal to 200"),
    "too many parallel tools": (agent(limits__maxParallelTools=65), "should be less than or equal to 64"),
    "no tokens": (agent(limits__maxTokensPerRequest=0), "should be greater than or equal to 1"),
    "no concurrency": (agent(concurrency=0), "should be greater than or equal to 1"),
    "too much concurrency": (agent(concurrency=257), "should be less than or equal to 256"),
    "queue too long": (agent(queue__maxLength=10001), "should be less than or equal to 10000"),
    "store that does not exist": (
        agent(sessions__store="etcd"),
        'spec.sessions.store: Unsupported value: "etcd": supported values: "memory", "file", "redis"',
    ),
    "replicas whose sessions are in their memory": (
        agent(replicas=2),
        "spec.replicas above 1 needs sessions that all pods share: set spec.sessions.store to redis and "
        "spec.sessions.redis.urlSecretRef, or keep spec.replicas at 1 (with store memory each pod knows only its own)",
    ),
    "replicas that would write the same files": (
        agent(replicas=2, sessions__store="file"),
        "spec.replicas above 1 needs sessions that all pods share, and the files of store file have one writer: set "
        "spec.sessions.store to redis and spec.sessions.redis.urlSecretRef, or keep spec.replicas at 1",
    ),
    "redis without an address": (
        agent(sessions__store="redis"),
        "spec.sessions.redis is required for store redis: set spec.sessions.redis.urlSecretRef to the name and key",
    ),
    "redis without a reference": (
        agent(sessions={"store": "redis", "redis": {}}),
        "spec.sessions.redis.urlSecretRef: Required",
    ),
    "a redis for another store": (
        agent(sessions__redis=REDIS),
        "spec.sessions.redis is for store redis only: remove it, or set spec.sessions.store to redis",
    ),
    "a volume for another store": (
        agent(sessions__file={"size": "2Gi"}),
        "spec.sessions.file is for store file only: remove it, or set spec.sessions.store to file",
    ),
    "a volume of no size": (
        agent(sessions={"store": "file", "file": {"size": "0"}}),
        "spec.sessions.file.size must be more than 0, such as 1Gi",
    ),
    "a volume whose size is none": (
        agent(sessions={"store": "file", "file": {"size": "much"}}),
        "spec.sessions.file.size in body should match",
    ),
    "fewer than no replicas": (agent(replicas=-1), "should be greater than or equal to 0"),
    "too many replicas": (agent(replicas=101), "should be less than or equal to 100"),
    "a fraction": (agent(replicas=1.5), "spec.replicas"),
    "unknown field": (agent(sistemPrompt="x"), 'unknown field "spec.sistemPrompt"'),
    "name too long": (changed(AGENT, metadata__name="a" * 51), "metadata.name names the Service too: use at most 50"),
    "name with a dot": (changed(AGENT, metadata__name="a.b"), "only a-z, 0-9 and -, beginning with a letter"),
    "name that begins with a digit": (
        changed(AGENT, metadata__name="1a"),
        "only a-z, 0-9 and -, beginning with a letter",
    ),
    "a variable of Ropewalk's": (
        agent(pod__env=[{"name": "ROPEWALK_PORT", "value": "80"}]),
        "spec.pod.env holds a variable that Ropewalk sets itself: remove ROPEWALK_CONFIG_FILE",
    ),
    "an image that is an address": (
        agent(pod__image="https://registry.example.com/agent"),
        "spec.pod.image must be the reference of a container image",
    ),
    "autoscaling by an empty queue": (
        agent(autoscaling={"targetQueueDepth": 0}, sessions={"store": "redis", "redis": REDIS}),
        "spec.autoscaling.targetQueueDepth in body should be greater than or equal to 1",
    ),
    "autoscaling of pods that share no sessions": (
        agent(autoscaling={}),
        "spec.autoscaling needs sessions that all pods share: set spec.sessions.store to redis",
    ),
}


@pytest.mark.parametrize(("body", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_the_fix(server: ApiServer, body: Object, message: str) -> None:
    assert message in refusal(server, body)


@pytest.mark.parametrize(
    "body",
    [
        agent(systemPrompt=REMOVED, systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "calculator.txt"}}),
        agent(model={"provider": "openai", "id": "m", "apiKeySecretRef": KEY}),
        agent(model={"provider": "openai", "id": "m", "apiKeySecretRef": KEY, "baseURL": "https://gateway.example.com/v1"}),
        agent(model={"provider": "anthropic", "id": "m", "apiKeySecretRef": KEY}),
        agent(model={"provider": "bedrock", "id": "m", "region": "eu-central-1"}),
        agent(model={"provider": "bedrock", "id": "arn:aws:bedrock:eu-central-1::x/y"}),
        provided("gemini", apiKeySecretRef=KEY),
        provided("mistral", apiKeySecretRef=KEY, baseURL="https://gateway.example.com"),
        provided("ollama", baseURL="http://ollama:11434"),
        provided("llamacpp", baseURL="http://llamacpp:8080", apiKeySecretRef=KEY),
        provided("litellm"),
        agent(model__fallbacks=[
            {"provider": "anthropic", "id": "m", "apiKeySecretRef": KEY, "parameters": {"nested": {"deeply": 0.5}}},
            {"provider": "bedrock", "id": "m", "region": "eu-central-1"},
        ]),
        agent(model=REMOVED, modelRef={"name": "house.of-models"}),
        agent(mcpServers=[{"name": "math", "prefix": "math_"}, {"name": "other", "prefix": ""}]),
        agent(localTools=["current_time", "fibonacci"]),
        agent(outputSchema={"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}),
        agent(outputSchema={"$ref": "#/$defs/n", "$defs": {"n": {"type": ["number", "null"]}}}),
        agent(sessions={"store": "file", "file": {"size": 5000000}}),
        agent(replicas=3, sessions={"store": "redis", "redis": REDIS}),
        agent(replicas=0, sessions={"store": "file"}),
        agent(model__apiKeySecretRef=KEY),
        agent(model__baseURL="http://[2001:db8::1]:8080/v1"),
        agent(mcpServers=[{"name": "math", "required": False, "tools": {"allow": ["add"], "deny": ["power"]}}]),
        agent(suspend=True, replicas=0, concurrency=1, queue={"maxLength": 0}),
        agent(pod={"image": "registry.example.com/agent:1", "env": [{"name": "ROPEWALK_LOG_LEVEL", "value": "info"}]}),
        agent(autoscaling={}, sessions={"store": "redis", "redis": REDIS}),
        agent(autoscaling={"targetQueueDepth": 5}, sessions={"store": "redis", "redis": REDIS}),
        changed(AGENT, metadata__name="a" * 50),
    ],
    ids=lambda body: json.dumps(body["spec"], separators=(",", ":"))[:60],
)  # fmt: skip
def test_what_is_right_is_taken_as_it_is(server: ApiServer, body: Object) -> None:
    assert_taken(server, body)


def test_the_smallest_agent_gets_all_defaults(server: ApiServer) -> None:
    body = agent(mcpServers=[{"name": "math"}])
    assert create(server, body)["spec"] == {
        **AGENT["spec"],
        "mcpServers": [{"name": "math", "required": True}],
        "limits": {"requestTimeoutSeconds": 60, "toolTimeoutSeconds": 30, "maxTurns": 20, "maxParallelTools": 10},
        "concurrency": 8,
        "queue": {"maxLength": 100},
        "sessions": {"store": "memory", "ttlSeconds": 3600, "maxSessions": 1000, "windowSize": 20},
        "replicas": 1,
        "suspend": False,
    }


def test_a_default_fills_in_beside_what_is_set(server: ApiServer) -> None:
    spec = create(server, agent(limits={"maxTurns": 3}, sessions={"windowSize": 5}))["spec"]
    assert spec["limits"]["requestTimeoutSeconds"] == 60
    assert spec["sessions"] == {"store": "memory", "ttlSeconds": 3600, "maxSessions": 1000, "windowSize": 5}


def test_the_models_parameters_are_kept_as_they_are(server: ApiServer) -> None:
    parameters = {"temperature": 0.25, "stop": ["\n"], "nested": {"deeply": {"so": None, "not": True}}, "n": 1}
    assert create(server, agent(model__parameters=parameters))["spec"]["model"]["parameters"] == parameters


def test_the_schema_of_the_answer_is_kept_as_it_is(server: ApiServer) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, None, "a"]}}, "x-own": {"deeply": [True]}}
    assert create(server, agent(outputSchema=schema))["spec"]["outputSchema"] == schema


def test_the_volume_has_a_size_when_none_is_named(server: ApiServer) -> None:
    assert create(server, agent(sessions={"store": "file", "file": {}}))["spec"]["sessions"]["file"] == {"size": "1Gi"}
