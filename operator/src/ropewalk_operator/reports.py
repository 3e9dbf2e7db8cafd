"""What agents report of an MCP server that only they can ask, because they hold its Secrets: their /tools, judged.

Asks agents, never the server; the newest success wins, and failures are named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ropewalk_operator.definitions import (
    DESCRIPTION_CHARACTERS,
    HASH_CHARACTERS,
    NAME_CHARACTERS,
    VERSION_CHARACTERS,
    listed,
)
from ropewalk_operator.discovery import AgentPod, ListingError, NotYetKnown
from ropewalk_operator.facts import Discovered, LeftOut, Tool

AGENTS_ASKED = 16
FAILURES_NAMED = 3
REASON_CHARACTERS = 300

AskTools = Callable[[str], Awaitable[Any]]
"""The parsed body of /tools of the agent pod at an IP address, or None where it did not answer."""


@dataclass(frozen=True)
class Report:
    """What one agent says of the server: what it discovered, or why it could not; neither while it is connecting."""

    agent: str
    discovered: Discovered | None = None
    error: str | None = None


async def ask(server: str, pods: Iterable[AgentPod], ask_tools: AskTools) -> Discovered:
    """What the first few of these agents say, the newest first. Raises ListingError, or NotYetKnown."""

    async def told(pod: AgentPod) -> Report:
        # At once: a body speaks of all servers of its agent, and many of them together would fill the memory.
        return report(pod.agent, server, await ask_tools(pod.ip))

    return judged(await asyncio.gather(*(told(pod) for pod in list(pods)[:AGENTS_ASKED])))


def judged(reports: Iterable[Report]) -> Discovered:
    """The first success, with a note of who reported it and who failed. Raises ListingError, or NotYetKnown."""
    known = list(reports)
    failures = [f'agent "{each.agent}": {each.error}' for each in known if each.error]
    said = "; ".join(failures[:FAILURES_NAMED])
    if len(failures) > FAILURES_NAMED:
        said += f"; and {len(failures) - FAILURES_NAMED} more agents"
    for each in known:
        if each.discovered is not None:
            note = f'as agent "{each.agent}" reports' + (f"; not so {said}" if said else "")
            return replace(each.discovered, note=note)
    if failures:
        raise ListingError(said)
    raise NotYetKnown


def report(agent: str, server: str, body: Any) -> Report:
    """The part of an agent's /tools that is about this server."""
    servers = body.get("servers") if isinstance(body, dict) else None
    mine = next((each for each in _dicts(servers) if each.get("name") == server), None)
    if mine is None:
        return Report(agent)
    if mine.get("state") != "connected":
        reason = mine.get("last_error")
        return Report(agent, error=str(reason)[:REASON_CHARACTERS] if reason else None)
    if "definitions" not in mine:
        return Report(agent, error="its image is too old to report tools; use the agent image of this release")
    info = mine.get("server_info")
    info = info if isinstance(info, dict) else {}
    tools = (
        Tool(
            str(each.get("name"))[:NAME_CHARACTERS],
            str(each.get("description") or "")[:DESCRIPTION_CHARACTERS],
            str(each.get("hash"))[:HASH_CHARACTERS],
        )
        for each in _dicts(mine["definitions"])
        if each.get("name")
    )
    left_out = (LeftOut(str(each.get("tool")), str(each.get("reason"))) for each in _dicts(mine.get("left_out")))
    return Report(
        agent,
        Discovered(
            tools=listed(tools),
            protocol_version=str(mine.get("protocol_version") or "")[:VERSION_CHARACTERS],
            server_name=str(info.get("name") or "")[:NAME_CHARACTERS],
            server_version=str(info.get("version") or "")[:NAME_CHARACTERS],
            has_session=mine.get("has_session") is True,
            left_out=tuple(left_out),
        ),
    )


def _dicts(values: Any) -> list[Mapping[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
