"""The API server itself refuses a wrong Model, says how to mend it, and takes what is right as it is."""

from __future__ import annotations

import json

import pytest

from apiserver import ApiServer
from crd_bodies import KEY, MODEL, REMOVED, Object, assert_taken, changed, lacking, model, refusal


def provided(provider: str, **fields: object) -> Object:
    return changed(MODEL, spec={"provider": provider, "id": "m", **fields})


WRONG = {
    "nothing": (changed(MODEL, spec=REMOVED), "spec: Required value"),
    "no provider": (model(provider=REMOVED), "spec.provider: Required value"),
    "unknown provider": (
        model(provider="acme"),
        'spec.provider: Unsupported value: "acme": supported values: "openai"',
    ),
    "no id": (model(id=REMOVED), "spec.id: Required value"),
    **lacking(provided, "spec."),
    "address with a password": (
        model(baseURL="http://me:secret@host/v1"),
        "spec.baseURL must be http:// or https://, a host and an optional path, without user name, query or fragment",
    ),
    "bedrock with an address": (
        provided("bedrock", baseURL="http://host/v1"),
        "spec.baseURL is not used by provider bedrock: remove it, and set spec.region instead",
    ),
    "bedrock with a key": (
        provided("bedrock", apiKeySecretRef=KEY),
        "give the pods of its Agents AWS credentials by their spec.pod.serviceAccountName or spec.pod.env",
    ),
    "region without bedrock": (
        model(region="eu-central-1"),
        "spec.region is for provider bedrock only: remove it, or set spec.provider to bedrock",
    ),
    "a key of another namespace": (
        model(apiKeySecretRef={**KEY, "namespace": "other"}),
        'unknown field "spec.apiKeySecretRef.namespace"',
    ),
    "a fallback without a key": (
        model(fallbacks=[{"provider": "mistral", "id": "m"}]),
        'spec.fallbacks[0]: Invalid value: "object": apiKeySecretRef is required for the providers',
    ),
    "too many fallbacks": (model(fallbacks=[{"provider": "litellm", "id": "m"}] * 5), "spec.fallbacks: Too many: 5"),
    "unknown field": (model(temperature=1), 'unknown field "spec.temperature"'),
}


@pytest.mark.parametrize(("body", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_the_fix(server: ApiServer, body: Object, message: str) -> None:
    assert message in refusal(server, body)


@pytest.mark.parametrize(
    "body",
    [
        MODEL,
        provided("openai", apiKeySecretRef=KEY),
        provided("bedrock", region="eu-central-1"),
        provided("litellm"),
        model(parameters={"temperature": 0.25, "nested": {"deeply": {"so": None}}}),
        model(fallbacks=[{"provider": "anthropic", "id": "m", "apiKeySecretRef": KEY, "parameters": {"n": 0.5}}]),
        changed(MODEL, metadata__name="house.of-models"),
    ],
    ids=lambda body: json.dumps(body["spec"], separators=(",", ":"))[:60],
)
def test_what_is_right_is_taken_as_it_is(server: ApiServer, body: Object) -> None:
    assert_taken(server, body)


def test_the_address_may_be_mended_in_place(server: ApiServer) -> None:
    server.kubectl("apply", "-f", "-", input=json.dumps(MODEL))
    server.kubectl(
        "patch", "model/house", "--type=merge", "-p", '{"spec": {"baseURL": "https://other.example.com/v1"}}'
    )
    assert server.kubectl("get", "mdl", "house", "-o", "jsonpath={.spec.baseURL}") == "https://other.example.com/v1"
