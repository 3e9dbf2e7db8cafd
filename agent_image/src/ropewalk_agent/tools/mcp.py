"""Supervised connections to MCP servers: opened once a pod, watched, healed. Never a connection for each request.

Each server has one `Connection` with one task on the worker's loop that connects, lists the tools, and then lists them
again every few seconds: that shows a dead server also without traffic, and picks up changed tools. Whatever ends the
connection, the task makes it again, at most about two seconds after the server is back. Meanwhile the last known tools
stay in the catalogue and answer the model that their server is unavailable.

Built on the mcp package's ClientSession, not on Strands' MCPClient: see docs/adr/0002-mcp-connections.md.
"""

import asyncio
import base64
import contextlib
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import httpx2
import mcp_types
from mcp.client._probe import negotiate_auto
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from ropewalk_agent.config import McpServerConfig
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.models import without_authorities
from ropewalk_agent.tools import ServerStatus, Tool, ToolResult
from ropewalk_agent.tools.results import bounded, failure

_log = logging.getLogger("ropewalk.mcp")

CONNECT_SECONDS = 5.0
"""Bound on connecting: transport, negotiation and the first listing together."""
_HANDSHAKE_SECONDS = 2.0
"""Bound on one TCP handshake: packets to an address that nobody answers yet must not hold up the next attempt."""
CHECK_SECONDS = 5.0
"""Pause between two listings while all is well."""
SUSPICIOUS_CHECK_SECONDS = 2.0
"""The same after a listing that was not answered in time; also the bound on one listing."""
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.2, 2.0
_UNANSWERED_CHECKS = 2
"""So many listings in a row without an answer end a connection; a single one may just be a busy server."""
_SILENCE_SECONDS = 10.0
"""So long a call that is on its way excuses a server that answers nothing else; then it counts as hung."""
_MOST_TOOL_PAGES = 20

_pause = asyncio.sleep


