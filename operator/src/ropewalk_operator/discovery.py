"""Asks MCP servers for their tools, in the background, and remembers what they said.

A server is asked when its ready pods or its address change, again after a failure with backoff, and now and then.
Never writes anything: whoever is interested is told by a callback that an answer has come.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ropewalk_operator.facts import Discovered, Tool
from ropewalk_operator.kinds import Key

logger = logging.getLogger(__name__)

TIME_LIMIT_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 60.0
AT_ONCE = 16
DESCRIPTION_CHARACTERS = 1024
NAME_CHARACTERS = 256
MESSAGE_CHARACTERS = 500
PAGES = 64


@dataclass(frozen=True)
class Target:
    """Whom to ask.

    `fingerprint` changes when what stands behind the address does; `config` when the server's spec does.
    """

    url: str
    fingerprint: str
    config: str


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


Ask = Callable[[str], Awaitable[Discovered]]


class Discovery:
    """One for the process. `ask` and `clock` (seconds, never going back) are arguments so that tests need no server."""

    def __init__(
        self, tell: Callable[[Key], None], *, every_seconds: float, clock: Callable[[], float], ask: Ask | None = None
    ) -> None:
        self._tell = tell
        self._every = every_seconds
        self._clock = clock
        self._ask = ask or list_tools
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
        is_current = record.config is not None and (target is None or record.config == target.config)
        if not is_current:
            return View()
        next_in = None if target is None or record.task is not None else max(record.due - now, 0.0)
        return View(record.discovered, record.error, False, next_in)

    def forget(self, key: Key) -> None:
        """The server is gone."""
        record = self._records.pop(key, None)
        if record is not None and record.task is not None:
            record.task.cancel()

    async def _run(self, key: Key, record: _Record, target: Target) -> None:
        try:
            async with self._gate, asyncio.timeout(TIME_LIMIT_SECONDS):
                record.discovered = await self._ask(target.url)
            record.error = None
            record.failures = 0
            record.due = self._clock() + self._every
        except Exception as error:
            # Whatever a foreign server and its protocol can do wrong ends up in the condition's message.
            record.error = f"tools/list at {target.url} failed: {plain(error)}"
            delay = min(FIRST_RETRY_SECONDS * float(2 ** min(record.failures, 10)), LAST_RETRY_SECONDS)
            record.failures += 1
            record.due = self._clock() + delay
            logger.info("tools were not listed", extra={"fields": {"server": str(key), "error": record.error}})
        finally:
            record.task = None
        record.config = target.config
        self._tell(key)


def plain(error: BaseException) -> str:
    """The innermost words of an error, bounded: task groups and chains bury what the server said."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer within {TIME_LIMIT_SECONDS:g} s"
    return (str(error) or type(error).__name__)[:MESSAGE_CHARACTERS]


async def list_tools(url: str) -> Discovered:
    """A real tools/list, all pages of it."""
    # Imported at the first use: an operator without MCP servers saves 30 MB.
    import httpx2
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client

    tools: list[Tool] = []
    # The address is a pod's own or the user's: a proxy of the environment must not stand in between.
    async with (
        httpx2.AsyncClient(follow_redirects=True, timeout=TIME_LIMIT_SECONDS, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), cache=None) as client,
    ):
        cursor: str | None = None
        for _ in range(PAGES):
            page = await client.list_tools(cursor=cursor)
            tools.extend(_tool(tool.name, tool.description or "", tool.input_schema) for tool in page.tools)
            cursor = page.next_cursor
            if not cursor:
                break
        info = client.server_info
        return Discovered(
            tools=tuple(sorted({tool.name: tool for tool in tools}.values(), key=lambda tool: tool.name)),
            protocol_version=str(client.protocol_version),
            server_name=(info.name if info else "")[:NAME_CHARACTERS],
            server_version=(info.version if info else "")[:NAME_CHARACTERS],
        )


def _tool(name: str, description: str, schema: object) -> Tool:
    canonical = json.dumps([name, description, schema], sort_keys=True, separators=(",", ":"), default=str)
    return Tool(
        name[:NAME_CHARACTERS],
        description[:DESCRIPTION_CHARACTERS],
        f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}",
    )
