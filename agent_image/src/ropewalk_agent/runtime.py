"""Puts one agent together and knows whether it is ready: bridge, model, tools and sessions, made on the worker.

The server asks it for turns and for the truth about the pod. Strands, the provider's client and mcp are imported on the
worker's thread, while the server answers /health already.
"""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ropewalk_agent.bridge import Bridge, Turn
from ropewalk_agent.config import AgentConfig, ConfigError, ModelConfig
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import TurnEvent, TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.sessions import SessionKey, SessionStore
from ropewalk_agent.sessions.stores import session_store
from ropewalk_agent.tools import Tool, catalogue

if TYPE_CHECKING:
    from ropewalk_agent.models import BuiltModel
    from ropewalk_agent.models.trial import KeyTrial
    from ropewalk_agent.tools.mcp import Connection
    from ropewalk_agent.turn import TurnRunner

ResultT = TypeVar("ResultT")

_log = logging.getLogger("ropewalk.runtime")

_CLEANUP_SECONDS = 60.0
_SESSIONS_SECONDS = 10.0
_SESSIONS_CHECK_SECONDS = 5.0
_SESSIONS_RECHECK_SECONDS = 1.0
_STUCK_SECONDS_NOT_READY = 5.0
STUCK_SECONDS_UNHEALTHY = 30.0
"""So long a silence of the worker's loop cannot be load: a restart helps."""
_CLOSE_SECONDS = 2.0
_LAG_SECONDS = 0.5
"""So long a scrape waits for the worker's loop."""


