"""GET and DELETE below /sessions: what is kept of conversations, for whoever names the user that they belong to.

Another user's session is simply not there. The sessions of callers that named no user are not listed: their ids, which
cannot be guessed, are all that guards them.
"""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ropewalk_agent.errors import AgentError
from ropewalk_agent.routes import turns
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.sessions import Message, SessionInfo, SessionKey, SessionStore


class _Names(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: turns.Identifier | None = None
    session_id: turns.Identifier | None = None


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes."""

    async def list_sessions(request: Request) -> Response:
        user_id = _key(request).user_id
        if not user_id:
            message = "user_id is missing; sessions are listed for a user: /sessions?user_id=…"
            raise AgentError("invalid_request", message)
        infos = await runtime.ask_sessions(lambda store: store.list(user_id))
        return JSONResponse({"sessions": [_told(info) for info in infos]})

    async def session(request: Request) -> Response:
        key = _key(request)

        async def read(store: SessionStore) -> tuple[SessionInfo | None, tuple[Message, ...]]:
            return await store.describe(key), await store.load(key)

        info, messages = await runtime.ask_sessions(read)
        if info is None:
            raise _not_there()
        return JSONResponse({**_told(info), "turns": said(messages)})

    async def delete(request: Request) -> Response:
        return await forgotten(_key(request))

    async def forgotten(key: SessionKey) -> Response:
        if runtime.is_busy(key):
            raise AgentError("session_busy", "a turn of the session runs; cancel it first: DELETE /sessions/{id}/turn")

        async def forget(store: SessionStore) -> bool:
            async with store.lock(key, wait=False):
                return await store.delete(key)

        if not await runtime.ask_sessions(forget):
            raise _not_there()
        return Response(status_code=204)

    async def cancel(request: Request) -> Response:
        key = _key(request)
        if not _asks_for_the_turn(request):
            return await forgotten(key._replace(session_id=f"{key.session_id}/turn"))
        if not runtime.cancel_turn(key):
            raise AgentError("not_found", "no turn of this session runs in this pod")
        return Response(status_code=204)

    return [
        Route("/sessions", list_sessions),
        Route("/sessions/{session_id:path}/turn", cancel, methods=["DELETE"]),
        Route("/sessions/{session_id:path}", session),
        Route("/sessions/{session_id:path}", delete, methods=["DELETE"]),
    ]


def said(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return who said what, and which tools the assistant called; their results are left out."""
    told = []
    for message in messages:
        blocks = message["content"]
        if any("toolResult" in block for block in blocks):
            continue
        text = "".join(block["text"] for block in blocks if "text" in block)
        tools = [block["toolUse"]["name"] for block in blocks if "toolUse" in block]
        told.append({"role": message["role"], "text": text, "tools": tools})
    return told


def _asks_for_the_turn(request: Request) -> bool:
    """Whether /turn is the path's own end; %2Fturn is the end of a session's id, which the router cannot tell apart."""
    last = request.scope["raw_path"].rpartition(b"/")[2]
    return bool(unquote_to_bytes(last) == b"turn")


def _key(request: Request) -> SessionKey:
    fields = {**request.query_params, **request.path_params}
    names = turns.parsed(_Names, json.dumps(fields).encode())
    return SessionKey(names.user_id or "", names.session_id or "")


def _told(info: SessionInfo) -> dict[str, Any]:
    return {
        "session_id": info.key.session_id,
        "messages": info.messages,
        "created_at": _rfc3339(info.created_at),
        "updated_at": _rfc3339(info.updated_at),
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _not_there() -> AgentError:
    return AgentError("not_found", "there is no such session; it may have expired, or belong to another user")
