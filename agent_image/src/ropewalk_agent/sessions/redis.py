"""Sessions in Redis, shared by all replicas of an agent: any of them goes on with any session. Keeps nothing itself.

Under `ropewalk:{<namespace>/<name>}` there are, for each session, `:session:…` (a hash) and, while a turn runs,
`:lock:…` (a lease); and `:index` and `:user:…`, sorted by last use. The scripts are in redis_scripts.py.
"""

import asyncio
import contextlib
import json
import logging
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ropewalk_agent.errors import AgentError, redacted
from ropewalk_agent.sessions import Message, SessionInfo, SessionKey, redis_scripts
from ropewalk_agent.sessions.coding import decoded, encoded

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = logging.getLogger("ropewalk.sessions")

LEASE_SECONDS = 15.0
"""So long a session stays locked behind a pod that was killed; three renewals fit in."""
_CALL_SECONDS = 2.0
"""A Redis that takes longer for one command counts as one that does not answer."""
_FIRST_POLL_SECONDS = 0.01
_LONGEST_POLL_SECONDS = 0.1
_RELEASE_AGAIN_SECONDS = 0.2


class RedisSessions:
    """A SessionStore for any number of replicas; Redis forgets sessions `ttl_seconds` after their last turn.

    When `max_sessions` is reached, the least recently used tenth goes. `agent` tells the agents apart that share the
    server. `url_file` holds the server's URL, as redis-py takes it (`redis://`, `rediss://` with TLS, `unix://`); it is
    read again when the server refuses a connection. Belongs to the loop on which it is first used.
    """

    def __init__(
        self,
        url_file: Path,
        *,
        agent: str,
        ttl_seconds: float,
        max_sessions: int,
        lease_seconds: float = LEASE_SECONDS,
        call_seconds: float = _CALL_SECONDS,
    ) -> None:
        self._url_file = url_file
        self._prefix = f"ropewalk:{{{agent}}}"
        self._ttl_seconds = ttl_seconds
        self._max_sessions = max_sessions
        self._lease_seconds = lease_seconds
        self._call_seconds = call_seconds
        self._url = ""
        self._client: Redis | None = None
        self._tokens: dict[SessionKey, str] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @asynccontextmanager
    async def lock(self, key: SessionKey, *, wait: bool) -> AsyncIterator[None]:
        """Hold the session against all other replicas by a lease that is renewed; see SessionStore."""
        token = secrets.token_hex(16)
        lease = int(self._lease_seconds * 1000)
        pause = _FIRST_POLL_SECONDS
        renewing: asyncio.Task[None] | None = None
        try:
            while not await self._run(redis_scripts.ACQUIRE, key, token, lease):
                if not wait:
                    raise AgentError("session_busy", "another replica works on the session; ask again, or wait for it")
                await asyncio.sleep(random.uniform(0.5, 1) * pause)
                pause = min(2 * pause, _LONGEST_POLL_SECONDS)
            self._tokens[key] = token
            renewing = asyncio.create_task(self._renew(key, token, lease))
            yield
        finally:
            if renewing is not None:
                renewing.cancel()
                self._tokens.pop(key, None)
            # Also where it was never ours as far as we know: the answer may have been lost on its way.
            released = False
            try:
                released = await self._released(key, token)
            finally:  # also where the turn is cancelled just now
                if not released:
                    task = asyncio.create_task(self._release_later(key, token))
                    self._releasing.add(task)
                    task.add_done_callback(self._releasing.discard)

    async def _released(self, key: SessionKey, token: str) -> bool:
        """Whether Redis has heard that we let go."""
        try:
            await self._run(redis_scripts.RELEASE, key, token)
        except AgentError:
            return False
        return True

    async def _release_later(self, key: SessionKey, token: str) -> None:
        """Let go of a lock once Redis answers again: it may hold a lease by then that it was asked for before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lease_seconds):
                released = False
                while not released:
                    await asyncio.sleep(_RELEASE_AGAIN_SECONDS)
                    released = await self._released(key, token)

    async def _renew(self, key: SessionKey, token: str, lease: int) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            with contextlib.suppress(AgentError):  # once more a third later; `save` finds out if that was too late
                if not await self._run(redis_scripts.RENEW, key, token, lease):
                    _log.warning("a session's lock was lost", extra={"fields": {"session_id": key.session_id}})
                    return

    async def describe(self, key: SessionKey) -> SessionInfo | None:
        """Return what `list` tells of the session; None where there is none."""
        count, created_at, updated_at = await self._call("HMGET", self._keys(key)[1], "count", "created", "updated")
        return None if count is None else SessionInfo(key, int(count), float(created_at), float(updated_at))

    async def load(self, key: SessionKey) -> tuple[Message, ...]:
        """Return the history, oldest message first; empty for a session that is new or has expired."""
        text = await self._call("HGET", self._keys(key)[1], "messages")
        return () if text is None else decoded(text)

    async def save(self, key: SessionKey, messages: tuple[Message, ...]) -> None:
        """Keep the history if the lock is still ours; see SessionStore."""
        token, member, size = self._tokens.get(key, ""), _member(key), len(messages)
        about = (token, member, self._prefix, self._ttl_seconds, self._max_sessions, size, encoded(messages))
        try:
            count = await self._run(redis_scripts.SAVE, key, *about)
        except AgentError as error:
            # The answer may have been lost, and not the command.
            message = f"{error.message}; the turn may have been kept all the same"
            raise AgentError(error.code, message) from None
        if count < 0:
            raise AgentError("session_busy", "another replica took the session over; this turn was not kept, ask again")
        self._count = count

    async def delete(self, key: SessionKey) -> bool:
        """Forget the session; False where there is none."""
        there, self._count = await self._run(redis_scripts.DELETE, key, _member(key))
        return bool(there)

    async def list(self, user_id: str) -> tuple[SessionInfo, ...]:
        """Return the user's sessions, the most recently used first."""
        found = await self._run(redis_scripts.LIST, SessionKey(user_id, ""), self._prefix, self._ttl_seconds)
        return tuple(
            SessionInfo(SessionKey(*json.loads(member)), int(count), float(created_at), float(updated_at))
            for member, count, created_at, updated_at in found
        )

    async def clean_up(self) -> None:
        """Count the sessions; Redis itself forgets what has expired."""
        self._count = await self._run(redis_scripts.CLEAN_UP, SessionKey("", ""), self._ttl_seconds)

    async def problem(self) -> str | None:
        """Return why Redis cannot be used at the moment, or None."""
        try:
            await self._call("PING")
        except AgentError as error:
            return error.message
        return None

    async def close(self) -> None:
        """Close all connections; what could not be released is left to its lease."""
        for task in self._releasing:
            task.cancel()
        await self._disconnect()

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _keys(self, key: SessionKey) -> tuple[str, str, str, str]:
        member = _member(key)
        kinds = (f"lock:{member}", f"session:{member}", "index", f"user:{key.user_id}")
        return tuple(f"{self._prefix}:{kind}" for kind in kinds)  # type: ignore[return-value]

    async def _run(self, script: str, key: SessionKey, *arguments: Any) -> Any:
        """Run one of redis_scripts."""
        return await self._call("EVAL", script, 4, *self._keys(key), *arguments)

    async def _call(self, *command: Any) -> Any:
        """Run one command within the time limit; raises AgentError not_ready with Redis' reason.

        Every command may be sent twice: the client does so on a connection that turns out to be closed.
        """
        from redis.exceptions import ConnectionError as NoConnection  # Redis' own, which is no OSError
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(self._call_seconds):
                client = self._opened()
                try:
                    return await client.execute_command(*command)
                except NoConnection:
                    if not await self._replaced(client):
                        raise
                return await self._opened().execute_command(*command)
        except TimeoutError:
            reason = f"Redis has not answered for {self._call_seconds:g} s"
        except (RedisError, OSError, ValueError) as error:
            reason = redacted(f"{type(error).__name__}: {error}", _secrets(self._url))
        raise AgentError("not_ready", f"the session store cannot be used: {reason}") from None

    def _opened(self) -> Any:
        if self._client is None:
            # Here, on the worker, and only where Redis is used: the import takes 7 MiB.
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            url = self._read_url()
            # Time limits are ours alone: redis-py's would count anew for each attempt.
            limits: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": None}
            try:
                self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 1), **limits)
            except ValueError:
                # Its words may hold a part of the password, where that has a slash and is taken for a port.
                message = f"the URL in {self._url_file} is not valid; in user and password write / as %2F, @ as %40"
                raise ValueError(message) from None
            self._url = url
        return self._client

    def _read_url(self) -> str:
        url = self._url_file.read_text(encoding="utf-8").strip()
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError(f"{self._url_file} does not hold a URL that begins with redis://, rediss:// or unix://")
        return url

    async def _replaced(self, client: "Redis") -> bool:
        """Whether there is another client to try: the mounted file may hold another URL meanwhile."""
        if self._client is client and self._read_url() != self._url:
            _log.info("the URL of Redis has changed; connecting anew")
            await self._disconnect()
        return self._client is not client


def _member(key: SessionKey) -> str:
    return json.dumps(key)


def _secrets(url: str) -> list[str]:
    password = urlsplit(url).password or ""
    return [password, unquote(password)]
