"""Facts -> the status of an Agent or MCPServer. Pure; it never claims a generation that was not judged.

A suspended Agent, or one with replicas 0, is Available=False and Ready=False with the reason Suspended or
ScaledToZero: nothing answers at its URL, whoever wanted that. Accepted stays True, so that it can be told from a
broken one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ropewalk_operator import checks
from ropewalk_operator.checks import Verdict
from ropewalk_operator.facts import Discovered, Facts
from ropewalk_operator.times import epoch, timestamp

Status = dict[str, Any]

MESSAGE_CHARACTERS = 4096
TOOLS_SHOWN = 256
RENEW_DISCOVERY_SECONDS = 3600


def agent_status(facts: Facts, previous: Mapping[str, Any], now: float) -> Status:
    """The status of an Agent; `now` in seconds since the epoch."""
    required = sum(server.required for server in facts.servers)
    servers_said = f"all {required} required MCP servers are ready" if required else "no MCP server is required"
    conditions = _conditions(
        facts,
        [
            ("Accepted", checks.ACCEPTED, "Accepted", facts.note or "the spec and everything that it names are right"),
            ("ToolsReady", checks.TOOLS_READY, "ServersReady", servers_said),
            ("Available", checks.AVAILABLE, "Available", _pods_said(facts)),
        ],
        f"answers at {facts.url}",
        previous,
        now,
    )
    return {**_common(facts), "conditions": conditions}


def mcp_status(facts: Facts, previous: Mapping[str, Any], now: float) -> Status:
    """The status of an MCPServer; what was discovered before is kept until something newer is known."""
    found = _discovered(facts.discovered, previous, now)
    count = found.get("toolCount", 0)
    tools_said = "1 tool" if count == 1 else f"{count} tools"
    available = "the server runs elsewhere" if facts.remote else _pods_said(facts)
    conditions = _conditions(
        facts,
        [
            ("Accepted", checks.ACCEPTED, "Accepted", "the spec is right"),
            ("Available", checks.AVAILABLE, "Remote" if facts.remote else "Available", available),
            ("ToolsDiscovered", checks.TOOLS_DISCOVERED, "ToolsListed", f"the server listed {tools_said}"),
        ],
        f"{tools_said} at {facts.url}",
        previous,
        now,
    )
    return {**_common(facts), **found, "conditions": conditions}


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Status | None:
    """A merge patch that turns the old status into the new one, or None when they are equal."""
    if old == new:
        return None
    gone = {key: None for key in old if key not in new}
    return {**gone, **{key: value for key, value in new.items() if old.get(key) != value}}


def _pods_said(facts: Facts) -> str:
    return f"{facts.fresh_ready} of {facts.replicas} pods of this spec are ready"


def _common(facts: Facts) -> Status:
    said: Status = {
        "observedGeneration": facts.generation,
        "replicas": facts.deployment.replicas if facts.deployment else 0,
        "readyReplicas": facts.deployment.ready if facts.deployment else 0,
    }
    if facts.url:
        said["url"] = facts.url
    if facts.selector:
        said["selector"] = facts.selector
    return said


Row = tuple[str, Sequence[checks.Check], str, str]


def _conditions(
    facts: Facts, rows: list[Row], ready_message: str, previous: Mapping[str, Any], now: float
) -> list[dict[str, Any]]:
    former = {c["type"]: c for c in previous.get("conditions") or ()}
    conditions: list[dict[str, Any]] = []
    summary: Verdict | None = None
    for type_, ordered, true_reason, true_message in rows:
        verdict = checks.first(ordered, facts)
        if verdict is not None and summary is None:
            summary = Verdict(verdict.reason, verdict.message)
        judged = verdict or Verdict(true_reason, true_message, "True")
        conditions.append(_condition(type_, judged, facts.generation, former.get(type_), now))
    judged = summary or Verdict("Ready", ready_message, "True")
    conditions.append(_condition("Ready", judged, facts.generation, former.get("Ready"), now))
    return conditions


def _condition(
    type_: str, verdict: Verdict, generation: int, former: Mapping[str, Any] | None, now: float
) -> dict[str, Any]:
    is_same = former is not None and former["status"] == verdict.status
    return {
        "type": type_,
        "status": verdict.status,
        "observedGeneration": generation,
        "lastTransitionTime": former["lastTransitionTime"] if former and is_same else timestamp(now),
        "reason": verdict.reason,
        "message": verdict.message[:MESSAGE_CHARACTERS],
    }


def _discovered(found: Discovered | None, previous: Mapping[str, Any], now: float) -> Status:
    fields = ("protocolVersion", "serverInfo", "toolCount", "tools", "lastDiscoveryTime")
    kept = {key: previous[key] for key in fields if key in previous}
    if found is None:
        return kept
    said: Status = {
        "protocolVersion": found.protocol_version,
        "serverInfo": {"name": found.server_name, "version": found.server_version},
        "toolCount": len(found.tools),
        "tools": [
            {"name": tool.name, "description": tool.description, "hash": tool.hash}
            for tool in found.tools[:TOOLS_SHOWN]
        ],
    }
    last = kept.get("lastDiscoveryTime")
    # The time alone is no news: writing it each time would make every discovery a write.
    is_recent = last is not None and now - epoch(last) < RENEW_DISCOVERY_SECONDS
    is_same = all(kept.get(key) == value for key, value in said.items())
    return {**said, "lastDiscoveryTime": last if is_same and is_recent else timestamp(now)}
