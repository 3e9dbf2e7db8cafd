"""Whether the watches are alive, and listings besides theirs.

Each watch begins with a listing, and that fills the cache. Until all kinds have been listed nothing is reconciled: an
MCPServer that has not been read yet is not a missing one, and so a restart writes nothing. A place is a namespace, or
"" for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ropewalk_operator.cache import Cache
from ropewalk_operator.kinds import CONFIG_MAP, WATCHED, Key, Kind
from ropewalk_operator.kube import Kube

WATCH_SECONDS = 240
"""How long one watch request lasts: each new one is a sign of life."""
SILENCE_SECONDS = 600.0

logger = logging.getLogger(__name__)


class Watches:
    """Signs of life of the watches, by kind and place. `clock` gives seconds that never go back."""

    def __init__(self, namespaces: Sequence[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self.places: tuple[str, ...] = tuple(namespaces) or ("",)
        self._has_begun = False
        self._missing = {place: {kind.name for kind in WATCHED} for place in self.places}
        self._seen = {place: self._all_seen_now() for place in self.places}
        """Without the places that are left out."""
        self._begun = {place: asyncio.Event() for place in self.places}
        self._unsettled = set(self.places)
        self._settled = asyncio.Event()

    def begin(self) -> None:
        """The API server answers: what is silent from now on is a problem."""
        self._has_begun = True
        self._seen = {place: self._all_seen_now() for place in self.places}

    def begin_anew(self, place: str) -> None:
        """All watches of a place that was left out begin again."""
        self._missing[place] = {kind.name for kind in WATCHED}
        self._begun[place].clear()

    def on_watch(self, kind: Kind, place: str) -> None:
        """A watch has begun, and all that was listed before it has been taken in."""
        self.on_event(kind, place)
        self._missing[place].discard(kind.name)
        if not self._missing[place]:
            self._begun[place].set()

    def on_event(self, kind: Kind, place: str) -> None:
        """An event has come, or an answer to a listing."""
        # Of a place that is left out nothing is promised until all of it is watched.
        if place in self._seen:
            self._seen[place][kind.name] = self._clock()

    def settle(self, place: str) -> None:
        """All that is in the place is known now."""
        self._seen.setdefault(place, self._all_seen_now())
        self._has_settled(place)

    def leave_out(self, place: str) -> None:
        """Nothing of the place is to be known, and its silence is no problem until it is settled."""
        self._seen.pop(place, None)
        self._has_settled(place)

    async def begun(self, place: str) -> None:
        """Return when every kind is watched in the place."""
        await self._begun[place].wait()

    async def settled(self) -> None:
        """Return when each place has been settled or left out once."""
        await self._settled.wait()

    def ages(self) -> dict[str, float]:
        """Seconds since the last sign of life, by kind: of the place where that is longest ago."""
        now = self._clock()
        return {
            kind.name: now - min((seen[kind.name] for seen in self._seen.values()), default=now) for kind in WATCHED
        }

    def problems(self) -> list[str]:
        """Why the watches cannot be trusted; nothing before they begin."""
        if not self._has_begun:
            return []
        now = self._clock()
        return [
            f"no sign of life of the watch of {kind}{place and f' in namespace {place}'} for {now - seen:.0f} s"
            for place, kinds in self._seen.items()
            for kind, seen in kinds.items()
            if now - seen > SILENCE_SECONDS
        ]

    def missing(self) -> list[str]:
        """The kinds that have not been listed and watched everywhere since the start, which is no problem yet."""
        return sorted(set[str]().union(*(self._missing[place] for place in self._unsettled)))

    def _all_seen_now(self) -> dict[str, float]:
        return {kind.name: self._clock() for kind in WATCHED}

    def _has_settled(self, place: str) -> None:
        self._missing[place].clear()
        self._unsettled.discard(place)
        if not self._unsettled:
            self._settled.set()


async def list_contents(
    cache: Cache, kube: Kube, place: str, concern: Callable[[set[Key]], None] = lambda _keys: None
) -> None:
    """List the operator's own ConfigMaps into the cache: their watch brings no content. See list_into for `concern`."""
    await kube.list_all(CONFIG_MAP, place or None, keep=partial(_take_in, cache, CONFIG_MAP, concern))


async def list_into(
    cache: Cache,
    kube: Kube,
    kinds: Sequence[Kind],
    place: str,
    concern: Callable[[set[Key]], None] = lambda _keys: None,
) -> None:
    """List the kinds in a place into the cache. `concern` is told at once of the keys that each object concerns:
    what the cache has seen is news to nobody any more, also where the rest of the listing fails.
    """

    async def one(kind: Kind) -> None:
        if kind is CONFIG_MAP:
            # And then the names of all: users' prompts may be gone as well.
            await list_contents(cache, kube, place, concern)
        keep = partial(_take_in, cache, kind, concern)
        listed, version = await kube.list_all(kind, place or None, metadata_only=kind is CONFIG_MAP, keep=keep)
        concern(cache.lose_others(kind.name, place or None, {key for key in listed if key is not None}, version))

    # One after the other: pages of all kinds at once would be most of what the operator ever needs of memory.
    for kind in kinds:
        await one(kind)


def _take_in(cache: Cache, kind: Kind, concern: Callable[[set[Key]], None], item: dict[str, Any]) -> Key | None:
    key = None
    try:
        key = Key(kind.name, item["metadata"]["namespace"], item["metadata"]["name"])
        concern(cache.see(kind.name, item))
    except Exception:
        # One object that cannot be understood must not hide the others; what is known of it stays.
        logger.exception("an object was not understood", extra={"fields": {"kind": kind.name}})
    return key
