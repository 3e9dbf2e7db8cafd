"""Sessions as files on a volume, one each: they survive a restart of the pod. Never touches the disk on the loop.

A user's sessions are in a folder of their own. Both names are hashes, so that any user_id and session_id will do:

    <directory>/<hash of user_id>/<hash of session_id>.json    the session: a line about it, then sessions.coding
                                                     .json.part while it is written; renamed when it is on the disk
                                                     .torn    a file that could not be read, set aside for people
                                                     .lock    while a turn of the session runs

A file's modification time is the session's last use.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ropewalk_agent.errors import AgentError
from ropewalk_agent.sessions import Message, SessionInfo, SessionKey
from ropewalk_agent.sessions.coding import decoded, encoded

_log = logging.getLogger("ropewalk.sessions")

ResultT = TypeVar("ResultT")

_TORN_KEPT_SECONDS = 7 * 24 * 3600.0
_LOCK_POLL_SECONDS = 0.02
_THREADS = 4
_DISK_SECONDS = 5.0
"""A disk that takes longer for one operation counts as one that does not answer."""
_CHECK_SECONDS = 3.0
"""A disk that takes longer to write an empty file is not to be used."""


class _Head(NamedTuple):
    """The first line of a session's file."""

    user_id: str
    session_id: str
    created_at: float
    messages: int
    checksum: int


