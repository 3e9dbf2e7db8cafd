"""Sessions in the pod's memory: gone with the pod, not shared between replicas. Never touches a disk."""

import logging
import pickle
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from ropewalk_agent.sessions import Message, SessionInfo, SessionKey

_log = logging.getLogger("ropewalk.sessions")

LARGEST_STORE = 128 * 1024 * 1024
"""Bytes. A pod's default memory limit is 512 MiB."""


class _Kept(NamedTuple):
    created_at: float
    updated_at: float
    messages: int
    history: bytes
    """Pickled: a tenth of what the objects take, and its length is the truth about its cost."""


class MemorySessions:
    """A SessionStore that forgets sessions `ttl_seconds` after their last turn.

    When `max_sessions` is reached, the least recently used tenth goes at once, so that a store under pressure does not
    evict on every save. Above `max_bytes` in all the least recently used go one by one; a session that is larger by
    itself is not kept. The clock returns seconds since the epoch.
    """

    def __init__(
        self,
        *,
        ttl_seconds: float,
        max_sessions: int,
        clock: Callable[[], float] = time.time,
        max_bytes: int = LARGEST_STORE,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._sessions: OrderedDict[SessionKey, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    @asynccontextmanager
    async def lock(self, key: SessionKey, *, wait: bool) -> AsyncIterator[None]:
        """Hold nothing: no other process has these sessions."""
        yield

    async def load(self, key: SessionKey) -> tuple[Message, ...]:
        """Return the history, oldest message first; empty for a session that is new or has expired."""
        self.forget_expired()
        kept = self._sessions.get(key)
        if kept is None:
            return ()
        messages: tuple[Message, ...] = pickle.loads(kept.history)  # noqa: S301 -- nobody but `save` has made it
        return messages

    async def save(self, key: SessionKey, messages: tuple[Message, ...]) -> None:
        """Keep the history, in place of the one before."""
        self.forget_expired()
        now = self._clock()
        created_at = now
        if key in self._sessions:
            created_at = self._sessions[key].created_at
            self._forget(key)
        elif len(self._sessions) >= self._max_sessions:
            for _ in range(max(1, self._max_sessions // 10)):
                self._forget(next(iter(self._sessions)))
        history = pickle.dumps(messages, protocol=pickle.HIGHEST_PROTOCOL)
        size = len(history)
        if size > self._max_bytes:
            fields = {"session_id": key.session_id, "bytes": size, "most_bytes": self._max_bytes}
            _log.warning("a session is too large to be kept", extra={"fields": fields})
            return
        while self._bytes + size > self._max_bytes:
            self._forget(next(iter(self._sessions)))
        self._sessions[key] = _Kept(created_at, now, len(messages), history)
        self._bytes += size

    async def delete(self, key: SessionKey) -> bool:
        """Forget the session; False where there is none."""
        self.forget_expired()
        if key not in self._sessions:
            return False
        self._forget(key)
        return True

    async def describe(self, key: SessionKey) -> SessionInfo | None:
        """Return what `list` tells of the session; None where there is none."""
        self.forget_expired()
        kept = self._sessions.get(key)
        return None if kept is None else SessionInfo(key, kept.messages, kept.created_at, kept.updated_at)

    async def list(self, user_id: str) -> tuple[SessionInfo, ...]:
        """Return the user's sessions, the most recently used first."""
        self.forget_expired()
        return tuple(
            SessionInfo(key, kept.messages, kept.created_at, kept.updated_at)
            for key, kept in reversed(self._sessions.items())
            if key.user_id == user_id
        )

    async def clean_up(self) -> None:
        """Forget what has expired."""
        self.forget_expired()

    async def problem(self) -> str | None:
        """Memory is always there."""
        return None

    async def close(self) -> None:
        """Nothing to let go of."""

    def forget_expired(self) -> None:
        """Drop what is older than the time to live. The order of use is the order of age, so this stops early."""
        oldest_kept = self._clock() - self._ttl_seconds
        while self._sessions:
            key, kept = next(iter(self._sessions.items()))
            if kept.updated_at >= oldest_kept:
                return
            self._forget(key)

    def _forget(self, key: SessionKey) -> None:
        self._bytes -= len(self._sessions.pop(key).history)
