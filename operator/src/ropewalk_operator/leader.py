"""The election of the one operator that writes: takes a Lease, renews it in time, gives it up at the end.

It opens the guard that every write asks, and each time only for less than others wait: a leader that cannot renew has
stopped writing well before anybody takes over. Writes nothing but the Lease. docs/adr/0007-leader-election.md says why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ropewalk_operator import lease
from ropewalk_operator.guard import Guard, NotLeading
from ropewalk_operator.kinds import LEASE, Key
from ropewalk_operator.kube import ApiError

logger = logging.getLogger(__name__)

WRITE_SECONDS = 10.0
"""How long after a renewal was sent the leader may write; the rest of the Lease's duration is the margin."""
RENEW_SECONDS = 2.0
RETRY_SECONDS = 0.5
LOOK_SECONDS = 1.0
"""How often a standby looks at the Lease."""
REQUEST_SECONDS = 3.0
SETTLE_SECONDS = 1.0
RELEASE_SECONDS = 1.5
RELEASE_ATTEMPTS = 3


class LeaseLost(Exception):
    """This process leads no more; the message says why."""


class Store(Protocol):
    """What is needed of the connection."""

    async def read_lease(self, namespace: str, name: str, within_seconds: float) -> dict[str, Any] | None:
        """The Lease or None."""

    async def write_lease(
        self, namespace: str, name: str, manifest: Mapping[str, Any], within_seconds: float
    ) -> dict[str, Any]:
        """Create it, or replace the version that the manifest names. ApiError 409 where it has changed since."""


