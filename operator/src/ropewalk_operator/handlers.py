"""kopf's watch events -> cache and queue. Nothing else happens here, so that an event never waits for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import kopf
from kopf._core.engines.peering import Identity

from ropewalk_operator.cache import Cache
from ropewalk_operator.kinds import OWNERS, WATCHED, Key, Kind
from ropewalk_operator.kube import Kube
from ropewalk_operator.names import MANAGED_SELECTOR
from ropewalk_operator.watches import WATCH_SECONDS, Watches


class NoDiffBase(kopf.DiffBaseStorage):
    """kopf copies each object to compare it with an earlier self, for handlers that the operator does not have."""

    def build(self, **_: Any) -> Any:
        """No copy."""
        return {}

    def fetch(self, **_: Any) -> None:
        """No earlier self."""

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


def registry(cache: Cache, watches: Watches, kube: Kube, enqueue: Callable[[Key, bool], None]) -> kopf.OperatorRegistry:
    """The handlers of every watched kind, and the login by which kopf shares the operator's credentials."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=kube.server, aiohttp_session=kube.watch_session(watches.on_request))

    for kind in WATCHED:
        _watch(handlers, kind, cache, watches, enqueue)
    return handlers


def _watch(
    handlers: kopf.OperatorRegistry, kind: Kind, cache: Cache, watches: Watches, enqueue: Callable[[Key, bool], None]
) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=handlers)
    async def seen(event: Mapping[str, Any], **_: Any) -> None:
        watches.on_event(kind.name)
        take = cache.lose if event["type"] == "DELETED" else cache.see
        for key in take(kind.name, event["object"]):
            # What a user has changed goes before the echoes of what the operator and the cluster do.
            enqueue(key, kind in OWNERS)


async def watch(
    *, registry: kopf.OperatorRegistry, namespaces: Sequence[str], identity: str
) -> Collection[asyncio.Task[Any]]:
    """Begin to watch all namespaces or only these.

    Returns kopf's tasks, none of which ever ends while watching is possible. Sets signal handlers of kopf's own.
    """
    return await kopf.spawn_tasks(
        registry=registry,
        settings=watcher_settings(),
        identity=Identity(identity),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
    )


def watcher_settings() -> kopf.OperatorSettings:
    """kopf as a mere watcher: no scanning, no peering, no posts, no copies, and out quickly."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.queueing.idle_timeout = 1.0
    chosen.queueing.exit_timeout = 0.1
    chosen.watching.server_timeout = WATCH_SECONDS
    chosen.watching.chunk_size = 500
    chosen.networking.error_backoffs = (0.5, 1, 2, 4, 8)
    for kind in WATCHED:
        if kind.managed_only:
            chosen.watching.label_selectors[kind.group, kind.version, kind.plural] = MANAGED_SELECTOR
    return chosen
