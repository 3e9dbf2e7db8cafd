"""The OpenAPI document: it names every endpoint, tells the truth about what they answer, and can be read as a page."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from jsonschema import Draft202012Validator
from starlette.routing import Mount, Route, WebSocketRoute

from agent_models import Call, ScriptedModel
from agent_openapi import DOCUMENT, EXAMPLES, OPERATIONS, problems, values
from agent_server import agent_config, running_agent
from ropewalk_agent.app import create_app
from ropewalk_agent.errors import STATUS_OF_CODE
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import openapi
from ropewalk_agent.routes.docs_page import page
from ropewalk_agent.runtime import Runtime


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
