"""Tool arguments that a stateless client repeats in headers, for proxies to route by: both must say the same.

From MCP 2026-07-28 (basic/transports, custom headers): a property of a tool's input schema that has `x-mcp-header`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ropewalk_mcp_stdio.envelope import decoded_value
from ropewalk_mcp_stdio.jsonrpc import Refusal
from ropewalk_mcp_stdio.protocol import HEADER_MISMATCH

PREFIX = b"mcp-param-"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DECIMAL = re.compile(r"-?[0-9]{1,400}(\.0+)?")


class Mirrored(NamedTuple):
    """One such property: where it is among the arguments, its header without the prefix, and its type."""

    path: tuple[str, ...]
    token: str
    kind: str


def mirrored(schema: Any) -> list[Mirrored]:
    """Return the properties of an input schema that have a header; none where one is declared wrongly."""
    try:
        found = list(_declared(schema, ()))
    except (ValueError, RecursionError):
        return []
    tokens = [each.token.lower() for each in found]
    return found if len(tokens) == len(set(tokens)) else []


def check(declared: list[Mirrored], arguments: Any, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a call whose headers and arguments do not say the same."""
    for each in declared:
        value = arguments
        for key in each.path:
            value = value.get(key) if isinstance(value, dict) else None
        header = f"Mcp-Param-{each.token}"
        raw = headers.get(header.lower().encode())
        expected = _rendered(value)
        if expected is None and raw is None:
            continue
        if raw is None or expected is None or not _same(each.kind, value, expected, decoded_value(raw)):
            problem = f"the header {header} does not match the argument {'.'.join(each.path)}"
            raise Refusal(HEADER_MISMATCH, problem, 400)


def _declared(schema: Any, path: tuple[str, ...]) -> Iterator[Mirrored]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    for name, inner in properties.items():
        if isinstance(inner, dict) and "x-mcp-header" in inner:
            token, kind = inner["x-mcp-header"], inner.get("type")
            if not isinstance(token, str) or not _TOKEN.fullmatch(token):
                raise ValueError(name)
            if kind not in ("string", "integer", "boolean"):
                raise ValueError(name)
            yield Mirrored((*path, name), token, kind)
        yield from _declared(inner, (*path, name))


def _rendered(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _same(kind: str, value: Any, expected: str, seen: str | None) -> bool:
    if seen is None:
        return False
    whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    if kind == "integer" and whole and _DECIMAL.fullmatch(seen):
        return int(seen.partition(".")[0]) == int(value)
    return seen == expected
