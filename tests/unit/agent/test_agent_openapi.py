"""The OpenAPI document: it names every endpoint, tells the truth about what they answer, and can be read as a page.

Requests made up from it, and broken on purpose, never bring a pod down. ROPEWALK_FUZZ_EXAMPLES asks for more of them.
"""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from starlette.routing import Mount, Route, WebSocketRoute

from agent_models import Call, ScriptedModel
from agent_server import agent_config, running_agent
from ropewalk_agent.app import create_app
from ropewalk_agent.errors import STATUS_OF_CODE
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import openapi
from ropewalk_agent.routes.docs_page import page
from ropewalk_agent.runtime import Runtime

DOCUMENT = openapi.document(agent_config(description="Tests <things>."))
OPERATIONS = {
    (method.upper(), path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}


def served() -> set[tuple[str, str]]:
    """Every method and path that the application has a route for; `*` where a route takes all methods."""
    config, metrics = agent_config(), Metrics()
    found = set()
    for route in create_app(config, Runtime(config, metrics), metrics).routes:
        match route:
            case Route():
                path = route.path_format
                found |= {(method, path) for method in (route.methods or {"*"}) - {"HEAD"}}
            case WebSocketRoute():
                found.add(("GET", route.path_format))
            case Mount():
                found |= {("*", f"{route.path}/{{path}}")}
    return found


# The document


def test_every_endpoint_is_described_in_the_table_of_routes_endpoints() -> None:
    assert served() - set(OPERATIONS) == set(), "describe these in routes/endpoints.py"


def test_no_endpoint_is_described_that_is_not_served() -> None:
    assert set(OPERATIONS) - served() == set(), "these rows of routes/endpoints.py have no route"


def test_every_error_code_that_an_endpoint_can_give_is_in_the_document() -> None:
    told = {
        word
        for operation in OPERATIONS.values()
        for answer in operation["responses"].values()
        for word in answer["description"].split(", ")
    }
    assert set(STATUS_OF_CODE) - told == {"method_not_allowed"}, "no operation has a wrong method"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    for reference in references(DOCUMENT):
        node = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_operations_have_names_of_their_own_and_answers() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.isidentifier()] == []
    assert [key for key, operation in OPERATIONS.items() if not operation["responses"]] == []


# The page


