"""Calls of one server's tools: bounded in time, repeated where that is safe, stopped by a breaker. Keeps no connection.

The server's connection is somebody else's (`Link`); a call takes the session that is there at that moment.
"""

import asyncio
import base64
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mcp_types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from ropewalk_agent.config import McpServerConfig, Retry
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import ToolResult
from ropewalk_agent.tools.breaker import FAILURES_TO_OPEN, Breaker
from ropewalk_agent.tools.results import bounded, failure
from ropewalk_agent.tools.wire import Fault, WireError, exchange

_log = logging.getLogger("ropewalk.mcp")

_CLOSED, _ENDED_STREAM, _NOT_PARSED = "Connection closed", "SSE stream ended", "Failed to parse"
"""How the mcp package's own errors begin. Their codes alone do not tell: servers use them for errors of theirs."""

_pause = asyncio.sleep


class Link(Protocol):
    """What a call needs of the connection."""

    async def current_session(self) -> ClientSession | None:
        """Return the session, or None while the server is away.

        Waits while a session that ended is replaced: until there is another, or the first attempt has failed.
        """

    def forgotten(self) -> None:
        """Take note that the server does not know the session any more."""

    def is_safe_to_repeat(self, tool: str) -> bool:
        """Whether the server says by now that a second call does no harm: the tool only reads, or is idempotent."""

    def heard(self) -> None:
        """Take note that the server answered something."""

    def doubt(self) -> None:
        """Find out soon whether the server lives."""

    def why_not(self) -> str:
        """Return the reason why there is no session."""

    def redacted(self, text: str) -> str:
        """Return the text on one line without the connection's secrets."""

    def breaker_changed(self) -> None:
        """Take note that `Calls.breaker` is in another state."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """An attempt that gave no result: what the model gets of it, and what it means."""

    result: ToolResult
    repeatable: bool
    """Whether it is safe to make the attempt again, for the tool at hand."""
    counts: bool
    """Whether the breaker takes it for a failure of the server."""


def retry_pause(retry: Retry, attempt: int, share: float) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1); `share` is random, from 0 to 1.

    At least half of the pause is kept, the rest is jitter, so that callers who failed together do not come back so.
    """
    seconds: float = retry.initial_delay_milliseconds / 1000 * 2.0 ** (attempt - 1)
    return min(seconds, retry.max_delay_seconds) * (0.5 + share / 2)


