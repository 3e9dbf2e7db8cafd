"""Tool definitions as servers send them -> what is told of them: a hash, or why a definition cannot be used. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from ropewalk_operator.facts import LeftOut, Tool

DESCRIPTION_CHARACTERS = 1024
NAME_CHARACTERS = 256
VERSION_CHARACTERS = 64
HASH_CHARACTERS = 128


def tool(name: str, description: str, input_schema: dict[str, Any]) -> Tool:
    """What is told of a definition."""
    return Tool(
        name[:NAME_CHARACTERS],
        description[:DESCRIPTION_CHARACTERS],
        definition_hash(name, description, input_schema),
    )


def definition_hash(name: str, description: str, input_schema: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the three; a missing description counts as an empty one.

    Agents compute the same: tests/contract holds both to the same values.
    """
    canonical = json.dumps([name, description, input_schema], sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def listed(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """Tools by name; of two with the same name the first, as agents do."""
    named: dict[str, Tool] = {}
    for each in tools:
        named.setdefault(each.name, each)
    return tuple(named[name] for name in sorted(named))


def sifted(page: dict[str, Any]) -> tuple[dict[str, Any], list[LeftOut]]:
    """A raw page of tools/list with the definitions that can be used, and the others: one alone must not spoil all."""
    raw = page.get("tools")
    if not isinstance(raw, list):
        return page, []
    left_out: list[LeftOut] = []
    kept: list[Any] = []
    for number, definition in enumerate(raw):
        if (reason := fault(definition)) is None:
            kept.append(definition)
        else:
            left_out.append(LeftOut(_name(definition, number), reason))
    return {**page, "tools": kept}, left_out


def fault(definition: Any) -> str | None:
    """Why a raw definition cannot be used, or None. Quotes nothing but field names of it.

    Agents look closer, at the schema as a whole; what they leave out on top is in their /tools.
    """
    import mcp_types
    from pydantic import ValidationError

    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str) or not definition["name"]:
        return "it has no name"
    schema = definition.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return "its inputSchema is not of type object"
    try:
        mcp_types.Tool.model_validate(definition, by_name=False)
    except ValidationError as error:
        fields = {".".join(str(part) for part in problem["loc"]) for problem in error.errors(include_input=False)}
        return f"its definition is not valid: {', '.join(sorted(fields))}"[:200]
    return None


def _name(definition: Any, number: int) -> str:
    name = definition.get("name") if isinstance(definition, dict) else None
    return name[:NAME_CHARACTERS] if isinstance(name, str) and name else f"(number {number + 1})"