class Reader(HTMLParser):
    """Collects tags, what they load and where they lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            if name in ("href", "src"):
                self.links.add(value or "")


def test_the_page_is_small_and_loads_nothing() -> None:
    text = page(DOCUMENT)
    reader = Reader(text)
    assert len(text.encode()) < 30_000
    assert reader.tags & {"script", "link", "img", "iframe", "object", "embed"} == set()
    assert "url(" not in text
    assert {link for link in reader.links if not link.startswith("#")} == {"openapi.json"}


def test_the_page_shows_every_endpoint_and_its_links_lead_somewhere() -> None:
    text = page(DOCUMENT)
    reader = Reader(text)
    assert {link[1:] for link in reader.links if link.startswith("#")} - reader.ids == set()
    assert [key for key in OPERATIONS if f"{key[0]} {key[1]}</code>" not in text] == []


def test_what_the_agent_is_called_is_text_on_the_page_and_no_markup() -> None:
    text = page(openapi.document(agent_config(name="<b>", description="<script>x</script>")))
    assert Reader(text).tags & {"b", "script"} == set()
    assert "&lt;script&gt;" in text


# The truth


def strict(node: Any) -> Any:
    """Return a schema in which an object may hold nothing that is not described."""
    if isinstance(node, list):
        return [strict(value) for value in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


STRICT = strict(DOCUMENT["components"])


def problems(operation: dict[str, Any], status: int, media: str, value: Any) -> list[str]:
    """Return how an answer differs from what the document says of it."""
    response = operation["responses"].get(str(status))
    if response is None:
        return [f"status {status} is not described"]
    schema = {**strict(response["content"][media]["schema"]), "components": STRICT}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]


CHAT = {"model": "tested", "messages": [{"role": "user", "content": "x"}]}
STREAM = {"accept": "text/event-stream"}
SAID = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "x"}]}


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


EXAMPLES: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/query", {"json": {"query": "x"}}, 200),
    ("POST", "/query", {"json": {"query": "x"}, "headers": STREAM}, 200),
    ("POST", "/query", {"json": {"query": "x", "output_schema": {"type": "integer"}}}, 502),
    ("POST", "/query", {"json": {}}, 400),
    ("POST", "/v1/chat/completions", {"json": CHAT}, 200),
    ("POST", "/v1/chat/completions", {"json": {**CHAT, "stream": True}}, 200),
    ("POST", "/v1/chat/completions", {"json": {**CHAT, "response_format": {"type": "json_object"}}}, 502),
    ("POST", "/v1/chat/completions", {"json": {**CHAT, "model": "other"}}, 404),
    ("POST", "/v1/chat/completions", {"json": {}}, 400),
    ("POST", "/query", {"json": {"query": "x", "session_id": "a/b", "user_id": "u"}}, 200),
    ("GET", "/sessions?user_id=u", {}, 200),
    ("GET", "/sessions", {}, 400),
    ("GET", "/sessions/a%2Fb?user_id=u", {}, 200),
    ("GET", "/sessions/other", {}, 404),
    ("DELETE", "/sessions/a%2Fb/turn?user_id=u", {}, 404),
    ("DELETE", "/sessions/a%2Fb?user_id=u", {}, 204),
    ("DELETE", "/sessions/other", {}, 404),
    ("POST", "/batch", {"json": {"queries": ["x", {"query": "y", "tools": ["none"]}]}}, 200),
    ("POST", "/batch", {"json": {"queries": []}}, 400),
    ("GET", "/.well-known/agent-card.json", {}, 200),
    ("POST", "/a2a", {"json": rpc("message/send", {"message": SAID})}, 200),
    ("POST", "/a2a", {"json": rpc("message/stream", {"message": SAID})}, 200),
    ("POST", "/a2a", {"json": rpc("tasks/get", {"id": "other"})}, 200),
    ("GET", "/v1/models", {}, 200),
    ("GET", "/v1/models/tested", {}, 200),
    ("GET", "/v1/models/other", {}, 404),
    ("POST", "/invocations", {"json": {"prompt": "x"}}, 200),
    ("POST", "/invocations", {"json": {"prompt": "x", "stream": True}}, 200),
    ("POST", "/invocations", {"json": {}}, 400),
    ("GET", "/ping", {}, 200),
    ("GET", "/tools", {}, 200),
    ("GET", "/ready", {}, 200),
    ("GET", "/health", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/docs", {}, 200),
]
NOT_HTTP = {("GET", "/ws")}


def described(method: str, path: str) -> tuple[str, str]:
    """Return the operation that a request is for."""
    for known in OPERATIONS:
        parts, wanted = path.split("?", maxsplit=1)[0].split("/"), known[1].split("/")
        same = len(parts) == len(wanted) and all(
            b.startswith("{") or a == b for a, b in zip(parts, wanted, strict=True)
        )
        if known[0] == method and same:
            return known
    raise AssertionError(f"{method} {path} is not described")


def test_every_operation_has_an_example_here() -> None:
    assert set(OPERATIONS) - {described(*example[:2]) for example in EXAMPLES} == NOT_HTTP


async def test_what_is_answered_is_what_the_document_says() -> None:
    model = ScriptedModel(["a", Call("none")], ["b"])
    async with running_agent(model) as agent:
        for method, path, request, status in EXAMPLES:
            model.asked.clear()
            answer = await agent.client.request(method, path, **request)
            media = answer.headers.get("content-type", "").split(";")[0]
            assert answer.status_code == status, (method, path, answer.text)
            for value in values(media, answer.text):
                assert problems(OPERATIONS[described(method, path)], status, media, value) == [], (method, path)


def values(media: str, text: str) -> list[Any]:
    """Return the JSON values of an answer: one, or one for each event of a stream."""
    if not media:
        return []
    if media == "application/json":
        return [json.loads(text)]
    if media == "text/event-stream":
        data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        return [json.loads(value) for value in data if value != "[DONE]"]
    return [text]


# Requests that nobody would send


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
