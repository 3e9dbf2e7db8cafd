"""Tools of one Agent that have the same name for its model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Clash:
    """A name that more than one place offers; the first one's tool is used."""

    tool: str
    places: tuple[str, ...]
    """MCPServers and, as an empty text, the agent's local tools."""


LOCAL = ""


def clashes(local_tools: Iterable[str], tools_of_servers: Mapping[str, Iterable[str]]) -> tuple[Clash, ...]:
    """The clashes among names as the model would see them, so with prefixes and without what filters hide.

    Names that differ only in - and _ count as equal, as they do for agents.
    """
    places: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for place, names in {LOCAL: local_tools, **tools_of_servers}.items():
        for name in names:
            plain = name.replace("-", "_")
            shown.setdefault(plain, name)
            known = places.setdefault(plain, [])
            if place not in known:
                known.append(place)
    return tuple(Clash(shown[plain], tuple(each)) for plain, each in places.items() if len(each) > 1)
