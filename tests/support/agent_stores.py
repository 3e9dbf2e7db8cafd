"""Session stores of every kind for one suite of tests, each with a way to let time pass and to be opened once more."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from agent_redis import RedisServer
from ropewalk_agent.sessions import Message, SessionKey, SessionStore
from ropewalk_agent.sessions.file import FileSessions
from ropewalk_agent.sessions.memory import MemorySessions
from ropewalk_agent.sessions.redis import RedisSessions


def said(role: str, text: str) -> Message:
    """A message of text."""
    return {"role": role, "content": [{"text": text}]}


HISTORY = (said("user", "hello"), said("assistant", "hi"))


class Clock:
    """A clock that stands still until it is set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.now


async def turn(store: SessionStore, key: SessionKey, *messages: Message) -> None:
    """Save as a turn does: with the lock held."""
    async with store.lock(key, wait=True):
        await store.save(key, messages or HISTORY)


@dataclass
class Kind:
    """One kind of store; `open` makes one more of it, which shares what is kept (but in memory nothing is shared)."""

    name: str
    open: Callable[..., Any]
    pass_time: Callable[[float], None]


def memory_kind() -> Kind:
    """Memory, with a clock of the test's."""
    clock = Clock()

    def pass_time(seconds: float) -> None:
        clock.now += seconds

    def opened(**options: Any) -> MemorySessions:
        return MemorySessions(**{"ttl_seconds": 10, "max_sessions": 20, "clock": clock, **options})

    return Kind("memory", opened, pass_time)


def file_kind(directory: Path) -> Kind:
    """Files, with a clock of the test's."""
    clock = Clock()

    def pass_time(seconds: float) -> None:
        clock.now += seconds

    def opened(**options: Any) -> FileSessions:
        return FileSessions(directory, **{"ttl_seconds": 10, "max_sessions": 20, "clock": clock, **options})

    return Kind("file", opened, pass_time)


def redis_kind(server: RedisServer) -> Kind:
    """A real Redis. Its clock cannot be set, so all that it keeps is made older instead."""
    agent = f"test/{uuid.uuid4().hex}"
    prefix = f"ropewalk:{{{agent}}}:"

    def pass_time(seconds: float) -> None:
        with redis.Redis(port=server.port) as client:
            for key in list(client.scan_iter(match=prefix + "*")):
                left: Any = client.pttl(key)
                if client.type(key) == b"zset":
                    members: Any = client.zrange(key, 0, -1)
                    for member in members:
                        client.zincrby(key, -seconds, member)
                client.pexpire(key, left - int(seconds * 1000))

    def opened(**options: Any) -> RedisSessions:
        return RedisSessions(server.url_file, **{"agent": agent, "ttl_seconds": 10, "max_sessions": 20, **options})

    return Kind("redis", opened, pass_time)


_HOLDER = """
import asyncio, sys
from pathlib import Path
from ropewalk_agent.sessions import SessionKey
from ropewalk_agent.sessions.file import FileSessions
from ropewalk_agent.sessions.redis import RedisSessions

async def main():
    store = {store}
    async with store.lock(SessionKey("", "s"), wait=True):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def another_process_holds_session_s(store: str, *arguments: str) -> Iterator[None]:
    """Hold the lock of nobody's session "s" in another process, which is killed at the end of the block.

    `store` is a Python expression for the store, in which `sys.argv[1:]` are the arguments.
    """
    code = _HOLDER.replace("{store}", store)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, env=environment) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.kill()