class Connection:
    """One MCP server. Everything runs on the worker's loop; `status` and `tools` may be read from any thread."""

    def __init__(
        self,
        config: McpServerConfig,
        *,
        tool_timeout_seconds: float,
        metrics: Metrics,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed` is called after each change of `tools` or `status`; the clock returns seconds."""
        self._config = config
        self._tool_timeout_seconds = tool_timeout_seconds
        self._metrics = metrics
        self._changed = changed
        self._clock = clock
        self._last_answer_at = clock()
        self._session: ClientSession | None = None
        self._check_now = asyncio.Event()
        self._calls_in_flight = 0
        self._specs: tuple[mcp_types.Tool, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.tools: tuple[Tool, ...] = ()
        """The admitted tools, as last listed; kept while the server is away."""
        self.status = ServerStatus(config.name, config.required, "connecting", _now(), None, (), ())
        metrics.mcp_server_up.labels(server=config.name).set(0)

    def start(self) -> None:
        """Begin to connect, and keep at it until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._supervise())

    async def stop(self) -> None:
        """Close the connection."""
        self._stopping = True
        while self._task is not None and not self._task.done():
            # Once may not be enough: a cancel that meets the transport's own clean-up can be swallowed by it.
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=0.1)

    # Supervision

    async def _supervise(self) -> None:
        delay, losses = _FIRST_RETRY_SECONDS, 0
        while not self._stopping:
            began = self._clock()
            try:
                await self._connect_and_watch(reconnected=losses > 0)
            except Exception as error:
                reason = _reason(error)
            else:
                reason = "the connection ended"
            if self._session is not None:
                self._session = None
                losses += 1
                delay, began = _FIRST_RETRY_SECONDS, self._clock()
                _log.warning("mcp server lost", extra=_fields(server=self._config.name, reason=reason))
                self._note("disconnected", reason)
            elif reason != self.status.last_error:
                _log.warning("mcp server not reached", extra=_fields(server=self._config.name, reason=reason))
                self._note("disconnected" if losses else "connecting", reason)
            # Counted from the beginning of the attempt: where packets are dropped, that took its time already.
            await _pause(max(0.0, began + delay * random.uniform(0.8, 1.0) - self._clock()))
            delay = min(2 * delay, _LONGEST_RETRY_SECONDS)

    async def _connect_and_watch(self, *, reconnected: bool) -> None:
        """Connect, then watch; returns or raises when the connection is over."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_SECONDS):
                session = await self._open(stack)
                tools = await self._list(session)
            self._session = session
            if reconnected:
                self._metrics.mcp_reconnects.labels(server=self._config.name).inc()
            self._adopt(tools)
            self._note("connected", None)
            _log.info("mcp server connected", extra=_fields(server=self._config.name, tools=len(self.tools)))
            await self._watch(session)

    async def _open(self, stack: AsyncExitStack) -> ClientSession:
        http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._tool_timeout_seconds, connect=_HANDSHAKE_SECONDS),
            verify=without_authorities() if self._config.url.startswith("http://") else True,
            follow_redirects=True,
        )
        await stack.enter_async_context(http)
        # A server that is going away need not be told that its session ends.
        streams = streamable_http_client(self._config.url, http_client=http, terminate_on_close=False)
        session = ClientSession(*await stack.enter_async_context(streams))
        await stack.enter_async_context(session)
        await negotiate_auto(session)
        return session

    async def _watch(self, session: ClientSession) -> None:
        unanswered = 0
        while True:
            self._check_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SUSPICIOUS_CHECK_SECONDS if unanswered else CHECK_SECONDS):
                    await self._check_now.wait()
            try:
                async with asyncio.timeout(SUSPICIOUS_CHECK_SECONDS):
                    self._adopt(await self._list(session))
            except TimeoutError:
                # A server that works on a call may answer nothing else meanwhile, but not for ever.
                silent_seconds = self._clock() - self._last_answer_at
                unanswered += 0 if self._calls_in_flight and silent_seconds < _SILENCE_SECONDS else 1
                if unanswered >= _UNANSWERED_CHECKS:
                    raise TimeoutError(f"no answer within {SUSPICIOUS_CHECK_SECONDS:g} s, {unanswered} times") from None
            else:
                unanswered = 0

    async def _list(self, session: ClientSession) -> tuple[mcp_types.Tool, ...]:
        tools: list[mcp_types.Tool] = []
        cursor: str | None = None
        started = time.monotonic()
        for _ in range(_MOST_TOOL_PAGES):
            page = await session.list_tools(params=mcp_types.PaginatedRequestParams(cursor=cursor))
            self._last_answer_at = self._clock()
            tools.extend(page.tools)
            cursor = page.next_cursor
            if not cursor:
                break
        self._observe("tools/list", started)
        return tuple(tools)

    def _adopt(self, specs: tuple[mcp_types.Tool, ...]) -> None:
        if specs == self._specs:
            return
        self._specs = specs
        admitted = [spec for spec in specs if self._config.tools.admits(spec.name)]
        self.tools = tuple(self._tool(spec) for spec in admitted)
        self._note(self.status.state, self.status.last_error)

    def _note(self, state: str, last_error: str | None) -> None:
        before = self.status
        shown = tuple(tool.name for tool in self.tools)
        self.status = ServerStatus(
            name=before.name,
            required=before.required,
            state=state,
            since=before.since if state == before.state else _now(),
            last_error=last_error or before.last_error,
            tools=shown,
            hidden=tuple(spec.name for spec in self._specs if spec.name not in shown),
        )
        self._metrics.mcp_server_up.labels(server=before.name).set(state == "connected")
        self._changed()

    # Calls

    def _tool(self, spec: mcp_types.Tool) -> Tool:
        async def call(arguments: dict[str, Any]) -> ToolResult:
            return await self._call(spec.name, arguments)

        return Tool(
            name=spec.name,
            server=self._config.name,
            description=spec.description or spec.title or spec.name,
            input_schema=spec.input_schema,
            call=call,
        )

    async def _call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        # The second hold of the filter, for a name that reached us in spite of the first.
        if not self._config.tools.admits(name):
            return failure("error", f"tool {name} of MCP server {self._config.name} is not allowed for this agent")
        if self._session is None:
            return self._unavailable(self.status.last_error or "not connected yet")
        started = time.monotonic()
        self._calls_in_flight += 1
        try:
            return await self._attempt(self._session, name, arguments)
        finally:
            self._calls_in_flight -= 1
            self._observe("tools/call", started)

    async def _attempt(self, session: ClientSession, name: str, arguments: dict[str, Any]) -> ToolResult:
        server = f"MCP server {self._config.name}"
        try:
            async with asyncio.timeout(self._tool_timeout_seconds):
                result = await session.call_tool(name, arguments)
                self._last_answer_at = self._clock()
        except Exception as error:
            self._check_now.set()  # whatever it was, find out soon whether the server lives
            if isinstance(error, TimeoutError):
                limit = f"{self._tool_timeout_seconds:g} s"
                return failure("timeout", f"tool {name} of {server} did not answer within {limit}")
            if isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED:
                return self._unavailable("the connection was lost during the call")
            return failure("error", f"tool {name} of {server} failed: {_reason(error)}")
        return ToolResult("error" if result.is_error else "ok", bounded(_blocks(result)))

    def _unavailable(self, reason: str) -> ToolResult:
        text = f"MCP server {self._config.name} is unavailable ({reason}); its tools cannot be used at the moment"
        return failure("unavailable", text)

    def _observe(self, method: str, started: float) -> None:
        labels = {"mcp_method_name": method, "server": self._config.name}
        self._metrics.mcp_operation_duration.labels(**labels).observe(time.monotonic() - started)


def _blocks(result: mcp_types.CallToolResult) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for content in result.content:
        if isinstance(content, mcp_types.TextContent):
            blocks.append({"text": content.text})
        elif isinstance(content, mcp_types.ImageContent) and content.mime_type.startswith("image/"):
            source = {"bytes": base64.b64decode(content.data)}
            blocks.append({"image": {"format": content.mime_type.removeprefix("image/"), "source": source}})
        else:
            blocks.append({"text": content.model_dump_json(by_alias=True, exclude_none=True)})
    if not blocks and result.structured_content is not None:
        blocks.append({"json": result.structured_content})
    return blocks or [{"text": "(no content)"}]


def _reason(error: BaseException) -> str:
    """Return one short line for the first real cause inside an error (task groups wrap theirs)."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {CONNECT_SECONDS:g} s"
    text = " ".join(str(error).split())[:200]
    return text or type(error).__name__


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(**fields: object) -> dict[str, object]:
    return {"fields": fields}
