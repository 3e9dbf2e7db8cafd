"""Facts -> the status of an Agent, MCPServer or Model. Pure; it never claims a generation that was not judged.

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
LEFT_OUT_NAMED = 5
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
        Verdict("Ready", f"answers at {facts.url}", "True"),
        previous,
        now,
    )
    used = {"model": facts.model} if facts.model else {}
    return {**_common(facts), **used, "conditions": conditions}


def mcp_status(facts: Facts, previous: Mapping[str, Any], now: float) -> Status:
    """The status of an MCPServer; what was discovered before is kept until something newer is known."""
    found = _discovered(facts.discovered, previous, now)
    count = found.get("toolCount", 0)
    tools_said = "1 tool" if count == 1 else f"{count} tools"
    if facts.discovered is not None:
        listed = _listed(facts.discovered)
    else:
        # After a restart of the operator nothing else is known than what it said before.
        listed = _former_message(previous, "ToolsDiscovered") or f"the server listed {tools_said}"
    ready = Verdict("Ready", f"{tools_said} at {facts.url}", "True")
    if not found and facts.needs_agent:
        # Whoever waits for the server before making the Agent would wait for ever.
        ready = Verdict(checks.NEEDS_AN_AGENT, f"at {facts.url}; its tools are known once an Agent uses it", "True")
    available = "the server runs elsewhere" if facts.remote else _pods_said(facts)
    conditions = _conditions(
        facts,
        [
            ("Accepted", checks.ACCEPTED, "Accepted", "the spec is right"),
            ("Available", checks.AVAILABLE, "Remote" if facts.remote else "Available", available),
            ("ToolsDiscovered", checks.TOOLS_DISCOVERED, "ToolsListed", listed),
        ],
        ready,
        previous,
        now,
    )
    return {**_common(facts), **found, "conditions": conditions}


def blocked_deletion_status(kind: str, metadata: Mapping[str, Any], previous: Mapping[str, Any], now: float) -> Status:
    """The status of what was deleted some time ago and is still there: it says why, and else what it said before.

    The other conditions stay those of the generation before the deletion: they are not judged any more.
    """
    verdict = checks.deletion_is_blocked(metadata.get("finalizers") or (), kind, metadata["name"])
    conditions = list(previous.get("conditions") or ())
    former = next((c for c in conditions if c["type"] == "Ready"), None)
    ready = _condition("Ready", verdict, metadata["generation"], former, now)
    return {**previous, "conditions": [*(c for c in conditions if c is not former), ready]}


def model_status(facts: Facts, previous: Mapping[str, Any], now: float) -> Status:
    """The status of a Model. It has no pods: whether its provider answers, the Agents that use it find out."""
    conditions = _conditions(
        facts,
        [("Accepted", checks.ACCEPTED, "Accepted", "the spec is right")],
        Verdict("Ready", "the spec is right; whether the provider answers, the Agents that use it tell", "True"),
        previous,
        now,
    )
    return {"observedGeneration": facts.generation, "conditions": conditions}


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Status | None:
    """A merge patch that turns the old status into the new one, or None when they are equal."""
    if old == new:
        return None
    gone = {key: None for key in old if key not in new}
    return {**gone, **{key: value for key, value in new.items() if old.get(key) != value}}


def _pods_said(facts: Facts) -> str:
    said = f"{facts.fresh_ready} of {facts.replicas} pods of this spec are ready"
    return f"{said}; its autoscaler leaves it at that: {facts.autoscaler_idle}" if facts.autoscaler_idle else said


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
    facts: Facts, rows: list[Row], ready: Verdict, previous: Mapping[str, Any], now: float
) -> list[dict[str, Any]]:
    former = {c["type"]: c for c in previous.get("conditions") or ()}
    conditions: list[dict[str, Any]] = []
    found: list[Verdict] = []
    for type_, ordered, true_reason, true_message in rows:
        verdict = checks.first(ordered, facts)
        if verdict is not None and verdict.reason != checks.NEEDS_AN_AGENT:
            found.append(verdict)
        judged = verdict or Verdict(true_reason, true_message, "True")
        conditions.append(_condition(type_, judged, facts.generation, former.get(type_), now))
    # What is known to be wrong says more than what is not known yet.
    first = next((verdict for verdict in found if verdict.status == "False"), found[0] if found else None)
    summary = Verdict(first.reason, first.message) if first else ready
    conditions.append(_condition("Ready", summary, facts.generation, former.get("Ready"), now))
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


def _former_message(previous: Mapping[str, Any], type_: str) -> str | None:
    former = next((c for c in previous.get("conditions") or () if c["type"] == type_), None)
    return former["message"] if former is not None and former["status"] == "True" else None


def _listed(found: Discovered) -> str:
    count = len(found.tools) + found.hidden
    said = ["the server listed 1 tool" if count == 1 else f"the server listed {count} tools"]
    if found.hidden:
        said.append(f"spec.tools keeps {found.hidden} of them from agents")
    if found.unknown:
        quoted = ", ".join(f'"{name}"' for name in found.unknown)
        said.append(f"spec.tools.allow names {quoted}, which it did not list")
    if len(found.tools) > TOOLS_SHOWN:
        said.append(f"status.tools holds the first {TOOLS_SHOWN}")
    if found.left_out:
        named = ", ".join(f"{each.name} ({each.reason})" for each in found.left_out[:LEFT_OUT_NAMED])
        more = len(found.left_out) - LEFT_OUT_NAMED
        said.append(f"left out, because they cannot be used: {named}" + (f" and {more} more" if more > 0 else ""))
    if found.note:
        said.append(found.note)
    return "; ".join(said)


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
