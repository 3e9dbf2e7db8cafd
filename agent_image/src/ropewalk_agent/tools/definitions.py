"""What /tools tells of each definition that a server listed: enough to name it, and to see that it has changed."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

LONGEST_DESCRIPTION = 1024
"""Characters of a description that are told; the hash covers all of it."""


class Spec(Protocol):
    """A tool as a server lists it."""

    @property
    def name(self) -> str:
        """The server's own name for it."""

    @property
    def description(self) -> str | None:
        """What it is for."""

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of its arguments."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition: the server's name, the beginning of the description, and a hash of the whole."""

    name: str
    description: str
    hash: str


def definitions(specs: Iterable[Spec], blotted: Callable[[str], str]) -> tuple[Definition, ...]:
    """Return what is told of these tools; `blotted` takes secrets out of a text."""
    return tuple(
        Definition(
            spec.name,
            blotted(spec.description or "")[:LONGEST_DESCRIPTION],
            definition_hash(spec.name, spec.description or "", spec.input_schema),
        )
        for spec in specs
    )


def definition_hash(name: str, description: str, input_schema: dict[str, Any]) -> str:
    """Return SHA-256 over the canonical JSON of the three; a missing description counts as an empty one.

    The operator computes the same for servers that it asks itself: tests/contract holds both to the same values.
    """
    canonical = json.dumps([name, description, input_schema], sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
