"""The OpenAPI document of an agent, and whether an answer is what it says. Used by two modules of tests."""

import json
from typing import Any

from jsonschema import Draft202012Validator

from agent_server import agent_config
from ropewalk_agent.routes import openapi

DOCUMENT = openapi.document(agent_config(description="Tests <things>."))
OPERATIONS = {
    (method.upper(), path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}


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
