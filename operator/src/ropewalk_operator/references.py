"""The Model and the MCPServers that an Agent names, as the Agent sees them. Reads what is known, asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk_operator import api
from ropewalk_operator.cache import Cache
from ropewalk_operator.clashes import Clash, clashes
from ropewalk_operator.facts import Discovered, ServerView
from ropewalk_operator.kinds import MCP_SERVER, MODEL, Key

Known = Callable[[Key], Discovered | None]
"""The last answer of a server to tools/list."""


@dataclass(frozen=True)
class Chosen:
    """The model that an Agent asks for, or why there is none."""

    model: api.ModelSpec | None = None
    missing: str | None = None
    """The name of a Model that is not there."""
    invalid: str | None = None


def chosen_model(agent: api.Agent, cache: Cache) -> Chosen:
    """The Agent's own model, or the one that it names."""
    if agent.model_ref is None:
        return Chosen(agent.model)
    name = agent.model_ref.name
    body = _existing(cache, Key(MODEL.name, agent.namespace, name))
    if body is None:
        return Chosen(missing=name)
    try:
        return Chosen(api.model(body))
    except api.InvalidSpec as error:
        return Chosen(invalid=f'spec.modelRef names the Model "{name}", which cannot be used: {error}')


@dataclass(frozen=True)
class Named:
    """What became of the names."""

    servers: Mapping[str, api.MCPServer]
    """Those that can be used."""
    views: tuple[ServerView, ...]
    missing: tuple[str, ...]
    invalid: str | None
    """What is wrong with those that cannot be used."""
    clashes: tuple[Clash, ...]


def named_servers(agent: api.Agent, cache: Cache, known: Known) -> Named:
    """The MCPServers that the Agent names."""
    servers: dict[str, api.MCPServer] = {}
    views: list[ServerView] = []
    missing: list[str] = []
    invalid: list[str] = []
    tools: dict[str, list[str]] = {}
    for ref in agent.mcp_servers:
        key = Key(MCP_SERVER.name, agent.namespace, ref.name)
        body = _existing(cache, key)
        if body is None:
            missing.append(ref.name)
            continue
        try:
            server = api.mcp_server(body)
        except api.InvalidSpec as error:
            invalid.append(f'spec.mcpServers names "{ref.name}", which cannot be used: {error}')
            continue
        servers[ref.name] = server
        views.append(_view(ref, server, body))
        admits = server.tools.within(ref.tools).admits
        tools[ref.name] = [ref.prefix + name for name in _tool_names(known(key), body) if admits(name)]
    return Named(servers, tuple(views), tuple(missing), "; ".join(invalid) or None, clashes(agent.local_tools, tools))


def _existing(cache: Cache, key: Key) -> Mapping[str, Any] | None:
    body = cache.resources.get(key)
    return None if body is None or "deletionTimestamp" in body["metadata"] else body


def _tool_names(known: Discovered | None, body: Mapping[str, Any]) -> Iterable[str]:
    if known is not None:
        return [tool.name for tool in known.tools]
    # After a restart: the first ones.
    return [tool["name"] for tool in (body.get("status") or {}).get("tools") or ()]


def _view(ref: api.ServerRef, server: api.MCPServer, body: Mapping[str, Any]) -> ServerView:
    conditions = {c["type"]: c for c in (body.get("status") or {}).get("conditions") or ()}
    asked = ("Accepted", "Available") if server.is_asked_with_secrets else ("Ready",)
    # Of a server that only agents can ask, Ready may tell of another Agent's trouble.
    bad = next(
        (conditions.get(type_, {}) for type_ in asked if conditions.get(type_, {}).get("status") != "True"), None
    )
    message = "" if bad is None else bad.get("message", "nothing is known of it yet")
    return ServerView(ref.name, ref.required, bad is None, message, server.is_asked_with_secrets)