def uptime() -> float:
    """Seconds that nobody sets, and that go on while the process is stopped and the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """One process's part in it. `identity` is its own and of no other process that may live at the same time.

    `clock` is the guard's; `wall_clock` gives seconds since the epoch, for people who look at the Lease.
    """

    def __init__(
        self,
        store: Store,
        guard: Guard,
        place: Key,
        *,
        identity: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._guard = guard
        self._place = place
        self._identity = identity
        self._clock = clock
        self._wall_clock = wall_clock
        self._sight = lease.Sight()
        self._held: lease.Lease | None = None
        self._may_hold = False
        self._vacant: str | None = None
        """The version of a Lease that nobody else held when `look` saw it."""
        self._took: str | None = None
        self._said = ""
        self._refusal = ""

    @property
    def leads(self) -> bool:
        """Whether this process may write just now."""
        return self._guard.is_open

    def problems(self) -> list[str]:
        """Why this process can never lead; what passes by itself is none."""
        return [self._refusal] if self._refusal else []

    @property
    def follows_nobody(self) -> bool:
        """Whether nobody can have led between `look` and this process: it took the very Lease that was free then."""
        return self._vacant is not None and self._took == self._vacant

    async def look(self) -> None:
        """See whether nobody leads just now. Without an answer that is not known."""
        with suppress(ApiError):
            found = await self._read(REQUEST_SECONDS)
            if found is not None and found.holder in ("", self._identity):
                self._vacant = found.version

    async def campaign(self) -> None:
        """Return once this process leads; until then look at the Lease and write nothing."""
        while True:
            try:
                wait = await self._try()
            except ApiError as error:
                self._tell(error)
                wait = LOOK_SECONDS
            if wait <= 0:
                return
            await asyncio.sleep(min(wait, LOOK_SECONDS))

    async def hold(self) -> None:
        """Renew for as long as that works. Raises LeaseLost."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            said: Exception | None = None
            while True:
                try:
                    within = min(REQUEST_SECONDS, self._guard.seconds_left())
                except NotLeading:
                    raise LeaseLost(f"{self._place} could not be renewed for {WRITE_SECONDS:g} s: {said}") from None
                try:
                    await self._renew(within)
                    break
                except ApiError as error:
                    said = error
                    await asyncio.sleep(RETRY_SECONDS)

    async def release(self) -> None:
        """Close the guard and give the Lease up, if this process holds it and none of its writes is under way."""
        is_settled = await self._guard.is_settled(SETTLE_SECONDS)
        if not self._may_hold:
            return
        if not is_settled:
            logger.warning("the Lease is not released: a write has no answer yet", extra=self._fields())
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._give_up()
        except (ApiError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            logger.warning("the Lease is not released: it runs out by itself", extra=self._fields(error=reason))

    async def _try(self) -> float:
        """0 when this process leads now, otherwise the seconds after which that may be."""
        found = await self._read(REQUEST_SECONDS)
        now = self._clock()
        before = self._sight.holder
        self._sight.see(found, now)
        wait = self._sight.wait_seconds(self._identity, now)
        if wait > 0:
            self._said = self._refusal = ""
            if self._sight.holder != before:
                logger.info("standing by", extra=self._fields(leader=self._sight.holder))
            return wait
        if not await self._write(found, REQUEST_SECONDS):
            return RETRY_SECONDS
        self._said = self._refusal = ""
        self._took = found.version if found is not None else None
        logger.info("leading", extra=self._fields(identity=self._identity, before=self._sight.holder))
        return 0.0

    async def _renew(self, within_seconds: float) -> None:
        if await self._write(self._held, within_seconds):
            return
        found = await self._read(within_seconds)
        if found is not None and found.holder != self._identity:
            self._may_hold = False
            self._guard.close()
            raise LeaseLost(f"{self._place} is held by {found.holder or 'nobody'} now")
        # An earlier renewal has arrived though its answer has not; or somebody else has changed or deleted the Lease.
        self._held = found
        raise ApiError(409, "Conflict", f"{self._place} was changed meanwhile")

    async def _write(self, found: lease.Lease | None, within_seconds: float) -> bool:
        """Take or renew what was found; False where that has changed since."""
        manifest = self._manifest(found, lease.held(found, self._identity, self._wall_clock()))
        # Before anything is sent: what others see of it, they see later.
        sent = self._clock()
        self._may_hold = True
        try:
            answer = await self._store.write_lease(self._place.namespace, self._place.name, manifest, within_seconds)
        except ApiError as error:
            # A Lease that cannot be made has not been changed by anybody.
            if error.status == 409 or (error.status == 404 and found is not None):
                return False
            raise
        self._held = lease.lease(answer)
        self._guard.open_until(sent + WRITE_SECONDS)
        return True

    async def _give_up(self) -> None:
        # A renewal that was under way when it was cancelled may come in between.
        for _ in range(RELEASE_ATTEMPTS):
            found = await self._read(REQUEST_SECONDS)
            if found is None or found.holder != self._identity:
                return
            manifest = self._manifest(found, lease.released(found, self._wall_clock()))
            try:
                await self._store.write_lease(self._place.namespace, self._place.name, manifest, REQUEST_SECONDS)
            except ApiError as error:
                if error.status != 409:
                    raise
            else:
                logger.info("the Lease is released", extra=self._fields())
                return

    async def _read(self, within_seconds: float) -> lease.Lease | None:
        body = await self._store.read_lease(self._place.namespace, self._place.name, within_seconds)
        return lease.lease(body) if body is not None else None

    def _manifest(self, found: lease.Lease | None, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": self._place.name, "namespace": self._place.namespace}
        if found is not None:
            metadata |= {"uid": found.uid, "resourceVersion": found.version}
        return {"apiVersion": f"{LEASE.group}/{LEASE.version}", "kind": LEASE.name, "metadata": metadata, "spec": spec}

    def _tell(self, error: ApiError) -> None:
        if error.is_refusal:
            self._refusal = f"{self._place} cannot be used: {error.message}"
        elif error.status == 404:
            advice = "create its namespace, or name another one in ROPEWALK_LEASE_NAMESPACE"
            self._refusal = f"{self._place} cannot be made: {error.message}; {advice}"
        if str(error) != self._said:
            self._said = str(error)
            logger.warning("the Lease cannot be taken", extra=self._fields(error=str(error)))

    def _fields(self, **more: str) -> dict[str, Any]:
        return {"fields": {"lease": f"{self._place.namespace}/{self._place.name}", **more}}
