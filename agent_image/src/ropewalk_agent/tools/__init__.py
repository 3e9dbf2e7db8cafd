"""What a tool is to a turn: a name, a schema and a call that always comes back with an outcome. Knows no protocol."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ropewalk_agent.errors import AgentError
from ropewalk_agent.tools.definitions import Definition

LOCAL = ""
"""The server that local tools belong to, in requests, events and metrics."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: content blocks for the model, and an outcome (ok, error, timeout, unavailable)."""

    outcome: str
    content: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may use. `call` takes the arguments, bounds its own time and raises nothing."""

    name: str
    server: str
    description: str
    input_schema: dict[str, Any]
    call: Callable[[dict[str, Any]], Awaitable[ToolResult]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tool of a server that cannot be used, and why; the name is the server's."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server said of itself when the connection was made; names are empty where it said none."""

    protocol_version: str
    name: str
    version: str
    has_session: bool
    """Whether it handed out a session id, so that a call must go to the replica that did."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What /tools and /ready say of a server. `since` is RFC 3339; `state` is connected, connecting or disconnected."""

    name: str
    required: bool
    state: str
    since: str
    last_error: str | None
    tools: tuple[str, ...]
    hidden: tuple[str, ...]
    breaker: str = "closed"
    left_out: tuple[LeftOut, ...] = ()
    info: ServerInfo | None = None
    definitions: tuple[Definition, ...] = ()
    """Of all tools that are listed and can be used, shown or hidden."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Two servers offer the same tool name: `kept` is the server whose tool is used."""

    tool: str
    kept: str
    ignored: str


def catalogue(tools_of_servers: list[tuple[Tool, ...]]) -> tuple[tuple[Tool, ...], tuple[Clash, ...]]:
    """Return the tools that a turn gets, and the clashes: of two equal names the first server's tool is used.

    Names that differ only in - and _ count as equal, because models and Strands mix them up.
    """
    chosen: dict[str, Tool] = {}
    clashes: list[Clash] = []
    for tools in tools_of_servers:
        for tool in tools:
            first = chosen.setdefault(tool.name.replace("-", "_"), tool)
            if first is not tool:
                clashes.append(Clash(tool.name, first.server, tool.server))
    return tuple(chosen.values()), tuple(clashes)


def narrowed(
    tools: tuple[Tool, ...],
    servers: tuple[str, ...],
    only_servers: tuple[str, ...] | None,
    only: tuple[str, ...] | None,
) -> tuple[Tool, ...]:
    """Return the tools that a request leaves to its turn: of these servers and of these names, None meaning all.

    Raises AgentError invalid_request for a name that the agent does not have, and says those that it has.
    """
    _refuse_unknown("tool_servers", only_servers, servers)
    _refuse_unknown("tools", only, tuple(tool.name for tool in tools))
    return tuple(
        tool
        for tool in tools
        if (only_servers is None or tool.server in only_servers) and (only is None or tool.name in only)
    )


def _refuse_unknown(field_name: str, asked: tuple[str, ...] | None, known: tuple[str, ...]) -> None:
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        there = ", ".join(repr(name) for name in known) or "none"
        raise AgentError("invalid_request", f"{field_name} names {unknown[0]!r}; this agent has {there}")
