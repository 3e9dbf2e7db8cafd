"""Bodies of Ropewalk's resources with changes, and what the API server says to them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from apiserver import ApiServer

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
MODEL: Object = {
    "apiVersion": "ropewalk.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "house", "namespace": "default"},
    "spec": {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"},
}
KEY = {"name": "model-key", "key": "api-key"}
REDIS = {"urlSecretRef": {"name": "redis", "key": "url"}}
REMOVED = object()
NEED_AN_ADDRESS = ("openai-compatible", "ollama", "llamacpp")
NEED_A_KEY = ("openai", "anthropic", "gemini", "mistral")


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


def model(**changes: Any) -> Object:
    return changed(MODEL, **{f"spec__{path}": value for path, value in changes.items()})


def provided(provider: str, **fields: Any) -> Object:
    return agent(model={"provider": provider, "id": "m", **fields})


def fallback(provider: str, **fields: Any) -> Object:
    return agent(model__fallbacks=[{"provider": provider, "id": "m", **fields}])


def lacking(made: Callable[[str], Object], model: str, role: str = "") -> dict[str, tuple[Object, str]]:
    """What `made` makes for each provider that needs an address or a key, without it, and what is said to that.

    `model` is where the model stands, as messages name it before its fields; `role` is put behind the provider's name.
    """
    address = (
        f"{model}baseURL is required for the providers openai-compatible, ollama and llamacpp: set it to the server's "
        "address, such as http://server:8080/v1"
    )
    key = (
        f"{model}apiKeySecretRef is required for the providers openai, anthropic, gemini and mistral: set its name and "
        "key to those of the Secret that holds the API key"
    )
    return {
        **{f"{each}{role} without an address": (made(each), address) for each in NEED_AN_ADDRESS},
        **{f"{each}{role} without a key": (made(each), key) for each in NEED_A_KEY},
    }


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


def assert_taken(api: ApiServer, body: Object) -> None:
    """The API server takes it, and every value in it stays as it is."""
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