class FileSessions:
    """A SessionStore that forgets sessions `ttl_seconds` after their last turn, the least recently used tenth if full.

    Processes that share the directory keep out of each other's way by flock, which dies with its holder. The clock
    returns seconds since the epoch. Every method raises AgentError not_ready, with the system's words, where the disk
    is full, cannot be used or does not answer in time.
    """

    def __init__(
        self, directory: Path, *, ttl_seconds: float, max_sessions: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._ttl_seconds = ttl_seconds
        self._max_sessions = max_sessions
        self._clock = clock
        self._count = 0
        self._counting = asyncio.Lock()  # one new session at a time, so that the count is right
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ropewalk-sessions")
        self._changes: dict[SessionKey, Future[Any]] = {}  # the latest of each session that is locked here

    def __len__(self) -> int:
        return self._count

    @asynccontextmanager
    async def lock(self, key: SessionKey, *, wait: bool) -> AsyncIterator[None]:
        """Hold the session against other processes on the same directory; see SessionStore."""
        path = self._path(key).with_suffix(".lock")
        while (held := await self._locked(path)) is None:
            if not wait:
                raise AgentError("session_busy", "another pod works on the session; ask again, or wait for it")
            await asyncio.sleep(_LOCK_POLL_SECONDS * random.uniform(0.5, 1.5))
        try:
            yield
        finally:
            # Even where the turn is cancelled just now or the disk hangs; and never before a change that still hangs,
            # which would undo what the next turn saves.
            released = self._threads.submit(_release, self._changes.pop(key, None), path, held)
            await asyncio.wait([asyncio.wrap_future(released)], timeout=_DISK_SECONDS)

    async def _locked(self, path: Path) -> int | None:
        """Return the descriptor of a lock that is ours from now on, or None."""
        attempt = self._threads.submit(_try_lock, path)
        try:
            async with _in_time():
                return await _outcome(attempt)
        except BaseException:
            # The thread goes on and may get the lock, of which nobody would know any more.
            attempt.add_done_callback(partial(self._let_go, path))
            raise

    def _let_go(self, path: Path, attempt: Future[int | None]) -> None:
        if not attempt.cancelled() and attempt.exception() is None and (held := attempt.result()) is not None:
            self._threads.submit(_release, None, path, held)

    async def describe(self, key: SessionKey) -> SessionInfo | None:
        """Return what `list` tells of the session; None where there is none."""
        async with _in_time():
            return await self._in_thread(self._describe, self._path(key))

    async def load(self, key: SessionKey) -> tuple[Message, ...]:
        """Return the history, oldest message first; empty for a session that is new, has expired or was torn."""
        async with _in_time():
            return await self._in_thread(self._load, key)

    async def save(self, key: SessionKey, messages: tuple[Message, ...]) -> None:
        """Keep the history, in place of the one before. It is on the disk when this returns."""
        body = encoded(messages)
        async with _in_time("the turn may have been kept all the same"):
            before = await self._in_thread(self._describe, self._path(key))
            if before is not None:
                await self._change(key, self._write, key, before.created_at, len(messages), body)
                return
            async with self._counting:
                if self._count >= self._max_sessions:
                    await self._in_thread(self._evict)
                await self._change(key, self._write, key, self._clock(), len(messages), body)
                self._count += 1

    async def delete(self, key: SessionKey) -> bool:
        """Forget the session; False where there is none."""
        async with _in_time("the session may have been forgotten all the same"):
            there = await self._in_thread(self._describe, self._path(key)) is not None
            if await self._change(key, _remove, self._path(key)):
                self._count -= 1
            return there

    async def list(self, user_id: str) -> tuple[SessionInfo, ...]:
        """Return the user's sessions, the most recently used first."""
        async with _in_time():
            found = await self._in_thread(self._list, self._folder(user_id))
        return tuple(sorted(found, key=lambda info: info.updated_at, reverse=True))

    async def clean_up(self) -> None:
        """Forget what has expired or was left behind by a pod that died, and count what is there."""
        async with _in_time(), self._counting:
            await self._in_thread(self._sweep)

    async def problem(self) -> str | None:
        """Return why files cannot be written in the directory, or None."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._in_thread(self._check)
        except AgentError as error:
            return error.message
        except TimeoutError:
            return f"the session store's disk has not answered for {_CHECK_SECONDS:g} s"
        return None

    async def close(self) -> None:
        """Keep no thread that is idle."""
        self._threads.shutdown(wait=False)

    async def _in_thread(self, function: Callable[..., ResultT], *arguments: object) -> ResultT:
        # With the context: a torn file is logged from there.
        return await _outcome(self._threads.submit(copy_context().run, partial(function, *arguments)))

    async def _change(self, key: SessionKey, function: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Change the session in a thread; its lock is not let go before that has ended, however late."""
        change = self._threads.submit(function, *arguments)
        self._changes[key] = change
        try:
            return await _outcome(change)
        finally:
            if change.done():
                self._changes.pop(key, None)

    # In a thread

    def _folder(self, user_id: str) -> Path:
        return self._directory / _hashed(user_id)

    def _path(self, key: SessionKey) -> Path:
        return self._folder(key.user_id) / f"{_hashed(key.session_id)}.json"

    def _load(self, key: SessionKey) -> tuple[Message, ...]:
        path = self._path(key)
        try:
            if self._expired(path.stat().st_mtime):
                return ()
            content = path.read_bytes()
        except FileNotFoundError:
            return ()
        try:
            first, _, body = content.partition(b"\n")
            if _head(first).checksum != zlib.crc32(body):
                raise ValueError("its checksum is wrong")
            return decoded(body)
        except ValueError as error:
            self._set_aside(path, error)
            return ()

    def _describe(self, path: Path) -> SessionInfo | None:
        try:
            with path.open("rb") as file:
                updated_at = os.fstat(file.fileno()).st_mtime
                if self._expired(updated_at):
                    return None
                head = _head(file.readline())
        except FileNotFoundError:
            return None
        except ValueError:
            return None  # torn: the next turn sets it aside
        return SessionInfo(SessionKey(head.user_id, head.session_id), head.messages, head.created_at, updated_at)

    def _list(self, folder: Path) -> tuple[SessionInfo, ...]:
        return tuple(info for path in folder.glob("*.json") if (info := self._describe(path)) is not None)

    def _write(self, key: SessionKey, created_at: float, messages: int, body: bytes) -> None:
        path, now = self._path(key), self._clock()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".json.part")
        head = _Head(key.user_id, key.session_id, created_at, messages, zlib.crc32(body))
        try:
            with part.open("wb") as file:
                file.write(json.dumps(head).encode() + b"\n" + body)
                file.flush()
                os.utime(file.fileno(), (now, now))
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        try:
            for folder in (path.parent, self._directory):  # or a crash may forget the new names
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            # The new history is there already: to tell the client that it was not kept would be false.
            _log.warning("a session's folder could not be forced to the disk", extra={"fields": {"error": str(error)}})

    def _evict(self) -> None:
        """Remove what has expired, and where that is not enough the least recently used tenth."""
        self._sweep()
        if self._count >= self._max_sessions:
            oldest = sorted(_files(self._directory, ".json"), key=lambda found: found[1])
            for path, modified_at in oldest[: max(1, self._max_sessions // 10)]:
                self._count -= _remove_unused(path, modified_at)

    def _sweep(self) -> None:
        count = 0
        for path, modified_at in _files(self._directory, ".json"):
            if not (self._expired(modified_at) and _remove_unused(path, modified_at)):
                count += 1
        for path, modified_at in _files(self._directory, ".torn"):
            if modified_at < time.time() - _TORN_KEPT_SECONDS:
                _remove(path)
        for path, _ in _files(self._directory, ".lock"):
            if (held := _try_lock(path)) is not None:
                # Nobody writes the session now, so a part of it is the rest of a pod that died.
                _remove(path.with_suffix(".json.part"))
                _unlock(path, held)
        for folder in self._directory.glob("*/"):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        self._count = count

    def _expired(self, modified_at: float) -> bool:
        return modified_at < self._clock() - self._ttl_seconds

    def _set_aside(self, path: Path, error: ValueError) -> None:
        aside = path.with_suffix(".torn")
        path.replace(aside)
        os.utime(aside)
        # The error's own words may quote what was said.
        fields = {"file": str(aside), "error": type(error).__name__}
        _log.error("a session's file is torn: it was set aside, and the session begins anew", extra={"fields": fields})

    def _check(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        probe = self._directory / f".check-{os.getpid()}"
        try:
            probe.write_bytes(b"ok")
        finally:
            _remove(probe)


@asynccontextmanager
async def _in_time(beside: str = "") -> AsyncIterator[None]:
    """Give up on a disk that does not answer; `beside` is added to the error's words."""
    try:
        async with asyncio.timeout(_DISK_SECONDS):
            yield
    except TimeoutError:
        reason = f"it has not answered for {_DISK_SECONDS:g} s" + (f"; {beside}" if beside else "")
        raise AgentError("not_ready", f"the session store's disk cannot be used: {reason}") from None


async def _outcome(work: Future[ResultT]) -> ResultT:
    try:
        return await asyncio.wrap_future(work)
    except OSError as error:
        raise AgentError("not_ready", f"the session store's disk cannot be used: {error.strerror or error}") from error


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _head(line: bytes) -> _Head:
    try:
        user_id, session_id, created_at, messages, checksum = json.loads(line)
        return _Head(str(user_id), str(session_id), float(created_at), int(messages), int(checksum))
    except TypeError as error:
        raise ValueError("the first line does not tell of a session") from error


def _files(directory: Path, suffix: str) -> Iterator[tuple[Path, float]]:
    """Yield each file and when it was modified; what disappears meanwhile is left out."""
    for path in directory.glob(f"*/*{suffix}"):
        with contextlib.suppress(FileNotFoundError):
            yield path, path.stat().st_mtime


def _remove(path: Path) -> bool:
    """Remove the file; False where it is not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _remove_unused(path: Path, modified_at: float) -> bool:
    """Remove a session's file unless a turn works on the session or has saved it since."""
    lock = path.with_suffix(".lock")
    if (held := _try_lock(lock)) is None:
        return False
    try:
        return path.exists() and path.stat().st_mtime == modified_at and _remove(path)
    finally:
        _unlock(lock, held)


def _try_lock(path: Path) -> int | None:
    """Return the descriptor of a locked file, or None where somebody else holds it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # another process found the folder empty and removed it just now
        locked = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us removes the file as it lets go: then ours is one that nobody else will find.
            locked = os.fstat(descriptor).st_ino == path.stat().st_ino
        except BlockingIOError:
            return None
        except FileNotFoundError:
            pass
        finally:
            if not locked:
                os.close(descriptor)
        if locked:
            return descriptor


def _unlock(path: Path, descriptor: int) -> None:
    try:
        _remove(path)
    finally:
        os.close(descriptor)


def _release(change: Future[Any] | None, path: Path, descriptor: int) -> None:
    """Let go of a lock once the change has ended that was begun under it."""
    if change is not None:
        wait([change])
    try:
        _unlock(path, descriptor)
    except OSError as error:  # the lock itself is free
        _log.warning("a session's lock file could not be removed", extra={"fields": {"error": str(error)}})
