"""What has changed between two statuses that is worth a Kubernetes Event. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

NAMED = 20
NO_PODS_WANTED = frozenset({"ScaledToZero", "Suspended"})
"""Reasons of what is not Ready because a user wants no pods of it."""
AS_ASKED = NO_PODS_WANTED | {"Progressing"}
"""Reasons of what a user has asked for, or that takes its time: no warnings."""
PASSING = AS_ASKED | {"McpServerNotReady", "NeedsAnAgent", "NotReady", "Pending", "WaitingForDeletion"}
"""Reasons that many go through on their way to their first Ready=True: news only for what was ready before."""


def news(previous: Mapping[str, Any], new: Mapping[str, Any], corrected: Collection[str]) -> list[tuple[str, str, str]]:
    """What is worth a Kubernetes Event, as (type, reason, message): transitions only.

    `corrected`: what was put back as the spec wants it.
    """
    told: list[tuple[str, str, str]] = []
    old = {c["type"]: c for c in previous.get("conditions") or ()}
    for condition in new["conditions"]:
        former = old.get(condition["type"], {})
        is_false = condition["status"] == "False"
        moved = former.get("status") != condition["status"] or (
            is_false and former.get("reason") != condition["reason"]
        )
        if not moved or condition["type"] not in ("Accepted", "Ready"):
            continue
        is_lasting = condition["reason"] not in PASSING
        if is_false and (condition["type"] == "Accepted" or former.get("status") == "True" or is_lasting):
            type_ = "Normal" if condition["reason"] in AS_ASKED else "Warning"
            told.append((type_, condition["reason"], condition["message"]))
        elif condition["type"] == "Ready" and condition["status"] == "True":
            told.append(("Normal", "Ready", condition["message"]))
    if (tools := tool_news(previous, new)) is not None:
        told.append(("Normal", *tools))
    if corrected:
        told.append(("Normal", "DriftCorrected", f"put back as the spec wants it: {', '.join(sorted(corrected))}"))
    return told


def tool_news(previous: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and message of the Event that tells of the tools in a new status, or None where they are the same.

    A status holds the first tools by name and the number of all. What lies behind the end of either list is not
    compared: it would look added or removed where it only moved.
    """
    old_tools, new_tools = _hashes(previous), _hashes(new)
    old_count, new_count = previous.get("toolCount"), new.get("toolCount")
    if (old_tools, old_count) == (new_tools, new_count) or new_count is None:
        return None
    if old_count is None:
        return "ToolsDiscovered", f"{_count(new_count)}: {_named(new_tools)}" if new_tools else "no tools"
    ends = [max(tools) for tools, count in ((old_tools, old_count), (new_tools, new_count)) if len(tools) < count]
    end = min(ends) if ends else None
    old_seen, new_seen = (
        {n: h for n, h in tools.items() if end is None or n <= end} for tools in (old_tools, new_tools)
    )
    told = {
        "added": [name for name in new_seen if name not in old_seen],
        "removed": [name for name in old_seen if name not in new_seen],
        "changed": [name for name in new_seen if name in old_seen and old_seen[name] != new_seen[name]],
    }
    said = [f"{what} {_named(names)}" for what, names in told.items() if names]
    if old_count != new_count:
        said.append(f"{_count(new_count)} now, {old_count} before")
    return ("ToolsChanged", "; ".join(said)) if said else None


def _hashes(status: Mapping[str, Any]) -> dict[str, str]:
    return {tool["name"]: str(tool.get("hash")) for tool in status.get("tools") or ()}


def _count(number: int) -> str:
    return "1 tool" if number == 1 else f"{number} tools"


def _named(names: Iterable[str]) -> str:
    all_names = list(names)
    more = len(all_names) - NAMED
    return ", ".join(all_names[:NAMED]) + (f" and {more} more" if more > 0 else "")