class Calls:
    """Calls of one server. Belongs to the worker's loop; raises nothing but cancellation."""

    def __init__(
        self,
        config: McpServerConfig,
        link: Link,
        *,
        timeout_seconds: float,
        metrics: Metrics,
        clock: Callable[[], float],
        outgoing_context: Callable[[], Mapping[str, str]],
    ) -> None:
        """`timeout_seconds` bounds a call with all its attempts; `outgoing_context` gives headers for each attempt."""
        self._config = config
        self._link = link
        self.timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._clock = clock
        self._outgoing_context = outgoing_context
        self._last_reason = ""
        self.in_flight = 0
        """Requests that are on their way to the server; calls that wait for a session have none."""
        self._nothing_in_flight = asyncio.Event()
        self._nothing_in_flight.set()
        self.breaker = Breaker()
        metrics.mcp_breaker_open.labels(server=config.name).set(0)

    def reconnected(self) -> None:
        """Let the breaker know that there is a new connection."""
        self.breaker = self.breaker.reconnected(self._clock())

    async def answered(self) -> None:
        """Wait until no request is on its way to the server."""
        await self._nothing_in_flight.wait()

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """Call a tool by the server's own name for it."""
        # The second hold of the filter, for a name that reached us in spite of the first.
        if not self._config.tools.admits(tool):
            return failure("error", f"tool {tool} of {self._server} is not allowed for this agent")
        deadline = self._clock() + self.timeout_seconds
        if await self._session(deadline) is None:
            return self._unavailable(self._link.why_not())
        started = time.monotonic()
        try:
            return await self._attempts(tool, arguments, deadline)
        finally:
            labels = {"mcp_method_name": "tools/call", "server": self._config.name}
            self._metrics.mcp_operation_duration.labels(**labels).observe(time.monotonic() - started)

    async def _attempts(self, tool: str, arguments: dict[str, Any], deadline: float) -> ToolResult:
        failed: _Failed | None = None
        for attempt in range(1, self._config.retry.max_attempts + 1):
            breaker, admitted = self.breaker.admit(self._clock())
            self._become(breaker)
            if not admitted:
                return failed.result if failed is not None else self._unavailable(self._why_open())
            outcome = await self._judged(tool, arguments, deadline, probe=breaker.state == "half-open")
            if isinstance(outcome, ToolResult):
                return outcome
            failed = outcome
            pause = retry_pause(self._config.retry, attempt, random.random())
            if not failed.repeatable or attempt == self._config.retry.max_attempts:
                break
            if self._clock() + pause >= deadline:
                break
            self._metrics.mcp_retries.labels(server=self._config.name).inc()
            await _pause(pause)
        if failed is None:
            raise AssertionError("a call has at least one attempt")
        return failed.result

    async def _judged(
        self, tool: str, arguments: dict[str, Any], deadline: float, *, probe: bool
    ) -> ToolResult | _Failed:
        """Make one attempt and tell the breaker how it went."""
        try:
            outcome = await self._attempt(tool, arguments, deadline)
        except BaseException:
            self._become(self.breaker.abandoned(probe=probe))
            raise
        if isinstance(outcome, _Failed):
            self._link.doubt()
            if outcome.counts:
                self._last_reason = outcome.result.content[0]["text"]
                self._become(self.breaker.failed(self._clock(), probe=probe))
                return outcome
        self._become(self.breaker.succeeded())
        return outcome

    async def _attempt(self, tool: str, arguments: dict[str, Any], deadline: float) -> ToolResult | _Failed:
        session, safe = await self._session(deadline), self._link.is_safe_to_repeat(tool)
        if session is None:
            return _Failed(self._unavailable(self._link.why_not()), repeatable=True, counts=True)
        headers = self._outgoing_context()
        with exchange(headers) as one, self._sending():
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    result = await session.call_tool(tool, arguments, meta=_meta(headers), allow_input_required=True)
            except TimeoutError:
                limit = f"{self.timeout_seconds:g} s"
                text = f"tool {tool} of {self._server} did not answer within {limit}"
                return _Failed(failure("timeout", text), repeatable=False, counts=True)
            except Exception as error:
                fault = one.fault or fault_of(error)
                if fault is not None:
                    return self._faulty(tool, fault, safe=safe)
                # The server answered, with an error of its own.
                self._link.heard()
                text = f"tool {tool} of {self._server} failed: {self._link.redacted(str(error))}"
                return _Failed(failure("error", text), repeatable=False, counts=False)
        self._link.heard()
        if isinstance(result, mcp_types.InputRequiredResult):
            return failure("error", f"tool {tool} of {self._server} asks for input, which an agent cannot give")
        return ToolResult("error" if result.is_error else "ok", bounded(_blocks(result)))

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        self.in_flight += 1
        self._nothing_in_flight.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._nothing_in_flight.set()

    async def _session(self, deadline: float) -> ClientSession | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline - self._clock()):
                return await self._link.current_session()
        return None

    def _faulty(self, tool: str, fault: Fault, *, safe: bool) -> _Failed:
        reason = self._link.redacted(fault.text)
        if fault.kind in ("undelivered", "session_gone", "unauthorized"):
            result = self._unavailable(reason)
        elif fault.kind == "lost":
            result = self._unavailable("the connection was lost during the call")
        else:
            result = failure("error", f"tool {tool} of {self._server} failed: {reason}")
        if fault.kind == "session_gone":
            self._link.forgotten()
        untouched = fault.kind in ("undelivered", "session_gone")
        return _Failed(
            result,
            repeatable=untouched or (safe and fault.kind in ("failing", "broken", "lost")),
            counts=fault.kind not in ("refused", "too_large", "session_gone"),
        )

    def _become(self, breaker: Breaker) -> None:
        before, self.breaker = self.breaker, breaker
        if breaker.state == before.state:
            return
        self._metrics.mcp_breaker_open.labels(server=self._config.name).set(breaker.state != "closed")
        fields = {"server": self._config.name, "from": before.state, "to": breaker.state}
        log = _log.warning if breaker.state == "open" else _log.info
        log("mcp circuit breaker changed", extra={"fields": fields})
        self._link.breaker_changed()

    def _why_open(self) -> str:
        again = max(0.0, self.breaker.until - self._clock())
        when = f"in {again:.0f} s" if self.breaker.state == "open" else "now"
        return f"{FAILURES_TO_OPEN} calls in a row failed, it is tried again {when}; the last: {self._last_reason}"

    @property
    def _server(self) -> str:
        return f"MCP server {self._config.name}"

    def _unavailable(self, reason: str) -> ToolResult:
        text = f"{self._server} is unavailable ({reason}); its tools cannot be used at the moment"
        return failure("unavailable", text)


def fault_of(error: BaseException) -> Fault | None:
    """Return the fault that an error of the session stands for, or None where the server reports an error of its own.

    It quotes nothing of an answer that could not be read: that may be anything.
    """
    if isinstance(error, WireError):
        return error.fault
    if isinstance(error, MCPError):
        match error.code:
            case mcp_types.CONNECTION_CLOSED if error.message == _CLOSED:
                return Fault("lost", "the connection ended")
            case mcp_types.CONNECTION_CLOSED if error.message.startswith(_ENDED_STREAM):
                return Fault("broken", "its stream ended without an answer")
            case mcp_types.PARSE_ERROR if error.message.startswith(_NOT_PARSED):
                return Fault("broken", "its answer is not JSON-RPC")
    if isinstance(error, ValidationError):
        return Fault("broken", "its answer is not what the protocol says")
    return None


def _meta(headers: Mapping[str, str]) -> mcp_types.RequestParamsMeta | None:
    return mcp_types.RequestParamsMeta(**headers) if headers else None  # type: ignore[typeddict-item]


def _blocks(result: mcp_types.CallToolResult) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for content in result.content:
        if isinstance(content, mcp_types.TextContent):
            blocks.append({"text": content.text})
        elif isinstance(content, mcp_types.ImageContent) and content.mime_type.startswith("image/"):
            blocks.append(_image(content))
        else:
            blocks.append({"text": content.model_dump_json(by_alias=True, exclude_none=True)})
    if not blocks and result.structured_content is not None:
        blocks.append({"json": result.structured_content})
    return blocks or [{"text": "(no content)"}]


def _image(content: mcp_types.ImageContent) -> dict[str, Any]:
    try:
        source = {"bytes": base64.b64decode(content.data)}
    except ValueError:
        return {"text": "[left out: an image that is not valid base64]"}
    return {"image": {"format": content.mime_type.removeprefix("image/"), "source": source}}
