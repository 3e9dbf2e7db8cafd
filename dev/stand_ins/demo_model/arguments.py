"""Fills the parameters of a tool, given as JSON Schema, from a text. Pure."""

import re
from dataclasses import dataclass
from typing import Any

from demo_model import promql
from demo_model.dates import MONTHS, span
from demo_model.schema import Json, kind, resolved
from demo_model.words import STOP_WORDS, name_parts, numbers, words


@dataclass(frozen=True)
class Previous:
    """Stands for the number that the step before gave."""


PREVIOUS = Previous()

_VALUE = r"[\"'`“]?([A-Za-z0-9][\w./-]*)[\"'`”]?"
_QUOTED = re.compile(r"`([^`]+)`|[\"“]([^\"”]+)[\"”]|(?<!\w)'([^']+)'")
# Parameters that take the name of a thing: a whole sentence would never be one.
_IDENTIFIERS = frozenset({"name", "namespace", "pod", "container", "node", "service", "deployment", "id"})
_PLACES = frozenset({"place", "location", "city"})
_PLACE = re.compile(r"\b(?:in|for|at|of|near|around|from)\s+((?:[A-Z][\w'’.-]*)(?:,?\s+[A-Z][\w'’.-]*)*)")
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
# What is done to one thing, so that it is meant only where one is named.
_TO_ONE = frozenset({"get", "describe", "delete"})
# An object that must hold one of its own kind would never end.
_MOST_OBJECTS = 4
_HINTS = {
    "list": {"which", "what", "list", "show", "many", "all"},
    "describe": {"why", "explain", "detail", "details", "events", "wrong"},
    "delete": {"remove", "kill", "restart"},
    "get": {"status", "inspect", "state"},
}


def filled(schema: Json, text: str, *, has_previous: bool, level: int = 1) -> tuple[Json, list[str]]:
    """Return the arguments that the text gives, and the required parameters that it does not; of a sound schema.

    With has_previous one number that the text lacks is taken from the step before (PREVIOUS).
    """
    properties: Json = schema.get("properties", {})
    required = set(schema.get("required", []))
    found = numbers(text)
    wanted = [name for name, part in properties.items() if name in required and kind(part, schema) in _NUMERIC]
    values: list[int | float | Previous] = list(found[: len(wanted)])
    if has_previous and len(values) == len(wanted) - 1:
        # "subtract it from 100" names the second first.
        at_end = re.search(r"\b(?:it|that|this|the result)\s+from\b", text, re.IGNORECASE)
        values.insert(len(values) if at_end else 0, PREVIOUS)
    arguments: Json = {}
    missing = []
    for name, part in properties.items():
        if name in wanted:
            value: Any = values.pop(0) if values else None
        else:
            means = resolved(part, schema)
            value = _value(name, means, schema, text, is_required=name in required, so_far=arguments, level=level)
        if value is not None:
            arguments[name] = value
        elif name in required:
            missing.append(name)
    return arguments, missing


_NUMERIC = ("number", "integer")


def _value(name: str, part: Json, root: Json, text: str, *, is_required: bool, so_far: Json, level: int) -> Any:
    value: Any = None
    if options := part.get("enum"):
        return _option(options, text, is_required, names_one=_names_one(root, text))
    match kind(part, root):
        case "number" | "integer":
            value = _measured(name, text)
        case "boolean":
            value = True if name_parts(name) & set(words(text)) else (False if is_required else None)
        case "array" if is_required:
            numeric = kind(part.get("items", {}), root) in _NUMERIC
            value = numbers(text) if numeric else [_quoted(text) or text.strip()]
        case "object" if is_required and level < _MOST_OBJECTS:
            value = filled({"$defs": root.get("$defs", {}), **part}, text, has_previous=False, level=level + 1)[0]
        case "string":
            if takes_promql(name, part):
                value = _quoted(text) or promql.expression(text)
            else:
                value = _text(name, text, is_required, so_far)
    return value


def takes_promql(name: str, part: Json) -> bool:
    """Tell whether a parameter is for a query of Prometheus."""
    return "promql" in f"{name} {part.get('description', '')}".lower()


def names_namespace(text: str) -> bool:
    """Tell whether a text names a namespace of Kubernetes, which is a word in small letters after in or from."""
    found = _identifier("namespace", frozenset({"namespace"}), text, {})
    return found is not None and found == found.lower()


