"""What all resources are made of: frozen values, references, and the sentences that say what is wrong with them.

Never knows a field of a certain resource.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel


class InvalidSpec(Exception):
    """The resource cannot be used; the message names each field, the value seen and what is allowed."""


class Value(BaseModel):
    """A part of a spec, named as in the CRD."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class KeyRef(Value):
    """A key of a ConfigMap or Secret in the namespace of the resource."""

    name: str
    key: str


class Name(Value):
    """A reference by name only."""

    name: str


class ToolFilter(Value):
    """Names of the tools that an agent sees of a server; `allow` None means all."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    def within(self, other: ToolFilter) -> ToolFilter:
        """What both let through: allow by both, denied by either."""
        allow = self.allow
        if other.allow is not None:
            allow = other.allow if allow is None else tuple(name for name in allow if name in other.allow)
        return ToolFilter(allow=allow, deny=tuple(dict.fromkeys((*self.deny, *other.deny))))

    def admits(self, tool: str) -> bool:
        """Whether the tool of this name may be shown and called."""
        return tool not in self.deny and (self.allow is None or tool in self.allow)


def check_url(field: str, url: str) -> None:
    """Raise ValueError where `url` is no HTTP address."""
    parts = urlsplit(url)
    try:
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise ValueError(f"{field} is {url!r}; use http:// or https://, a host and an optional path")


def sentences(error: ValidationError) -> str:
    """Every problem with its place, the value seen where it is short, and what is allowed."""
    return "; ".join(_sentence(problem) for problem in error.errors(include_url=False, include_context=False))


def _sentence(problem: Any) -> str:
    place = ".".join(["spec", *(str(part) for part in problem["loc"])])
    text = problem["msg"].removeprefix("Value error, ")
    seen = problem["input"]
    # A value is shown where it is short: a whole object would bury what is wrong with it.
    is_short = isinstance(seen, str | int | float | bool) and problem["type"] != "value_error"
    return f"{place}{f' is {seen!r}' if is_short else ''}: {text[:1].lower() + text[1:]}"
