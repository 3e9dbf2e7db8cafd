"""Has MCP servers' tools listed in the background, by themselves or by agents that use them, and remembers the answers.

A server is asked when its ready pods or its address change, again after a failure with backoff, and now and then.
Never writes anything: whoever is interested is told by a callback that an answer has come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ropewalk_operator.facts import Discovered
from ropewalk_operator.kinds import Key

logger = logging.getLogger(__name__)

TIME_LIMIT_SECONDS = 5.0
"""Of a whole listing; agents give a connection as long."""
LAST_RESORT_SECONDS = 30.0
"""Who asks keeps to the limit by himself; this is for the day on which he does not."""
REPORTS_SECONDS = 60.0
"""Agents tell what they see of a server now and then: no watch brings it."""
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 60.0
AT_ONCE = 16
REASON_CHARACTERS = 500


class ListingError(Exception):
    """There are no tools to tell of; the message says why."""


class NotYetKnown(Exception):
    """Nobody can say anything of the tools yet, good or bad."""


@dataclass(frozen=True)
class AgentPod:
    """A running pod of an Agent that uses the server."""

    agent: str
    ip: str


@dataclass(frozen=True)
class Target:
    """Whom to ask: the server at its `url`, or `agents` that use it.

    `fingerprint` changes when what stands behind the address does; `config` when the server's spec does.
    """

    name: str
    fingerprint: str
    config: str
    url: str = ""
    ca_bundle: str | None = None
    final_address: str = "spec.remote.url"
    """The field that a redirected address belongs into."""
    agents: tuple[AgentPod, ...] = ()


@dataclass(frozen=True)
class View:
    """What is known of a server's tools just now."""

    discovered: Discovered | None = None
    error: str | None = None
    pending: bool = True
    next_in_seconds: float | None = None


@dataclass
class _Record:
    target: Target | None = None
    task: asyncio.Task[None] | None = None
    due: float = 0.0
    failures: int = 0
    config: str | None = None
    discovered: Discovered | None = None
    error: str | None = None


Ask = Callable[[Target], Awaitable[Discovered]]
"""Raises ListingError or NotYetKnown; whatever else it raises is told as a failure."""


class Discovery:
    """One for the process. `ask` and `clock` (seconds, never going back) are arguments so that tests need no server."""

    def __init__(
        self, tell: Callable[[Key], None], *, every_seconds: float, clock: Callable[[], float], ask: Ask
    ) -> None:
        self._tell = tell
        self._every = every_seconds
        self._clock = clock
        self._ask = ask
        self._records: dict[Key, _Record] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def look(self, key: Key, target: Target | None) -> View:
        """What is known; asks in the background where that is due. Without a target (no ready pod) nothing is asked."""
        record = self._records.setdefault(key, _Record())
        now = self._clock()
        if target is not None and record.task is None:
            is_other = record.target is None or record.target.fingerprint != target.fingerprint
            if is_other:
                record.failures = 0
            if is_other or now >= record.due:
                record.target = target
                record.task = asyncio.create_task(self._run(key, record, target), name=f"discovery of {key}")
        next_in = None if target is None or record.task is not None else max(record.due - now, 0.0)
        is_current = record.config is not None and (target is None or record.config == target.config)
        return View(record.discovered, record.error, False, next_in) if is_current else View(next_in_seconds=next_in)

    def known(self, key: Key) -> Discovered | None:
        """The last answer, also of a spec that is over; None after a restart until there is one."""
        record = self._records.get(key)
        return record.discovered if record is not None else None

    def forget(self, key: Key) -> None:
        """The server is gone."""
        record = self._records.pop(key, None)
        if record is not None and record.task is not None:
            record.task.cancel()

    async def _run(self, key: Key, record: _Record, target: Target) -> None:
        is_known = True
        try:
            async with self._gate, asyncio.timeout(LAST_RESORT_SECONDS):
                record.discovered = await self._ask(target)
            record.error = None
            record.failures = 0
            record.due = self._clock() + (min(self._every, REPORTS_SECONDS) if target.agents else self._every)
        except NotYetKnown:
            is_known = False
            self._put_off(record)
        except Exception as error:
            # Whatever a foreign server and its protocol can do wrong ends up in the condition's message.
            said = (str(error) or type(error).__name__)[:REASON_CHARACTERS]
            record.error = f"tools/list at {target.url} failed: {said}" if target.url else said
            self._put_off(record)
            logger.info("tools were not listed", extra={"fields": {"server": str(key), "error": record.error}})
        finally:
            record.task = None
        if is_known:
            record.config = target.config
        self._tell(key)

    def _put_off(self, record: _Record) -> None:
        record.due = self._clock() + min(FIRST_RETRY_SECONDS * float(2 ** min(record.failures, 10)), LAST_RETRY_SECONDS)
        record.failures += 1