def _names_one(root: Json, text: str) -> bool:
    return any(
        name_parts(name) & _IDENTIFIERS - {"namespace"} and _identifier(name, name_parts(name), text, {})
        for name in root.get("properties", {})
    )


def _option(options: list[Any], text: str, is_required: bool, *, names_one: bool) -> Any:
    said = words(text)
    for word in said:
        for option in options:
            if str(option).lower() == word:
                return option
    hinted = [option for option in options if _HINTS.get(str(option).lower(), set()) & set(said)]
    to_one = [option for option in hinted if str(option).lower() in _TO_ONE]
    fitting = to_one if names_one and to_one else [option for option in hinted if option not in to_one]
    if fitting:
        return fitting[0]
    return options[0] if is_required else None


def _measured(name: str, text: str) -> int | None:
    """Return the number beside a word of the name: `20 lines` for tail_lines, `5 minutes` for since_seconds."""
    parts = name_parts(name)
    for amount, unit in re.findall(r"(?<!\d)(\d{1,9})\s+([A-Za-z]+)", text):
        singular = unit.lower().removesuffix("s")
        if "second" in parts and singular in _UNITS:
            return int(amount) * _UNITS[singular]
        if singular in parts:
            return int(amount)
    return None


def _quoted(text: str) -> str | None:
    found = _QUOTED.search(text)
    return next(group for group in found.groups() if group) if found else None


def _text(name: str, text: str, is_required: bool, so_far: Json) -> str | None:
    parts = name_parts(name)
    if parts & _IDENTIFIERS:
        return _identifier(name, parts, text, so_far)
    days = span(text) if parts & {"date", "start", "end"} else None
    known = days[1 if "end" in parts else 0].isoformat() if days else _place(text) if parts & _PLACES else None
    if known:
        return known
    spoken = re.escape(name).replace("_", "[ _-]")
    if found := re.search(rf"\b{spoken}\s*(?:=|:|\bis\b|\bof\b)?\s*[\"'`]?([\w./=,-]+)", text, re.IGNORECASE):
        return found[1].rstrip(".,")
    if not is_required:
        return None
    if quoted := _quoted(text):
        return quoted
    subject = re.search(r"\b(?:in|for|about|of|on)\s+(?:the\s+)?([^?.!,;]+)", text, re.IGNORECASE)
    return subject[1].strip() if subject else text.strip()


def _place(text: str) -> str | None:
    """Return the capitalised words after a preposition, as in `the weather in New York`; a month is no place."""
    found = (match[1] for match in _PLACE.finditer(text))
    return next((place.rstrip(".,") for place in found if place.split()[0].rstrip(".,").lower() not in MONTHS), None)


def _identifier(name: str, parts: frozenset[str], text: str, so_far: Json) -> str | None:
    if "namespace" in parts:
        patterns = [rf"\bnamespace\s+{_VALUE}", rf"{_VALUE}\s+namespace\b", rf"\b(?:in|from)\s+(?:the\s+)?{_VALUE}"]
    else:
        kind = "|".join(sorted(re.escape(part) for part in (parts - {"name", "id"}) or {"pod", "name"}))
        patterns = [
            rf"\b(?:{kind}|called|named)\s+{_VALUE}",
            rf"(?<![\w-])([a-z0-9]+(?:-[a-z0-9]+)+)\s+(?:{kind})\b",
        ]
        if not parts & {"container"}:
            patterns += [r"(?<![\w./-])([a-z0-9]+(?:[-.][a-z0-9]+)+)(?![\w/])"]
            patterns += [rf"\b(?:logs?|describe|delete)\s+(?:(?:of|from|for)\s+)?(?:the\s+)?{_VALUE}"]
    # A value has one meaning: what is the namespace is not the pod too. The namespace may be written after the pod.
    taken = {str(value) for value in so_far.values()}
    if "namespace" not in parts and (namespace := _identifier("namespace", frozenset({"namespace"}), text, {})):
        taken.add(namespace)
    for pattern in patterns:
        for found in re.finditer(pattern, text, re.IGNORECASE):
            value = found[1].rstrip(".,")
            if value.lower() not in STOP_WORDS | _NO_NAMES and value not in taken and not value.isdecimal():
                return value
    return None


_NEVER_NAMES = (
    "pod pods namespace namespaces log logs container containers cluster node nodes detail details last "
    "latest first each every other same here"
)
_NO_NAMES = frozenset(_NEVER_NAMES.split())
