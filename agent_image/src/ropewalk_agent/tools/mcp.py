"""Supervised connections to MCP servers: opened once a pod, watched, healed. Never a connection for each request.

Each server has one `Connection` with one task on the worker's loop that connects, lists the tools, and then lists them
again every few seconds and whenever the server tells that they changed: that shows a dead server also without traffic.
Whatever ends the connection, the task makes it again, at most about two seconds after the server is back. Meanwhile the
last known tools stay in the catalogue and answer the model that their server is unavailable.

Built on the mcp package's ClientSession, not on Strands' MCPClient: see docs/adr/0002-mcp-connections.md.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
import mcp_types
from mcp.client._probe import negotiate_auto
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from ropewalk_agent.config import McpServerConfig
from ropewalk_agent.errors import blotted, redacted
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import LeftOut, ServerInfo, ServerStatus, Tool, ToolResult
from ropewalk_agent.tools.auth import token_source
from ropewalk_agent.tools.definitions import Definition, definitions
from ropewalk_agent.tools.headers import MountedHeaders
from ropewalk_agent.tools.mcp_calls import Calls, fault_of
from ropewalk_agent.tools.mcp_session import LenientSession, SiftingDispatcher, subscribe_to_changes
from ropewalk_agent.tools.sieve import Sieve
from ropewalk_agent.tools.spread import LIMITS, YoungConnections
from ropewalk_agent.tools.trust import trust
from ropewalk_agent.tools.wire import Fault, GuardedTransport, WireError, exchange

_log = logging.getLogger("ropewalk.mcp")

CONNECT_SECONDS = 5.0
"""Bound on connecting: transport, negotiation and the first listing together."""
_HANDSHAKE_SECONDS = 2.0
"""Bound on one TCP handshake: packets to an address that nobody answers yet must not hold up the next attempt."""
CHECK_SECONDS = 5.0
"""Pause between two listings while all is well."""
SUSPICIOUS_CHECK_SECONDS = 2.0
"""The same after a listing that was not answered in time; also the least bound on one listing."""
_LEAST_PAUSE_SECONDS = 0.25
"""Pause between two listings however often somebody asks for one, and after one that failed."""
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.2, 2.0
_FAILED_CHECKS = 2
"""So many listings in a row without a result end a connection; a single one may be a busy server, or a lost replica."""
_SILENCE_SECONDS = 10.0
"""So long a call that is on its way excuses a server that answers nothing else; then it counts as hung."""
_LAST_ANSWERS_SECONDS = 5.0
"""So long calls in a session that the server forgot may take to end, before they are cut with it; and no longer than
half the time of those that wait for the next one."""
_MOST_TOOL_PAGES = 20
_LONGEST_NAME = 256
"""Characters of what a server calls itself."""

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
        outgoing_context: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`changed` is called after each change of `tools` or `status`; the clock returns seconds.

        `tool_timeout_seconds` is the agent's limit on a call; the server's own counts where it is less.
        `outgoing_context` is asked at each call for what goes along in its headers and `_meta`.
        """
        self._config = config
        self._metrics = metrics
        self._changed = changed
        self._clock = clock
        self._timeout_seconds = min(tool_timeout_seconds, config.tool_timeout_seconds or tool_timeout_seconds)
        self.calls = Calls(
            config,
            self,
            timeout_seconds=self._timeout_seconds,
            metrics=metrics,
            clock=clock,
            outgoing_context=outgoing_context,
        )
        self._auth = token_source(config.auth, self._note_trouble)
        self._headers = MountedHeaders(config.headers)
        self._sieve = Sieve(config.prefix)
        self._last_answer_at = clock()
        self._listing_seconds = 0.0
        self.session: ClientSession | None = None
        self._replaced = asyncio.Event()
        """Not set while a session that ended is being replaced."""
        self._replaced.set()
        self._check_now = asyncio.Event()
        self._page_left_out: list[LeftOut] = []
        self._info: ServerInfo | None = None
        self._specs: tuple[mcp_types.Tool, ...] = ()
        self._definitions: tuple[Definition, ...] = ()
        self._left_out: tuple[LeftOut, ...] = ()
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
        self._replaced.set()  # there is nothing to wait for any more

    # What its calls need of it (mcp_calls.Link)

    async def current_session(self) -> ClientSession | None:
        """See Link."""
        await self._replaced.wait()
        return self.session

    def forgotten(self) -> None:
        """See Link."""
        self._replaced.clear()

    def is_safe_to_repeat(self, tool: str) -> bool:
        """See Link."""
        hints = next((spec.annotations for spec in self._specs if spec.name == tool), None)
        return hints is not None and (hints.read_only_hint is True or hints.idempotent_hint is True)

    def heard(self) -> None:
        """See Link."""
        self._last_answer_at = self._clock()

    def doubt(self) -> None:
        """See Link; also for a server that tells that its tools changed."""
        self._check_now.set()

    def why_not(self) -> str:
        """See Link."""
        if self.status.state == "connected":
            return "it forgot the session, which is being replaced"
        return self.status.last_error or "not connected yet"

    def redacted(self, text: str) -> str:
        """See Link."""
        return redacted(text, self._secrets())

    def breaker_changed(self) -> None:
        """See Link."""
        self._note(self.status.state, None)

    # Supervision

    async def _supervise(self) -> None:
        delay, losses = _FIRST_RETRY_SECONDS, 0
        while not self._stopping:
            began = self._clock()
            try:
                await self._connect_and_watch(reconnected=losses > 0)
            except Exception as error:
                cause = _cause(error)
                reason, kind = self._reason(cause), _kind(cause)
            else:
                reason, kind = "the connection ended", "ended"
            # The reason may be in the server's own words, which are for /tools and not for the log.
            fields = _fields(server=self._config.name, fault=kind)
            if self.session is not None:
                self.session = None
                self._replaced.clear()
                losses += 1
                delay, began = _FIRST_RETRY_SECONDS, self._clock()
                _log.warning("mcp server lost", extra=fields)
                self._note("disconnected", reason)
            else:
                if reason != self.status.last_error:
                    _log.warning("mcp server not reached", extra=fields)
                    self._note("disconnected" if losses else "connecting", reason)
                self._replaced.set()
            # Counted from the beginning of the attempt: where packets are dropped, that took its time already.
            await _pause(max(0.0, began + delay * random.uniform(0.8, 1.0) - self._clock()))
            delay = min(2 * delay, _LONGEST_RETRY_SECONDS)

    async def _connect_and_watch(self, *, reconnected: bool) -> None:
        """Connect, then watch; returns or raises when the connection is over."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_SECONDS):
                session = await self._open(stack)
                listing = await self._list(session)
            self.session = session
            self._replaced.set()
            if reconnected:
                self._metrics.mcp_reconnects.labels(server=self._config.name).inc()
            self.calls.reconnected()
            self._adopt(*listing)
            self._note("connected", None)
            fields = _fields(server=self._config.name, tools=len(self.tools), protocol=session.protocol_version)
            _log.info("mcp server connected", extra=fields)
            subscription = asyncio.create_task(subscribe_to_changes(session, self.doubt))
            stack.callback(subscription.cancel)
            stack.callback(self._replaced.clear)  # who comes while it closes waits for the next one
            await self._watch(session)

    async def _open(self, stack: AsyncExitStack) -> ClientSession:
        transport = GuardedTransport(
            self._connections(),
            self._config.url,
            self._auth,
            self._headers,
            has_bundle=self._config.ca_bundle is not None,
        )
        http = httpx2.AsyncClient(
            transport=transport,
            timeout=httpx2.Timeout(self._timeout_seconds, connect=_HANDSHAKE_SECONDS),
            # A bound on what is read says nothing about what it unpacks to.
            headers={"accept-encoding": "identity"},
        )
        await stack.enter_async_context(http)
        # A server that is going away need not be told that its session ends.
        streams = streamable_http_client(self._config.url, http_client=http, terminate_on_close=False)
        dispatcher = SiftingDispatcher(*await stack.enter_async_context(streams), sift=self._sift)
        session = LenientSession(dispatcher=dispatcher, message_handler=self._told)
        await stack.enter_async_context(session)
        with exchange() as one:
            try:
                await negotiate_auto(session)
            except MCPError as error:
                raise WireError(one.fault or fault_of(error) or Fault("refused", error.message)) from None
        transport.connecting = False
        self._info = self._server_info(session, has_session=transport.has_session)
        return session

    def _connections(self) -> httpx2.AsyncBaseTransport:
        if self._config.url.startswith("http://"):
            make = partial(httpx2.AsyncHTTPTransport, verify=trust(self._config), limits=LIMITS)
            return YoungConnections(make, self._clock)
        # Over TLS a connection costs more, and what stands behind the address is somebody else's to balance.
        return httpx2.AsyncHTTPTransport(verify=trust(self._config))

    async def _told(self, message: IncomingMessage) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.doubt()

    async def _watch(self, session: ClientSession) -> None:
        failed, pause = 0, CHECK_SECONDS
        while True:
            await _pause(min(_LEAST_PAUSE_SECONDS, pause))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause - _LEAST_PAUSE_SECONDS)):
                    await self._check_now.wait()
            self._check_now.clear()
            # A server whose listings take their time is not thereby dead.
            limit = max(SUSPICIOUS_CHECK_SECONDS, min(2 * self._listing_seconds, CONNECT_SECONDS))
            try:
                async with asyncio.timeout(limit):
                    listing = await self._list(session)
            except TimeoutError:
                # A server that works on a call may answer nothing else meanwhile, but not for ever.
                silent_seconds = self._clock() - self._last_answer_at
                failed += 0 if self.calls.in_flight and silent_seconds < _SILENCE_SECONDS else 1
                pause = SUSPICIOUS_CHECK_SECONDS if failed else CHECK_SECONDS
                if failed >= _FAILED_CHECKS:
                    raise TimeoutError(f"no answer within {limit:.3g} s, {failed} times") from None
            except WireError as error:
                failed, pause = failed + 1, _LEAST_PAUSE_SECONDS
                if error.fault.kind == "session_gone":
                    await self._last_answers()
                if failed >= _FAILED_CHECKS or error.fault.kind in ("lost", "session_gone"):
                    raise
            else:
                failed, pause = 0, CHECK_SECONDS
                self._replaced.set()
                self._adopt(*listing)

    async def _last_answers(self) -> None:
        """Let calls end that a pod on its way out still works on, while others wait for the next session."""
        self.forgotten()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_LAST_ANSWERS_SECONDS, self.calls.timeout_seconds / 2)):
                await self.calls.answered()

    async def _list(self, session: ClientSession) -> tuple[tuple[mcp_types.Tool, ...], tuple[LeftOut, ...]]:
        """Return the server's tools and those that are left out; raises WireError, or TimeoutError by the caller's."""
        tools: list[mcp_types.Tool] = []
        self._page_left_out.clear()
        cursor: str | None = None
        started = time.monotonic()
        with exchange() as one:
            try:
                for _ in range(_MOST_TOOL_PAGES):
                    page = await session.list_tools(params=mcp_types.PaginatedRequestParams(cursor=cursor))
                    self.heard()
                    tools.extend(page.tools)
                    cursor = page.next_cursor
                    if not cursor:
                        break
            except (MCPError, ValidationError) as error:
                fallback = Fault("refused", str(error))
                raise WireError(one.fault or fault_of(error) or fallback) from None
        left_out = list(self._page_left_out)
        if cursor:
            left_out.append(LeftOut("(more)", f"the server has more than {_MOST_TOOL_PAGES} pages of tools"))
        self._sieve.forget_all_but({tool.name for tool in tools} | {tool.name for tool in left_out})
        labels = {"mcp_method_name": "tools/list", "server": self._config.name}
        self._listing_seconds = time.monotonic() - started
        self._metrics.mcp_operation_duration.labels(**labels).observe(self._listing_seconds)
        return tuple(tools), tuple(left_out)

    async def _sift(self, page: dict[str, Any]) -> dict[str, Any]:
        page, left_out = await self._sieve.sift(page)
        self._page_left_out.extend(left_out)
        return page

    def _adopt(self, specs: tuple[mcp_types.Tool, ...], left_out: tuple[LeftOut, ...]) -> None:
        if (specs, left_out) == (self._specs, self._left_out):
            return
        for tool, reason in {(one.name, one.reason) for one in left_out} - {(o.name, o.reason) for o in self._left_out}:
            fields = _fields(server=self._config.name, tool=tool, reason=reason)
            _log.warning("a tool of an mcp server is left out", extra=fields)
        self._specs, self._left_out = specs, left_out
        self._definitions = definitions(specs, self._blotted)
        self.tools = tuple(self._tool(spec) for spec in specs if self._config.tools.admits(spec.name))
        self._note(self.status.state, None)

    def _note(self, state: str, last_error: str | None) -> None:
        """Tell a new status; a `last_error` of None leaves the one before."""
        before = self.status
        self.status = ServerStatus(
            name=before.name,
            required=before.required,
            state=state,
            since=before.since if state == before.state else _now(),
            last_error=last_error or before.last_error,
            tools=tuple(tool.name for tool in self.tools),
            hidden=tuple(spec.name for spec in self._specs if not self._config.tools.admits(spec.name)),
            breaker=self.calls.breaker.state,
            left_out=self._left_out,
            info=self._info,
            definitions=self._definitions,
        )
        self._metrics.mcp_server_up.labels(server=before.name).set(state == "connected")
        self._changed()

    def _note_trouble(self, reason: str) -> None:
        self._note(self.status.state, reason)

    def _tool(self, spec: mcp_types.Tool) -> Tool:
        async def call(arguments: dict[str, Any]) -> ToolResult:
            return await self.calls.call(spec.name, arguments)

        return Tool(
            name=self._config.prefix + spec.name,
            server=self._config.name,
            description=spec.description or spec.title or spec.name,
            input_schema=spec.input_schema,
            call=call,
        )

    def _server_info(self, session: ClientSession, *, has_session: bool) -> ServerInfo:
        info = session.server_info
        name, version = (info.name, info.version) if info is not None else ("", "")
        name, version = (self._blotted(text)[:_LONGEST_NAME] for text in (name, version))
        return ServerInfo(str(session.protocol_version), name, version, has_session)

    def _secrets(self) -> tuple[str, ...]:
        tokens = self._auth.secrets() if self._auth is not None else ()
        return (*tokens, *self._headers.secrets())

    def _blotted(self, text: str) -> str:
        return blotted(text, self._secrets())

    def _reason(self, error: BaseException) -> str:
        """Return one short line that tells why a connection ended."""
        if isinstance(error, TimeoutError) and not str(error):
            return f"no answer within {CONNECT_SECONDS:g} s"
        return self.redacted(str(error)) or type(error).__name__


def _cause(error: BaseException) -> BaseException:
    """Return the first real cause inside an error (task groups wrap theirs)."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _kind(error: BaseException) -> str:
    return error.fault.kind if isinstance(error, WireError) else type(error).__name__


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(**fields: object) -> dict[str, object]:
    return {"fields": fields}
