"""Requests made up from the OpenAPI document, and broken on purpose, never bring a pod down or find a defect.

ROPEWALK_FUZZ_EXAMPLES asks for more of them, and for others each time.
"""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_models import ScriptedModel
from agent_openapi import DOCUMENT, EXAMPLES, OPERATIONS, STREAM, problems, values
from agent_server import running_agent

FUZZED = sorted(
    path
    for (_, path), operation in OPERATIONS.items()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
)
GOOD_BODIES: dict[str, list[dict[str, Any]]] = {
    path: [request["json"] for _, of, request, status in EXAMPLES if of == path and status == 200] for path in FUZZED
}
MORE = int(os.environ.get("ROPEWALK_FUZZ_EXAMPLES", "0"))
FUZZ = settings(
    max_examples=MORE or 60,
    derandomize=not MORE,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
TEXT = st.text(max_size=20) | st.sampled_from(
    ["tested", "x", "\x00", "🧶", "data:image/png;base64,AA==", "{}", "a" * 300]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def made_from(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a schema of the document, more or less."""
    if "$ref" in schema:
        return made_from(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return st.one_of([made_from(member, depth) for member in schema[union]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema and depth < 6:
            return objects(schema, depth)
        case "object":
            return st.dictionaries(TEXT, JSON, max_size=3)
        case "array":
            return st.lists(
                made_from(schema.get("items", {}), depth + 1), min_size=schema.get("minItems", 0), max_size=4
            )
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) < 64)
        case "string":
            return TEXT
        case "integer":
            return st.integers()
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return JSON | st.none()


@st.composite
def objects(draw: st.DrawFn, schema: dict[str, Any], depth: int) -> dict[str, Any]:
    """An object with all that it needs and a little of what it may hold: all of that at once is never right."""
    fields = schema["properties"]
    required = set(schema.get("required", ()))
    optional = sorted(set(fields) - required)
    chosen = draw(st.lists(st.sampled_from(optional), max_size=2, unique=True)) if optional else []
    return {name: draw(made_from(fields[name], depth + 1)) for name in [*sorted(required), *chosen]}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(value, key), *places(inner)]]


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A body for an endpoint: as described, then changed at some places, then perhaps broken."""
    operation = OPERATIONS["POST", path]
    value = draw(made_from(operation["requestBody"]["content"]["application/json"]["schema"]))
    if draw(st.booleans()):
        value = {**value, **draw(st.sampled_from(GOOD_BODIES[path]))}
    if "model" in value:
        value["model"] = "tested"  # any other ends the request before it is looked at
    value = deepcopy(value)
    for _ in range(draw(st.integers(0, 2))):
        if not (found := places(value)):
            break
        container, key = draw(st.sampled_from(found))
        if draw(st.booleans()):
            container[key] = draw(JSON)
        else:
            del container[key]
    body = json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    match draw(st.sampled_from(["whole"] * 8 + ["cut", "spoilt"])):
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "spoilt":
            at = draw(st.integers(0, max(0, len(body) - 1)))
            return body[:at] + draw(st.binary(max_size=4)) + body[at + 1 :]
    return body


@contextmanager
def agent_in_a_thread() -> Iterator[str]:
    """Run an agent on a loop of its own and yield its address."""
    address: list[str] = []
    started, ended = threading.Event(), threading.Event()

    async def live() -> None:
        async with running_agent(ScriptedModel(["ok"])) as agent:
            address.append(str(agent.client.base_url))
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield address[0]
    finally:
        ended.set()
        thread.join(20)


def code_of(value: Any) -> Any:
    """Return the code of an answer that is an error, ours or JSON-RPC's."""
    return (value.get("error") or {}).get("code") if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[httpx.Client]:
    with agent_in_a_thread() as address, httpx.Client(base_url=address, timeout=20) as client:
        yield client


# On a busy machine 5,000 examples take longer than a test may.
@pytest.mark.timeout(120 + MORE // 10)
@pytest.mark.parametrize("path", FUZZED)
def test_no_request_is_a_defect_of_ours_and_every_answer_is_described(path: str, fuzzed: httpx.Client) -> None:
    operation = OPERATIONS["POST", path]

    @FUZZ
    @given(body=bodies(path), stream=st.booleans())
    def ask(body: bytes, stream: bool) -> None:
        headers = {"content-type": "application/json", **(STREAM if stream else {})}
        answer = fuzzed.post(path, content=body, headers=headers)
        media = answer.headers["content-type"].split(";")[0]
        assert answer.status_code != 500
        for value in values(media, answer.text):
            assert problems(operation, answer.status_code, media, value) == []
            assert "Traceback" not in json.dumps(value)
            assert code_of(value) not in ("internal", -32603)

    ask()
    assert fuzzed.post("/query", json={"query": "still there?"}).json()["response"] == "ok"
    assert fuzzed.get("/health").status_code == 200
    assert "requests_in_flight 0.0" in fuzzed.get("/metrics").text
