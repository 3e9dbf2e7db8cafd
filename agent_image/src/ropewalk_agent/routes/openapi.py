"""GET /openapi.json and /docs: what the pod serves, made from the table of endpoints and the models they use.

The document follows OpenAPI 3.1.1. It is made when somebody first asks for it, on a thread, for it takes
some tenths of a second: most pods are never asked.
"""

import asyncio
import json
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ropewalk_agent import __version__
from ropewalk_agent.config import AgentConfig
from ropewalk_agent.errors import STATUS_OF_CODE

if TYPE_CHECKING:
    from ropewalk_agent.routes.endpoints import Endpoint

_REFERENCE = "#/components/schemas/{model}"
_REQUEST_ID = {"$ref": "#/components/parameters/RequestId"}
# No script, nothing from elsewhere: the page is its own style and text.
_PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
}


def routes(config: AgentConfig) -> list[Route]:
    """Return the routes."""

    @cache
    def document_bytes() -> bytes:
        return json.dumps(document(config), ensure_ascii=False).encode()

    @cache
    def page_bytes() -> bytes:
        from ropewalk_agent.routes.docs_page import page

        return page(document(config)).encode()

    async def openapi(_: Request) -> Response:
        body = await asyncio.to_thread(document_bytes)
        return Response(body, headers={"content-type": "application/json"})

    async def docs(_: Request) -> Response:
        return Response(await asyncio.to_thread(page_bytes), headers=_PAGE_HEADERS)

    return [Route("/openapi.json", openapi), Route("/docs", docs)]


def document(config: AgentConfig) -> dict[str, Any]:
    """Return the OpenAPI document of this agent, as JSON values."""
    # The types of the answers cost memory, so they wait until now.
    from pydantic import TypeAdapter

    from ropewalk_agent.routes.endpoints import ENDPOINTS

    types = {
        (endpoint.method, endpoint.path, part): kind
        for endpoint in ENDPOINTS
        for part in ("body", "answer", "event", "error")
        if (kind := getattr(endpoint, part)) is not None
    }
    schemas, definitions = TypeAdapter.json_schemas(
        [
            (key, "validation" if key[2] == "body" else "serialization", TypeAdapter(kind))
            for key, kind in types.items()
        ],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        of_endpoint = {
            key[2]: schema for (key, _), schema in schemas.items() if key[:2] == (endpoint.method, endpoint.path)
        }
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, of_endpoint)
    return {
        "openapi": "3.1.1",
        "info": {"title": config.name, "description": config.description, "version": __version__},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "parameters": {
                "RequestId": {
                    "name": "X-Request-Id",
                    "in": "header",
                    "description": "Taken over and given back: 1 to 128 characters of A-Z a-z 0-9 . _ : -",
                    "schema": {"type": "string"},
                }
            },
        },
    }


def _operation(endpoint: "Endpoint", schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _names_in(endpoint.path)
    ] + [
        {
            "name": parameter.name,
            "in": parameter.place,
            "required": parameter.required,
            "description": parameter.text,
            "schema": {"type": "string"},
        }
        for parameter in endpoint.parameters
    ]
    body = {"required": True, "content": {"application/json": {"schema": schemas.get("body")}}}
    return {
        "operationId": _operation_id(endpoint),
        "tags": [endpoint.group],
        "summary": endpoint.summary,
        "parameters": [*parameters, _REQUEST_ID],
        **({"requestBody": body} if "body" in schemas else {}),
        "responses": {**_errors(endpoint, schemas["error"]), **_answers(endpoint, schemas)},
    }


def _operation_id(endpoint: "Endpoint") -> str:
    words = endpoint.path.replace("{", "by/").replace("}", "").replace(".", "/").replace("-", "/").split("/")
    return "_".join([endpoint.method.lower(), *filter(None, words)])


def _names_in(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _answers(endpoint: "Endpoint", schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if "answer" in schemas:
        content["application/json"] = {"schema": schemas["answer"]}
    elif endpoint.status == HTTPStatus.OK:
        content["text/html" if endpoint.path == "/docs" else "text/plain"] = {"schema": {"type": "string"}}
    if "event" in schemas:
        # OpenAPI 3.1 has no word for the events of a stream; this is the schema of the data of each.
        content["text/event-stream"] = {"schema": schemas["event"]}
    answers = {str(endpoint.status): {"description": HTTPStatus(endpoint.status).phrase, "content": content}}
    if endpoint.also is not None:
        answers[str(endpoint.also)] = {"description": HTTPStatus(endpoint.also).phrase, "content": content}
    return answers


def _errors(endpoint: "Endpoint", schema: Any) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in endpoint.codes:
        by_status.setdefault(STATUS_OF_CODE[code], []).append(code)
    return {
        str(status): {"description": ", ".join(codes), "content": {"application/json": {"schema": schema}}}
        for status, codes in sorted(by_status.items())
    }
