"""kopf's watch events -> cache and queue; and which namespaces are left out, as their watches are forbidden.

An event never waits for anything: whatever asks the API server has a task of its own.

kopf lists, watches, and begins anew where a watch has ended. Its handlers are not used: they cost a task, a queue and a
memory for each object, more than all that the operator does with most events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

import aiohttp
import kopf
from kopf._cogs.clients.auth import vault_var
from kopf._cogs.clients.watching import Bookmark, WatchingError, infinite_watch
from kopf._cogs.structs.bodies import RawEvent
from kopf._cogs.structs.credentials import Vault
from kopf._cogs.structs.references import NamespaceName, Resource

from ropewalk_operator.cache import Cache
from ropewalk_operator.kinds import WATCHED, Key, Kind
from ropewalk_operator.kube import LIST_TIMEOUT_FACTOR, PAGE, ApiError, Kube
from ropewalk_operator.names import MANAGED_SELECTOR
from ropewalk_operator.patience import Patience
from ropewalk_operator.streams import Backoffs
from ropewalk_operator.watch_session import StaysForbidden
from ropewalk_operator.watches import WATCH_SECONDS, Watches, list_contents

logger = logging.getLogger(__name__)

NOT_UNDERSTOOD = (WatchingError, ValueError, KeyError, TypeError, AttributeError, aiohttp.ClientResponseError)
"""What kopf makes of a watch's errors other than 410, of lines that are no JSON, and of JSON that is no event or no
object; and what aiohttp makes of an answer that is no HTTP."""
ERROR_CHARACTERS = 300
LEFT_OUT_SECONDS = 30.0
"""How long a namespace is left out before its rights are looked at again."""
LEFT_OUT_ADVICE = (
    "nothing is done there until its Role is back, which `helm upgrade` makes; "
    "where the namespace is gone for good, take it out of watchNamespaces"
)


class Watcher:
    """Takes what the watches bring into `cache`, and calls `enqueue` for each resource that it concerns.

    A watch that says nothing for `silence_seconds` begins anew. A namespace where any kind is forbidden is left out as
    a whole, for as long as that lasts, unless it is the last one.
    """

    def __init__(
        self,
        cache: Cache,
        watches: Watches,
        kube: Kube,
        enqueue: Callable[[Key, bool], None],
        patience: Patience,
        *,
        silence_seconds: float,
    ) -> None:
        self._cache = cache
        self._watches = watches
        self._kube = kube
        self._enqueue = enqueue
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()
        self._silence_seconds = silence_seconds
        self._listed: dict[tuple[Kind, str], set[Key]] = {}
        """What the listing under way has brought, by kind and place."""

    def watch(self) -> Collection[asyncio.Task[None]]:
        """Begin to watch; the tasks, none of which ends while watching is possible."""
        session = self._kube.watch_session(self)
        # kopf finds it here, in each task that begins from now on.
        vault_var.set(Vault({"operator": kopf.AiohttpSession(server=self._kube.server, aiohttp_session=session)}))
        chosen = self._settings()
        return [
            asyncio.create_task(self._serve(place, chosen), name=f"watches in {place or 'all namespaces'}")
            for place in self._watches.places
        ]

    def begin_listing(self, kind: Kind, place: str) -> None:
        """The first page of a listing has an answer."""
        self._watches.on_event(kind, place)
        self._listed[kind, place] = set()

    def begin_watch(self, kind: Kind, place: str, version: str) -> None:
        """A watch has begun after this version: with the first one after it, a listing is complete.

        Of what vanished before that, be it since half a listing, no event will tell.
        """
        listed = self._listed.pop((kind, place), None)
        if listed is not None:
            for key in self._cache.lose_others(kind.name, place or None, listed, int(version)):
                self._enqueue(key, False)
        self._watches.on_watch(kind, place)

    def take(self, kind: Kind, place: str, event: RawEvent) -> None:
        """Take in one event of a place's watch or of the listing before it."""
        self._watches.on_event(kind, place)
        if event["type"] == "BOOKMARK":
            return
        take = self._cache.lose if event["type"] == "DELETED" else self._cache.see
        metadata = event["object"]["metadata"]
        changed = Key(kind.name, metadata["namespace"], metadata["name"])
        if (listed := self._listed.get((kind, place))) is not None:
            listed.add(changed)
        before = self._edition(changed)
        concerned = take(kind.name, event["object"])
        is_edit = self._edition(changed) != before
        for key in concerned:
            # What a user has changed goes before the echoes of what the operator and the cluster do.
            self._enqueue(key, is_edit and key == changed)

    def _edition(self, key: Key) -> tuple[str, int] | None:
        """What an edit, a deletion or a new object of the name changes; None of what is no resource."""
        known = self._cache.resources.get(key)
        return (known["metadata"]["uid"], known["metadata"]["generation"]) if known is not None else None

    async def _serve(self, place: str, chosen: kopf.OperatorSettings) -> None:
        while True:
            await self._watch_until_refused(place, chosen)
            for key in self._cache.leave_out(place):
                # They are to be forgotten, and have nothing written.
                self._enqueue(key, False)
            self._watches.leave_out(place)
            while not await self._is_allowed(place):
                pass
            self._watches.begin_anew(place)

    async def _watch_until_refused(self, place: str, chosen: kopf.OperatorSettings) -> None:
        """Return when the place is to be left out. Raises what ends the watching."""
        tasks = [asyncio.create_task(self._follow(kind, place, chosen)) for kind in WATCHED]
        tasks.append(asyncio.create_task(self._fill(place)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
        errors = [error for task in done if (error := task.exception()) is not None]
        error = next((each for each in errors if not isinstance(each, StaysForbidden)), errors[0])
        if not isinstance(error, StaysForbidden) or self._cache.left_out >= set(self._watches.places) - {place}:
            raise error
        if place not in self._cache.left_out:
            fields = {"namespace": place, "error": str(error), "next": LEFT_OUT_ADVICE}
            logger.warning("a namespace is left out", extra={"fields": fields})
        # At once: the others may be refused in this very moment, and one of them is the last.
        self._cache.left_out.add(place)
        await asyncio.wait(tasks)

    async def _fill(self, place: str) -> None:
        """Once every kind is watched, have all known that no watch brings. Raises StaysForbidden."""

        async def fill() -> None:
            async with self._one_at_a_time:
                await list_contents(self._cache, self._kube, place)

        await self._watches.begun(place)
        try:
            await self._patience.ask(fill)
        except ApiError as error:
            if error.status != 403:
                raise
            raise StaysForbidden(str(error)) from error
        self._watches.settle(place)
        if place in self._cache.left_out:
            self._cache.left_out.discard(place)
            logger.info("a namespace is taken up again", extra={"fields": {"namespace": place}})
            for key in [key for key in self._cache.resources if key.namespace == place]:
                self._enqueue(key, False)

    async def _is_allowed(self, place: str) -> bool:
        """Whether all may be listed, a while from now. kopf's own attempts would each be an error in the log."""
        await asyncio.sleep(LEFT_OUT_SECONDS)
        try:
            for kind in WATCHED:
                if not await self._kube.may_list(kind, place):
                    return False
        except Exception:
            # A mere look must not end the watching of the others.
            logger.exception("the rights in a namespace were not understood", extra={"fields": {"namespace": place}})
            return False
        return True

    async def _follow(self, kind: Kind, place: str, chosen: kopf.OperatorSettings) -> None:
        while True:
            try:
                await self._stream(kind, place, chosen)
            except NOT_UNDERSTOOD as error:
                # The listing that follows waits its turn, and ever longer where this happens again and again.
                fields = {"kind": kind.name, "namespace": place, "error": repr(error)[:ERROR_CHARACTERS]}
                logger.warning("a watch was not understood, and begins anew", extra={"fields": fields})

    async def _stream(self, kind: Kind, place: str, chosen: kopf.OperatorSettings) -> None:
        resource = Resource(kind.group, kind.version, kind.plural, namespaced=True)
        namespace = NamespaceName(place) if place else None
        # Nothing is waited for in here: kopf's time limit for a silent watch would cancel that in place of the watch.
        async for event in infinite_watch(settings=chosen, resource=resource, namespace=namespace):
            if isinstance(event, Bookmark):
                continue
            try:
                self.take(kind, place, event)
            except Exception:
                # One object that cannot be understood must not hide the others.
                logger.exception("an event was not understood", extra={"fields": {"kind": kind.name}})

    def _settings(self) -> kopf.OperatorSettings:
        chosen = kopf.OperatorSettings()
        chosen.watching.server_timeout = WATCH_SECONDS
        chosen.watching.chunk_size = PAGE
        chosen.watching.inactivity_timeout = self._silence_seconds
        chosen.networking.request_timeout = self._kube.timeout_seconds * LIST_TIMEOUT_FACTOR
        chosen.networking.connect_timeout = self._kube.timeout_seconds
        chosen.networking.error_backoffs = Backoffs()
        for kind in WATCHED:
            if kind.managed_only:
                chosen.watching.label_selectors[kind.group, kind.version, kind.plural] = MANAGED_SELECTOR
        return chosen
