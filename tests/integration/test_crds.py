"""The API server itself refuses what is wrong, says how to mend it, and fills in the rest."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer, serving_crds

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted(folder for folder in (REPOSITORY / "examples").iterdir() if folder.is_dir())
Object = dict[str, Any]

AGENT: Object = {
    "apiVersion": "ropewalk.dev/v1alpha1",
    "kind": "Agent",
    "metadata": {"name": "calculator", "namespace": "default"},
    "spec": {
        "systemPrompt": "You calculate.",
        "model": {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"},
    },
}
MCPSERVER: Object = {
    "apiVersion": "ropewalk.dev/v1alpha1",
    "kind": "MCPServer",
    "metadata": {"name": "math", "namespace": "default"},
    "spec": {"image": "ropewalk.dev/mcp-math:0.1.0"},
}
KEY = {"name": "model-key", "key": "api-key"}
REDIS = {"urlSecretRef": {"name": "redis", "key": "url"}}
REMOVED = object()


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    with serving_crds() as server:
        yield server


def changed(base: Object, **changes: Any) -> Object:
    """Return the object with values at paths, written spec__model__id, put in or taken out."""
    found = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is REMOVED:
            node.pop(last, None)
        else:
            node[last] = value
    return found


def agent(**changes: Any) -> Object:
    return changed(AGENT, **{f"spec__{path}": value for path, value in changes.items()})


def mcpserver(**changes: Any) -> Object:
    return changed(MCPSERVER, **{f"spec__{path}": value for path, value in changes.items()})


def env(**variable: Any) -> Object:
    return agent(pod__env=[{"name": "A", **variable}])


def provided(provider: str, **fields: Any) -> Object:
    return agent(model={"provider": provider, "id": "m", **fields})


def fallback(provider: str, **fields: Any) -> Object:
    return agent(model__fallbacks=[{"provider": provider, "id": "m", **fields}])


def remote(**changes: Any) -> Object:
    return mcpserver(image=REMOVED, remote={"url": "https://tools.example.com/mcp"}, **changes)


def create(api: ApiServer, body: Object) -> Object:
    """Return what the API server makes of an object, in a dry run."""
    found = json.loads(api.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", input=json.dumps(body)))
    assert isinstance(found, dict)
    return found


def refusal(api: ApiServer, body: Object) -> str:
    """Return what the API server says against an object."""
    with pytest.raises(AssertionError) as refused:
        create(api, body)
    return str(refused.value)


WRONG_AGENTS = {
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
    "no model": (agent(model=REMOVED), "spec.model: Required value"),
    "unknown provider": (
        agent(model__provider="acme"),
        'supported values: "openai", "openai-compatible", "anthropic", "bedrock", "gemini", "mistral", "ollama", '
        '"litellm", "llamacpp"',
    ),
    **{
        f"{provider} without an address": (
            provided(provider),
            "spec.model.baseURL is required for the providers openai-compatible, ollama and llamacpp: set it to the "
            "server's address, such as http://server:8080/v1",
        )
        for provider in ("openai-compatible", "ollama", "llamacpp")
    },
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
    **{
        f"{provider} without a key": (
            provided(provider),
            "spec.model.apiKeySecretRef is required for the providers openai, anthropic, gemini and mistral: set its "
            "name and key to those of the Secret that holds the API key",
        )
        for provider in ("openai", "anthropic", "gemini", "mistral")
    },
    **{
        f"{provider} to fall back to without an address": (
            fallback(provider),
            'spec.model.fallbacks[0]: Invalid value: "object": baseURL is required for the providers openai-'
            "compatible, ollama and llamacpp: set it",
        )
        for provider in ("openai-compatible", "ollama", "llamacpp")
    },
    **{
        f"{provider} to fall back to without a key": (
            fallback(provider),
            'spec.model.fallbacks[0]: Invalid value: "object": apiKeySecretRef is required for the providers '
            "openai, anthropic, gemini and mistral: set its name and key",
        )
        for provider in ("openai", "anthropic", "gemini", "mistral")
    },
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
    "a label of Ropewalk's": (
        agent(pod__labels={"ropewalk.dev/agent": "other"}),
        "spec.pod.labels holds a label that Ropewalk sets itself: remove keys that start with ropewalk.dev/",
    ),
    **{
        f"the label {name}": (
            agent(pod__labels={f"app.kubernetes.io/{name}": "other"}),
            "spec.pod.labels holds a label that Ropewalk sets itself",
        )
        for name in ("name", "instance", "component", "managed-by")
    },
    "an annotation of Ropewalk's": (
        agent(pod__annotations={"ropewalk.dev/config-hash": "0"}),
        "spec.pod.annotations holds an annotation that Ropewalk sets itself",
    ),
    "label key that is none": (agent(pod__labels={"a b": "c"}), "spec.pod.labels holds a key that is no label's"),
    "label value that is none": (agent(pod__labels={"a": "b c"}), "spec.pod.labels.a"),
    "node label that is none": (agent(pod__nodeSelector={"a b": "c"}), "spec.pod.nodeSelector holds a key that is no"),
    "annotation key that is none": (
        agent(pod__annotations={"a b": "c"}),
        "spec.pod.annotations holds a key that is no",
    ),
    "quantity that is none": (agent(pod__resources__limits={"memory": "much"}), "spec.pod.resources.limits.memory"),
    "negative quantity": (agent(pod__resources__limits={"memory": "-1Gi"}), "spec.pod.resources.limits.memory"),
    "requests above limits": (
        agent(pod__resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}}),
        "spec.pod.resources.requests may not be larger than spec.pod.resources.limits",
    ),
    "variable without a value": (env(), "set exactly one of value and valueFrom"),
    "variable with two values": (
        env(value="x", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}),
        "set exactly one of value and valueFrom",
    ),
    "value from nowhere": (env(valueFrom={}), "set exactly one of valueFrom.secretKeyRef"),
    "value from two places": (
        env(valueFrom={"secretKeyRef": KEY, "configMapKeyRef": KEY}),
        "set exactly one of valueFrom.secretKeyRef",
    ),
    "value from a field that is none": (
        env(valueFrom={"fieldRef": {"fieldPath": "spec.image"}}),
        "use one of metadata.name, metadata.namespace",
    ),
    "a variable of Ropewalk's": (
        agent(pod__env=[{"name": "ROPEWALK_PORT", "value": "80"}]),
        "spec.pod.env holds a variable that Ropewalk sets itself: remove ROPEWALK_CONFIG_FILE",
    ),
    "variable that is none": (agent(pod__env=[{"name": "A=B", "value": "c"}]), "spec.pod.env[0].name"),
    "a variable twice": (
        agent(pod__env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "spec.pod.env[1]: Duplicate value",
    ),
    "service account that is none": (agent(pod__serviceAccountName="A b"), "spec.pod.serviceAccountName"),
}

WRONG_MCPSERVERS = {
    "nothing to run": (
        mcpserver(image=REMOVED),
        "set exactly one of spec.image (a server to run here) and spec.remote.url",
    ),
    "both to run and remote": (
        mcpserver(remote={"url": "http://host/mcp"}),
        "set exactly one of spec.image (a server to run here) and spec.remote.url",
    ),
    "remote without an address": (mcpserver(image=REMOVED, remote={}), "spec.remote.url: Required value"),
    "remote address without http": (
        mcpserver(image=REMOVED, remote={"url": "tools.example.com"}),
        "spec.remote.url must be http:// or https://",
    ),
    "remote address with a password": (
        mcpserver(image=REMOVED, remote={"url": "https://me:secret@tools.example.com/mcp"}),
        "without user name or fragment",
    ),
    "remote with arguments": (remote(args=["a"]), "spec.args has no effect on a remote server: remove it"),
    "remote with replicas": (remote(replicas=2), "spec.replicas has no effect on a remote server: remove it"),
    "remote with a pod": (remote(pod={}), "spec.pod has no effect on a remote server: remove it"),
    "remote with a port": (remote(port=9000), "put the port and the path into spec.remote.url"),
    "remote with a path": (remote(path="/x"), "put the port and the path into spec.remote.url"),
    "image that is an address": (
        mcpserver(image="http://host/image"),
        "spec.image must be the reference of a container",
    ),
    "image with a space": (mcpserver(image="an image"), "spec.image must be the reference of a container image"),
    "port that is none": (mcpserver(port=65536), "should be less than or equal to 65535"),
    "path without a slash": (mcpserver(path="mcp"), "spec.path must begin with /"),
    "unknown field": (mcpserver(command=["x"]), 'unknown field "spec.command"'),
    "name too long": (changed(MCPSERVER, metadata__name="a" * 51), "metadata.name names the Service too"),
    "a label of Ropewalk's": (
        mcpserver(pod__labels={"ropewalk.dev/mcpserver": "x"}),
        "spec.pod.labels holds a label that Ropewalk sets itself",
    ),
}


@pytest.mark.parametrize(("body", "message"), WRONG_AGENTS.values(), ids=WRONG_AGENTS)
def test_a_wrong_agent_is_refused_with_the_fix(api: ApiServer, body: Object, message: str) -> None:
    assert message in refusal(api, body)


@pytest.mark.parametrize(("body", "message"), WRONG_MCPSERVERS.values(), ids=WRONG_MCPSERVERS)
def test_a_wrong_mcp_server_is_refused_with_the_fix(api: ApiServer, body: Object, message: str) -> None:
    assert message in refusal(api, body)


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
        agent(pod__env=[{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"secretKeyRef": KEY}}]),
        agent(pod__env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}}]),
        agent(pod__labels={"team": "a", "example.com/team": "", "app.kubernetes.io/part-of": "x"}),
        agent(pod__annotations={"sidecar.example.com/Inject": "no, thank you"}),
        agent(pod__resources={"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"cpu": "1500m", "memory": "1e9"}}),
        agent(pod={"imagePullSecrets": [{"name": "a"}], "serviceAccountName": "mine", "nodeSelector": {"a": "b"}}),
        mcpserver(pod__env=[{"name": "ROPEWALK_PORT", "value": "9000"}], port=9000),
        changed(AGENT, metadata__name="a" * 50),
        mcpserver(args=["--verbose"], port=9000, path="/", replicas=3, pod={"labels": {"team": "a"}}),
        mcpserver(image="localhost:5000/a/b@sha256:" + "0" * 64),
        remote(),
        mcpserver(image=REMOVED, remote={"url": "https://tools.example.com/mcp?team=a"}),
    ],
    ids=lambda body: json.dumps(body["spec"], separators=(",", ":"))[:60],
)  # fmt: skip
def test_what_is_right_is_taken_as_it_is(api: ApiServer, body: Object) -> None:
    created = create(api, body)

    def assert_within(wanted: Any, found: Any, path: str) -> None:
        if isinstance(wanted, dict):
            for key, value in wanted.items():
                assert key in found, f"{path}.{key}"
                assert_within(value, found[key], f"{path}.{key}")
        elif isinstance(wanted, list):
            assert len(wanted) == len(found), path
            for one, other in zip(wanted, found, strict=True):
                assert_within(one, other, path)
        else:
            assert wanted == found, path

    assert_within(body["spec"], created["spec"], "spec")


def test_the_smallest_agent_gets_all_defaults(api: ApiServer) -> None:
    body = agent(mcpServers=[{"name": "math"}])
    assert create(api, body)["spec"] == {
        **AGENT["spec"],
        "mcpServers": [{"name": "math", "required": True}],
        "limits": {"requestTimeoutSeconds": 60, "toolTimeoutSeconds": 30, "maxTurns": 20, "maxParallelTools": 10},
        "concurrency": 8,
        "queue": {"maxLength": 100},
        "sessions": {"store": "memory", "ttlSeconds": 3600, "maxSessions": 1000, "windowSize": 20},
        "replicas": 1,
        "suspend": False,
    }


def test_a_default_fills_in_beside_what_is_set(api: ApiServer) -> None:
    spec = create(api, agent(limits={"maxTurns": 3}, sessions={"windowSize": 5}))["spec"]
    assert spec["limits"]["requestTimeoutSeconds"] == 60
    assert spec["sessions"] == {"store": "memory", "ttlSeconds": 3600, "maxSessions": 1000, "windowSize": 5}


def test_the_smallest_mcp_server_gets_all_defaults(api: ApiServer) -> None:
    assert create(api, MCPSERVER)["spec"] == {**MCPSERVER["spec"], "port": 8000, "path": "/mcp", "replicas": 1}


def test_the_models_parameters_are_kept_as_they_are(api: ApiServer) -> None:
    parameters = {"temperature": 0.25, "stop": ["\n"], "nested": {"deeply": {"so": None, "not": True}}, "n": 1}
    assert create(api, agent(model__parameters=parameters))["spec"]["model"]["parameters"] == parameters


def test_the_schema_of_the_answer_is_kept_as_it_is(api: ApiServer) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, None, "a"]}}, "x-own": {"deeply": [True]}}
    assert create(api, agent(outputSchema=schema))["spec"]["outputSchema"] == schema


@pytest.mark.parametrize("resource", ["agent", "mcpserver"])
def test_explain_has_words_for_every_field(api: ApiServer, resource: str) -> None:
    text = api.kubectl("explain", resource, "--recursive")
    fields = [line.strip().split("\t")[0] for line in text[text.index("FIELDS:") :].splitlines() if "\t" in line]
    assert {"spec", "status", "conditions", "secretKeyRef"} <= set(fields)
    served = json.loads(api.kubectl("get", "--raw", "/openapi/v3/apis/ropewalk.dev/v1alpha1"))
    kind = {"agent": "Agent", "mcpserver": "MCPServer"}[resource]
    root = next(
        schema
        for schema in served["components"]["schemas"].values()
        if schema.get("x-kubernetes-group-version-kind")
        == [{"group": "ropewalk.dev", "kind": kind, "version": "v1alpha1"}]
    )

    def bare(node: Object, path: str) -> Iterator[str]:
        if not node.get("description"):
            yield path
        for name, child in node.get("properties", {}).items():
            if path or name != "metadata":
                yield from bare(child, f"{path}.{name}")
        for inner in (node.get("items"), node.get("additionalProperties")):
            if isinstance(inner, dict):
                yield from bare(inner, f"{path}[]")

    assert list(bare(root, "")) == []


def test_explain_shows_the_words(api: ApiServer) -> None:
    text = " ".join(api.kubectl("explain", "agent.spec.model.baseURL").split())
    assert "Address of the provider's API" in text


STATUS = {
    "observedGeneration": 1,
    "replicas": 2,
    "readyReplicas": 1,
    "conditions": [
        {
            "type": "Ready", "status": "False", "reason": "Progressing", "message": "1 of 2 pods are ready",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}  # fmt: skip


@pytest.fixture
def shown(api: ApiServer) -> Iterator[ApiServer]:
    """An Agent and an MCPServer with a status."""
    agent_status = {
        **STATUS,
        "url": "http://calculator-agent.default.svc:8080",
        "selector": "ropewalk.dev/agent=calculator",
    }
    server_status = {
        **STATUS,
        "url": "http://math-mcp.default.svc:8000/mcp",
        "selector": "ropewalk.dev/mcpserver=math",
        "protocolVersion": "2026-07-28",
        "serverInfo": {"name": "math", "version": "0.1.0"},
        "toolCount": 5,
        "tools": [{"name": "add", "description": "Adds", "hash": "sha256:0"}],
        "lastDiscoveryTime": "2026-01-01T00:00:00Z",
    }
    for body, status in ((AGENT, agent_status), (MCPSERVER, server_status)):
        api.kubectl("apply", "-f", "-", input=json.dumps(body))
        name = f"{body['kind'].lower()}/{body['metadata']['name']}"
        api.kubectl("patch", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    yield api
    api.kubectl("delete", "ropewalk", "--all")


def cells(table: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


def test_get_shows_what_matters(shown: ApiServer) -> None:
    header, row = cells(shown.kubectl("get", "ag"))
    assert header == ["NAME", "READY", "REASON", "MODEL", "REPLICAS", "AGE"]
    assert row[:-1] == ["calculator", "False", "Progressing", "m", "1"]
    header, row = cells(shown.kubectl("get", "mcp"))
    assert header == ["NAME", "READY", "REASON", "TOOLS", "REPLICAS", "AGE"]
    assert row[:-1] == ["math", "False", "Progressing", "5", "1"]


def test_get_wide_shows_where_and_why(shown: ApiServer) -> None:
    header, row = cells(shown.kubectl("get", "ag", "-o", "wide"))
    assert header[-2:] == ["URL", "MESSAGE"]
    assert row[-2:] == ["http://calculator-agent.default.svc:8080", "1 of 2 pods are ready"]
    header, row = cells(shown.kubectl("get", "mcp", "-o", "wide"))
    assert header[-2:] == ["URL", "MESSAGE"]
    assert row[-2:] == ["http://math-mcp.default.svc:8000/mcp", "1 of 2 pods are ready"]


def test_get_ropewalk_shows_both_kinds(shown: ApiServer) -> None:
    names = shown.kubectl("get", "ropewalk", "-o", "name").split()
    assert names == ["agent.ropewalk.dev/calculator", "mcpserver.ropewalk.dev/math"]


def test_wait_understands_the_conditions(shown: ApiServer) -> None:
    shown.kubectl("wait", "agent/calculator", "mcpserver/math", "--for=condition=Ready=False", "--timeout=5s")


@pytest.mark.parametrize(
    ("name", "selector"), [("agent/calculator", "agent=calculator"), ("mcpserver/math", "mcpserver=math")]
)
def test_scale_changes_and_reads_replicas(shown: ApiServer, name: str, selector: str) -> None:
    if name.startswith("agent"):
        share_sessions(shown)
    shown.kubectl("scale", name, "--replicas=3")
    assert shown.kubectl("get", name, "-o", "jsonpath={.spec.replicas}") == "3"
    kind, resource = name.split("/")
    scale = json.loads(
        shown.kubectl("get", "--raw", f"/apis/ropewalk.dev/v1alpha1/namespaces/default/{kind}s/{resource}/scale")
    )
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": f"ropewalk.dev/{selector}"}


def share_sessions(api: ApiServer) -> None:
    sessions = json.dumps({"spec": {"sessions": {"store": "redis", "redis": REDIS}}})
    api.kubectl("patch", "agent/calculator", "--type=merge", "-p", sessions)


@pytest.mark.parametrize("store", ["memory", "file"])
def test_scale_beyond_one_is_refused_where_replicas_would_not_share_sessions(shown: ApiServer, store: str) -> None:
    shown.kubectl(
        "patch", "agent/calculator", "--type=merge", "-p", json.dumps({"spec": {"sessions": {"store": store}}})
    )
    with pytest.raises(AssertionError, match=r"spec\.replicas above 1 needs sessions that all pods share"):
        shown.kubectl("scale", "agent/calculator", "--replicas=2")
    shown.kubectl("scale", "agent/calculator", "--replicas=0")
    shown.kubectl("scale", "agent/calculator", "--replicas=1")


def test_the_volume_has_a_size_when_none_is_named(api: ApiServer) -> None:
    assert create(api, agent(sessions={"store": "file", "file": {}}))["spec"]["sessions"]["file"] == {"size": "1Gi"}


def test_scale_cannot_pass_the_bounds(shown: ApiServer) -> None:
    share_sessions(shown)
    with pytest.raises(AssertionError, match="should be less than or equal to 100"):
        shown.kubectl("scale", "agent/calculator", "--replicas=101")


def test_status_is_written_only_through_its_subresource(shown: ApiServer) -> None:
    shown.kubectl("patch", "agent/calculator", "--type=merge", "-p", '{"status": {"url": "http://elsewhere"}}')
    assert shown.kubectl("get", "ag", "calculator", "-o", "jsonpath={.status.url}").startswith(
        "http://calculator-agent"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_taken_by_the_api_server(api: ApiServer, example: Path) -> None:
    assert (example / "README.md").exists()
    assert "created" in api.kubectl("apply", "--dry-run=server", "-f", str(example))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_the_yaml_that_a_readme_shows_for_other_models_is_right(api: ApiServer, example: Path) -> None:
    for block in re.findall(r"(?:^    .*\n)+", (example / "README.md").read_text(), flags=re.M):
        if block.startswith("    model:"):
            create(api, changed(AGENT, **{f"spec__{key}": value for key, value in yaml.safe_load(block).items()}))


def test_the_examples_name_no_namespace_but_where_they_must() -> None:
    for example in EXAMPLES:
        for file in example.glob("*.yaml"):
            for body in yaml.safe_load_all(file.read_text()):
                assert "namespace" not in body["metadata"], file
