"""Leaves out of a server's listing what would spoil the rest of it, or a whole turn. Knows each reason; decides only.

One definition that is not valid makes the mcp package refuse the whole listing, and one input schema or name that a
model's provider does not take makes the provider refuse the whole request.
"""

import asyncio
import json
import re
from typing import Any

import mcp_types
from mcp.shared.inbound import find_invalid_x_mcp_header
from pydantic import ValidationError

from ropewalk_agent.tools import LeftOut

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the providers take for a tool's name."""
_LONGEST_SCHEMA = 100_000
"""Characters of JSON of a schema that is checked; so many take tenths of a second on the worker's loop."""


class Sieve:
    """One server's. A definition that has not changed is not checked again."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._seen: dict[str, tuple[Any, LeftOut | None]] = {}

    async def sift(self, page: dict[str, Any]) -> tuple[dict[str, Any], tuple[LeftOut, ...]]:
        """Return a page of tools/list (its raw result) with the definitions that can be used, and the others."""
        definitions = page.get("tools")
        if not isinstance(definitions, list):
            return page, ()
        kept: list[Any] = []
        left_out: list[LeftOut] = []
        for number, definition in enumerate(definitions):
            name = _name(definition, number)
            seen = self._seen.get(name)
            if seen is None or seen[0] != definition:
                await asyncio.sleep(0)  # the loop's other work gets a turn: a large schema takes its time
                reason = fault(definition, self._prefix)
                seen = definition, None if reason is None else LeftOut(name, reason)
                self._seen[name] = seen
            if seen[1] is None:
                kept.append(definition)
            else:
                left_out.append(seen[1])
        return {**page, "tools": kept}, tuple(left_out)

    def forget_all_but(self, names: set[str]) -> None:
        """Drop what is kept of tools that are not listed any more."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}


def fault(definition: Any, prefix: str) -> str | None:
    """Return why a raw tool definition cannot be used, or None. Quotes nothing but field names of it."""
    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
        return "it has no name"
    if not _NAME.fullmatch(prefix + definition["name"]):
        return "models take names of 1 to 64 of the characters A-Z a-z 0-9 _ - only (the prefix counts)"
    try:
        mcp_types.Tool.model_validate(definition, by_name=False)
    except ValidationError as error:
        fields = {".".join(str(part) for part in problem["loc"]) for problem in error.errors(include_input=False)}
        return f"its definition is not valid: {', '.join(sorted(fields))}"[:200]
    if definition["inputSchema"].get("type") != "object":
        return "its inputSchema is not of type object"
    problem = _schema_fault(definition["inputSchema"])
    if problem is None and find_invalid_x_mcp_header(definition["inputSchema"]) is not None:
        # The mcp package drops such a tool in the newer era, as the protocol demands, and tells nobody.
        problem = "has an x-mcp-header that is not valid"
    return None if problem is None else f"its inputSchema {problem}"


def _schema_fault(schema: dict[str, Any]) -> str | None:
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        if len(json.dumps(schema)) > _LONGEST_SCHEMA:
            return f"is longer than {_LONGEST_SCHEMA} characters"
        if _refers_elsewhere(schema):
            return "refers to another document, which is not fetched"
        # Not the class for the format that `$schema` names but that of the protocol where it names none that is known.
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        return f"is not a JSON Schema (at {where or 'its top'})"[:200]
    except RecursionError:
        return "is nested too deeply"
    except Exception:
        # The check itself trips over some, such as a `$schema` that is no text or a pattern that cannot be compiled.
        return "is not a JSON Schema"
    return None


def _refers_elsewhere(schema: Any) -> bool:
    """Whether it holds a `$ref` that is not within itself: to check against it would fetch the address."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                return True
            if _refers_elsewhere(value):
                return True
        return False
    return isinstance(schema, list) and any(_refers_elsewhere(item) for item in schema)


def _name(definition: Any, number: int) -> str:
    name = definition.get("name") if isinstance(definition, dict) else None
    return name[:128] if isinstance(name, str) and name else f"(number {number + 1})"