class Runtime:
    """One agent. Make it anywhere, `start` it on the server's loop; all public methods belong to that loop."""

    def __init__(
        self,
        config: AgentConfig,
        metrics: Metrics,
        *,
        build_model: "Callable[[ModelConfig, float], BuiltModel] | None" = None,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`build_model` stands in for models.build; `on_failure` is told, on the server's loop, why it cannot start."""
        self._config = config
        self._metrics = metrics
        self._build_model = build_model
        self._on_failure = on_failure
        self._sessions = session_store(config)
        self._sessions_problem: str | None = "the session store has not answered yet"
        self._bridge = Bridge(self._turn, concurrency=config.concurrency, queue_length=config.queue.max_length)
        self._model: BuiltModel | None = None
        self._runner: TurnRunner | None = None
        self._trial: KeyTrial | None = None
        self._failure: str | None = None
        self._connections: tuple[Connection, ...] = ()
        self._local_tools: tuple[Tool, ...] = ()
        self._catalogue: tuple[tuple[Tool, ...], tuple[Any, ...]] = ((), ())
        self._server: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._leaving = False
        self._drain_begun = asyncio.Event()
        self._ever_ready = False
        metrics.watch(
            running=lambda: self._bridge.running,
            waiting=lambda: self._bridge.waiting,
            sessions=lambda: len(self._sessions),
            stuck=self._bridge.stuck_seconds,
        )

    def start(self) -> None:
        """Start the worker; returns at once, `wait_until_ready` tells when the agent can answer."""
        self._server = asyncio.get_running_loop()
        fields = {"agent": self._config.name, "namespace": self._config.namespace, "model": self._config.model.id}
        _log.info("agent starting", extra={"fields": fields})
        self._bridge.start()
        self._bridge.spawn(self._open())
        self._bridge.spawn(self._watch_sessions())

    def leave(self) -> None:
        """Be not ready and let every answer close its connection, but still answer."""
        self._leaving = True
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """Leave, refuse new turns, and let those that are there finish within the time given."""
        self.leave()
        self._drain_begun.set()
        if not await self._bridge.drain(seconds):
            _log.warning("turns were cut off at the end of the drain", extra={"fields": {"seconds": seconds}})

    async def close(self) -> None:
        """Close connections and end the worker."""
        await self._bridge.stop(self._shut, timeout_seconds=_CLOSE_SECONDS)

    # Turns

    def run(self, request: TurnRequest, *, timeout_seconds: float) -> AsyncGenerator[TurnEvent, None]:
        """Run one turn; see Bridge.run."""
        key = SessionKey(request.user_id, request.session_id)
        wait = request.wait_for_session
        return self._bridge.run(key, request, timeout_seconds=timeout_seconds, wait_for_session=wait)

    def is_busy(self, key: SessionKey) -> bool:
        """Whether a turn of the session runs or waits in this pod."""
        return self._bridge.is_busy(key)

    def cancel_turn(self, key: SessionKey) -> bool:
        """End the session's running turn; see Bridge.cancel."""
        return self._bridge.cancel(key)

    async def ask_sessions(self, question: Callable[[SessionStore], Awaitable[ResultT]]) -> ResultT:
        """Ask the session store on the worker's loop; raises AgentError, not_ready where no answer comes in time."""
        try:
            async with asyncio.timeout(_SESSIONS_SECONDS):
                return await self._bridge.call(lambda: question(self._sessions))
        except TimeoutError:
            message = f"the session store has not answered for {_SESSIONS_SECONDS:g} s; ask again"
            raise AgentError("not_ready", message) from None

    def _turn(self, request: TurnRequest, turn: Turn) -> AsyncGenerator[TurnEvent, None]:
        if self._runner is None:
            raise AgentError("not_ready", self._failure or "the agent is starting; ask again in a second")
        return self._runner.run(request, turn)

    # The truth about the pod

    @property
    def leaving(self) -> bool:
        """Whether the pod is going away."""
        return self._leaving

    async def wait_until_draining(self) -> None:
        """Return once new turns are refused."""
        await self._drain_begun.wait()

    @property
    def busy(self) -> bool:
        """Whether any turn runs or waits."""
        return self._bridge.running + self._bridge.waiting > 0

    def stuck_seconds(self) -> float:
        """How long the worker's loop has been silent; see Bridge.stuck_seconds."""
        return self._bridge.stuck_seconds()

    async def measure_lag(self) -> None:
        """Measure, for the metrics, how long either loop now takes until it runs what it is given."""
        began = time.monotonic()
        await asyncio.sleep(0)
        self._metrics.loop_lag.labels(loop="server").set(time.monotonic() - began)
        try:
            async with asyncio.timeout(_LAG_SECONDS):
                worker = await self._bridge.call(_now) - began
        except TimeoutError:
            worker = max(_LAG_SECONDS, self._bridge.stuck_seconds())
        self._metrics.loop_lag.labels(loop="worker").set(worker)

    def reasons_not_ready(self) -> list[str]:
        """Return a sentence for each thing that keeps the agent from answering; empty when it is ready."""
        reasons: list[str] = []
        if self._leaving:
            reasons.append("the agent is shutting down")
        if self._failure is not None:
            reasons.append(self._failure)
        elif self._runner is None or self._trial is None or self._trial.untried:
            reasons.append("the agent is starting")
        elif self._trial.problem is not None:
            reasons.append(self._trial.problem)
        if self._sessions_problem is not None:
            reasons.append(self._sessions_problem)
        stuck = self._bridge.stuck_seconds()
        if stuck > _STUCK_SECONDS_NOT_READY:
            reasons.append(f"the worker has not answered for {stuck:.0f} s")
        for status in (connection.status for connection in self._connections):
            if status.required and status.state != "connected":
                why = f" ({status.last_error})" if status.last_error else ""
                reasons.append(f"mcp server {status.name}: {status.state} since {status.since}{why}")
        return reasons

    async def wait_until_ready(self, seconds: float) -> None:
        """Return when the agent is ready for the first time, or after `seconds`, or at once if it has been ready.

        It spares a starting pod a whole period of the readiness probe.
        """
        deadline = time.monotonic() + seconds
        while not self._ever_ready and not self._leaving:
            if self._runner is not None and not self.reasons_not_ready():
                self._ever_ready = True
                # What is here now stays for the life of the pod; collections need not look at it again.
                gc.collect()
                gc.freeze()
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                return

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that turns get now."""
        return self._catalogue[0]

    def tools_report(self) -> dict[str, Any]:
        """Return the body of /tools."""
        servers = [
            {
                "name": status.name,
                "required": status.required,
                "state": status.state,
                "since": status.since,
                "last_error": status.last_error,
                "tools": list(status.tools),
                "hidden": list(status.hidden),
                "breaker": status.breaker,
                "left_out": [{"tool": one.name, "reason": one.reason} for one in status.left_out],
                "protocol_version": status.info.protocol_version if status.info else None,
                "server_info": {"name": status.info.name, "version": status.info.version} if status.info else None,
                "has_session": status.info is not None and status.info.has_session,
                "definitions": [
                    {"name": one.name, "description": one.description, "hash": one.hash} for one in status.definitions
                ],
            }
            for status in (connection.status for connection in self._connections)
        ]
        clashes = [{"tool": clash.tool, "kept": clash.kept, "ignored": clash.ignored} for clash in self._catalogue[1]]
        local = [tool.name for tool in self._local_tools]
        return {"servers": servers, "local_tools": local, "clashes": clashes}

    # The worker's loop

    async def _open(self) -> None:
        try:
            from ropewalk_agent import models, spans
            from ropewalk_agent.models.trial import KeyTrial
            from ropewalk_agent.turn import TurnRunner

            limits = self._config.limits
            build = self._build_model or models.build
            asked = (self._config.model, *self._config.fallbacks)
            parts = [build(one, limits.request_timeout_seconds) for one in asked]
            # A fallback's key may be wrong, and the agent answers all the same.
            self._trial = KeyTrial(parts[0], self._config.model.id, lambda: self._tell_server(self._changed.set))
            self._bridge.spawn(self._trial.watch())
            self._model = models.chain(parts, asked, limits.request_timeout_seconds, self._metrics.model_fallbacks)
            if self._config.local_tools:
                from ropewalk_agent.tools import local

                self._local_tools = local.load(
                    self._config.local_tools,
                    limits.tool_timeout_seconds,
                    side_by_side=self._config.concurrency * limits.max_parallel_tools,
                )
                self._tools_changed()
            if self._config.mcp_servers:
                from ropewalk_agent.tools.mcp import Connection

                self._connections = tuple(
                    Connection(
                        server,
                        tool_timeout_seconds=limits.tool_timeout_seconds,
                        metrics=self._metrics,
                        changed=self._tools_changed,
                        outgoing_context=spans.headers,
                    )
                    for server in self._config.mcp_servers
                )
            self._runner = TurnRunner(
                self._config,
                self._model,
                lambda: self._catalogue[0],
                self._sessions,
                self._metrics,
                key_refused=self._trial.doubt,
            )
            for connection in self._connections:
                connection.start()
        except Exception as error:
            reason = "; ".join(error.problems) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            self._failure = f"the agent cannot start: {reason}"
            _log.exception("the agent cannot start")
            self._tell_server(lambda: self._on_failure(self._failure or ""))
        self._tell_server(self._changed.set)

    async def _watch_sessions(self) -> None:
        """Look after the session store for as long as the worker lives: can it be used, and what is too old in it?"""
        cleaned_at: float | None = None
        while True:
            problem = await self._sessions.problem()
            if problem != self._sessions_problem:
                self._sessions_problem = problem
                if problem is not None:
                    _log.warning("the session store cannot be used", extra={"fields": {"reason": problem}})
                self._tell_server(self._changed.set)
            if problem is None and (cleaned_at is None or time.monotonic() - cleaned_at >= _CLEANUP_SECONDS):
                cleaned_at = time.monotonic()
                with suppress(AgentError):  # the next look tells what is wrong
                    await self._sessions.clean_up()
            await asyncio.sleep(_SESSIONS_CHECK_SECONDS if problem is None else _SESSIONS_RECHECK_SECONDS)

    async def _shut(self) -> None:
        parts: list[Awaitable[None]] = [connection.stop() for connection in self._connections]
        if self._model is not None:
            parts.append(self._model.close())
        parts.append(self._sessions.close())
        for failed in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(failed, BaseException):  # what keeps one part open is no reason to leave others so
                _log.warning("a part did not close", extra={"fields": {"error": type(failed).__name__}})

    def _tools_changed(self) -> None:
        before = self._catalogue[1]
        self._catalogue = catalogue([self._local_tools, *(connection.tools for connection in self._connections)])
        for clash in self._catalogue[1]:
            if clash not in before:
                fields = {"tool": clash.tool, "kept": clash.kept, "ignored": clash.ignored}
                _log.warning("a tool is offered twice", extra={"fields": fields})
        self._tell_server(self._changed.set)

    def _tell_server(self, what: Callable[[], None]) -> None:
        if self._server is not None and not self._server.is_closed():
            self._server.call_soon_threadsafe(what)


async def _now() -> float:
    return time.monotonic()
