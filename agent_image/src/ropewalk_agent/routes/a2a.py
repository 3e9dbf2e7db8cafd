"""GET /.well-known/agent-card.json and POST /a2a: the agent for other agents, by the Agent2Agent protocol 0.3.

The card is written here. JSON-RPC is the a2a-sdk's (a2a_turns.py), on the same bridge as every endpoint. Most agents
are never asked that way, so the first such request loads it, beside the server's loop. Never logs what was asked.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ropewalk_agent import __version__
from ropewalk_agent.config import AgentConfig
from ropewalk_agent.routes import turns
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.tools import Tool
from ropewalk_agent.whole import whole

PATH = "/a2a"
CARD_PATH = "/.well-known/agent-card.json"

_PARSE_ERROR = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "the body is not JSON"}}
_OUTCOMES = {-32603: "internal", -32601: "not_found", -32001: "not_found"}
"""What JSON-RPC's codes are in ours; the others blame the request too."""


def routes(config: AgentConfig, runtime: Runtime) -> list[BaseRoute]:
    """Return the routes."""

    async def card(request: Request) -> Response:
        return JSONResponse(agent_card(config, runtime.tools, _address(config, request)))

    def load() -> ASGIApp:
        from ropewalk_agent.routes import a2a_turns

        return a2a_turns.application(config, runtime, agent_card(config, (), ""))

    return [Route(CARD_PATH, card), Route(PATH, Endpoint(load), methods=["POST"])]


def agent_card(config: AgentConfig, tools: Iterable[Tool], address: str) -> dict[str, Any]:
    """Return the AgentCard (A2A 0.3.0, section 5.5) of an agent that is reached at `address`."""
    return {
        "protocolVersion": "0.3.0",
        "name": config.name,
        "description": config.description or config.name,
        "version": __version__,
        "url": address + PATH,
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": False},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain", *(["application/json"] if config.output_schema is not None else [])],
        "skills": [{"id": tool.name, "name": tool.name, "description": tool.description, "tags": []} for tool in tools],
    }


def _address(config: AgentConfig, request: Request) -> str:
    """Return where the caller reaches the agent: the host that it asked, else the Service."""
    host = request.headers.get("host")
    if not host:
        return f"http://{config.name}-agent.{config.namespace}.svc:8080"
    scheme = request.headers.get("x-forwarded-proto")
    return f"{scheme if scheme in ('http', 'https') else request.url.scheme}://{host}"


class Call:
    """One request to /a2a, for the turn that it starts on a task of its own. Belongs to the server's loop."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        """The state of the request's scope, for its outcome and its id."""
        self.left = False
        """Whether the client has gone."""
        self.answered = False
        """Whether all is said, so that a client that goes now cancels nothing: clients go at the last event."""
        self.turn: asyncio.Task[Any] | None = None

    def leave(self) -> None:
        """End the turn, because its client has gone; a turn that has told its end keeps it."""
        self.left = True
        if self.turn is not None and not self.answered:
            self.turn.cancel()


class Endpoint:
    """The ASGI application of POST /a2a; `load` makes what answers, on a thread, at the first request."""

    def __init__(self, load: Callable[[], ASGIApp]) -> None:
        self._load = load
        self._loading = asyncio.Lock()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves cancels its turn."""
        body = await turns.read(receive)
        try:
            body = _sendable(body)
        except (ValueError, RecursionError):
            scope["state"]["outcome"] = "invalid_request"
            await turns.send_json(send, _PARSE_ERROR)
            return
        app = await self._loaded()
        call = scope["state"]["call"] = Call(scope["state"])

        async def answer() -> None:
            await app(scope, _repeated(body), _noting(call, send))

        async def receive_noting() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                call.leave()
            return message

        try:
            await turns.unless_client_leaves(receive_noting, answer())
        except ClientDisconnect:
            if not call.answered:
                raise

    async def _loaded(self) -> ASGIApp:
        async with self._loading:
            if self._app is None:
                self._app = await asyncio.to_thread(self._load)
            return self._app


def _sendable(body: bytes) -> bytes:
    """Return the body without halves of characters: the SDK calls a refusal that quotes one a defect of its own.

    Raises ValueError where it is not JSON, RecursionError where it is nested too deep.
    """
    asked = json.loads(body)
    mended = whole(asked)
    return body if mended == asked else json.dumps(mended).encode()


def _repeated(body: bytes) -> Receive:
    """Return a `receive` that gives the body again, and then nothing: whether the client leaves is watched here."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _noting(call: Call, send: Send) -> Send:
    """Return a `send` that notes the outcome of an answer that is an error: JSON-RPC's have status 200."""
    whole = False

    async def send_noting(message: Message) -> None:
        nonlocal whole
        if message["type"] == "http.response.start":
            whole = (b"content-type", b"application/json") in message["headers"]
        elif whole and call.state["outcome"] == "ok":
            with suppress(ValueError, KeyError):
                code = json.loads(message["body"])["error"]["code"]
                call.state["outcome"] = _OUTCOMES.get(code, "invalid_request")
        await send(message)

    return send_noting
