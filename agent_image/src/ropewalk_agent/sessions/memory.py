"""Sessions in this process's memory: gone with the pod, not shared between replicas. Never touches a disk."""

from collections import OrderedDict
from collections.abc import Callable

from ropewalk_agent.sessions import Message, SessionInfo, SessionKey


class MemorySessions:
    """A SessionStore that forgets sessions `ttl_seconds` after their last turn.

    When `max_sessions` is reached, the least recently used tenth goes at once, so that a store under pressure does not
    evict on every save. The clock returns seconds and must not run backwards.
    """

    def __init__(self, *, ttl_seconds: float, max_sessions: int, clock: Callable[[], float]) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_sessions = max_sessions
        self._clock = clock
        self._sessions: OrderedDict[SessionKey, tuple[float, tuple[Message, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    async def load(self, key: SessionKey) -> tuple[Message, ...]:
        """Return the history, oldest message first; empty for a session that is new or has expired."""
        self.forget_expired()
        _, messages = self._sessions.get(key, (0.0, ()))
        return messages

    async def save(self, key: SessionKey, messages: tuple[Message, ...]) -> None:
        """Keep the history, in place of the one before."""
        self.forget_expired()
        if key not in self._sessions and len(self._sessions) >= self._max_sessions:
            for _ in range(max(1, self._max_sessions // 10)):
                self._sessions.popitem(last=False)
        self._sessions[key] = (self._clock(), messages)
        self._sessions.move_to_end(key)

    async def delete(self, key: SessionKey) -> bool:
        """Forget the session; False if there was none."""
        return self._sessions.pop(key, None) is not None

    async def list(self) -> tuple[SessionInfo, ...]:
        """Return the sessions that have not expired, least recently used first."""
        self.forget_expired()
        return tuple(SessionInfo(key, len(messages), at) for key, (at, messages) in self._sessions.items())

    def forget_expired(self) -> None:
        """Drop what is older than the time to live. The order of use is the order of age, so this stops early."""
        oldest_kept = self._clock() - self._ttl_seconds
        while self._sessions:
            key, (updated_at, _) = next(iter(self._sessions.items()))
            if updated_at >= oldest_kept:
                return
            del self._sessions[key]
