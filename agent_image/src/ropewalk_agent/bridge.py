"""The one worker of a pod: a thread with an event loop of its own, and the way in and out of it.

The server's loop submits turns and reads their events; the turns themselves run on the worker's loop, so that
/health, /ready and a refusal are answered even while a tool hogs the worker. A turn is an async generator function
given to `Bridge`: this module knows neither the web framework nor Strands.

Which thread touches what:
- deadlines and everything in `Bridge.run` belong to the server's loop;
- the turn's generator and its task belong to the worker's loop;
- admission is shared, under `Bridge._lock`: the server asks for places, the worker gives them back and begins at once
  whoever waited, without asking the server;
- `Outlet` (the events of one turn) and `Turn` (may it still be cancelled?) are shared and hold a lock;
- all else crosses through a `Mailbox`, one for each direction. To wake the other thread is what costs most here.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar

from ropewalk_agent.admission import Admission
from ropewalk_agent.crossing import Mailbox, Outlet, call_on
from ropewalk_agent.errors import AgentError, internal_error

_log = logging.getLogger("ropewalk.bridge")

RequestT = TypeVar("RequestT")
EventT = TypeVar("EventT")
ResultT = TypeVar("ResultT")

_SPARE_THREADS = 4
"""Threads beside the one that each running turn may block (a provider's client may know no asyncio): for look-ups of
names, and for turns that were ended and whose thread has not yet noticed."""

_TOLD_SECONDS = 5.0
"""So long a drain waits for clients to read what turns that have ended said."""


class Turn:
    """What a running turn knows of its own place in the bridge."""

    def __init__(self, queue_seconds: float = 0.0) -> None:
        self.queue_seconds = queue_seconds
        """How long the turn waited until the worker began it."""
        self._lock = threading.Lock()
        self._committed = False
        self._cancelled = False

    def commit(self) -> None:
        """Pass the point of no return: called on the worker, right before the history is saved.

        From here on neither deadline nor disconnect ends the turn, so that history and answer cannot disagree. A turn
        that was cancelled a moment earlier gets CancelledError here and saves nothing.
        """
        with self._lock:
            if self._cancelled:
                raise asyncio.CancelledError
            self._committed = True

    def try_cancel(self) -> bool:
        """Claim the right to cancel; called on the server's loop. False: the turn is as good as finished."""
        with self._lock:
            if self._committed:
                return False
            self._cancelled = True
            return True

    @property
    def committed(self) -> bool:
        """Whether the turn is past its point of no return."""
        return self._committed

    @property
    def cancelled(self) -> bool:
        """Whether the turn was cancelled; it need not have noticed yet."""
        return self._cancelled


class _Job(Generic[RequestT, EventT]):
    """One turn that runs or waits: what was asked, where its events go, and its task once the worker has begun it."""

    def __init__(self, session: Hashable, request: RequestT, outlet: Outlet[EventT]) -> None:
        self.session, self.request, self.outlet = session, request, outlet
        self.turn = Turn()
        self.context = copy_context()  # of whoever asked, not of whoever wakes the worker: it holds the trace
        self.arrived_at = time.monotonic()
        self.task: asyncio.Task[None] | None = None  # set by the worker
        self.begun = False  # set by the task in its first step; a task that is cancelled before has no last words


class Bridge(Generic[RequestT, EventT]):
    """Runs turns on its worker, in order for each session and at most `concurrency` at a time."""

    def __init__(
        self,
        turn: Callable[[RequestT, Turn], AsyncGenerator[EventT, None]],
        *,
        concurrency: int,
        queue_length: int,
    ) -> None:
        self._turn = turn
        self._lock = threading.Lock()
        self._admission = Admission(concurrency=concurrency, queue_length=queue_length)
        self._worker = asyncio.new_event_loop()
        threads = ThreadPoolExecutor(concurrency + _SPARE_THREADS, thread_name_prefix="ropewalk-thread")
        self._worker.set_default_executor(threads)
        self._thread = threading.Thread(target=self._work_until_stopped, name="ropewalk-worker", daemon=True)
        self._to_worker: Mailbox
        self._to_server: Mailbox
        self._jobs: set[_Job[RequestT, EventT]] = set()  # the server's loop only
        self._readers = 0  # the same; a turn that has ended may still have to be told
        self._told = asyncio.Event()
        self._told.set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._ping_sent_at: float | None = None
        self._worker_tasks: set[asyncio.Task[Any]] = set()

    # The server's loop: turns

    async def run(
        self, session: Hashable, request: RequestT, *, timeout_seconds: float, wait_for_session: bool = True
    ) -> AsyncGenerator[EventT, None]:
        """Run one turn and yield its events. To leave early (aclose, or being cancelled) cancels the turn.

        Raises AgentError: not_ready while draining, queue_full, session_busy (where the caller will not wait for an
        earlier turn of the session), timeout (the time in the queue counts), cancelled (see `cancel`), and whatever
        AgentError the turn itself raises; anything else a turn raises passes through.
        """
        if self._draining:
            raise AgentError("not_ready", "the agent is shutting down; ask again, another pod will answer")
        job = _Job(session, request, Outlet[EventT](self._to_worker, self._to_server))
        self._admit(job, wait_for_session)
        self._readers += 1
        self._told.clear()
        timer = asyncio.get_running_loop().call_later(timeout_seconds, self._time_out, job, timeout_seconds)
        try:
            async for event in job.outlet.events():
                yield event
        finally:
            timer.cancel()
            self._cancel(job, None)
            self._readers -= 1
            if not self._readers:
                self._told.set()

    def is_busy(self, session: Hashable) -> bool:
        """Whether a turn of the session runs or waits here."""
        with self._lock:
            return self._admission.is_busy(session)

    def cancel(self, session: Hashable) -> bool:
        """End the session's running turn with code cancelled; those that wait go on. False: none can be ended."""
        with self._lock:
            running = [job for job in self._jobs if job.session == session and not self._admission.is_waiting(job)]
        error = AgentError("cancelled", "the turn was cancelled on request; the session is as it was before it")
        return any(self._cancel(job, error) for job in running)

    def _admit(self, job: _Job[RequestT, EventT], wait_for_session: bool) -> None:
        with self._lock:
            if not wait_for_session and self._admission.is_busy(job.session):
                raise AgentError(
                    "session_busy", "another turn of the session is not finished; ask again, or wait for it"
                )
            has_place = self._admission.take(job.session)
            if not has_place and not self._admission.wait(job, job.session, partial(self._begin, job)):
                message = f"{self._admission.waiting} requests wait already, which is all that queue.maxLength allows"
                raise AgentError("queue_full", message, retry_after_seconds=1)
        self._jobs.add(job)
        self._idle.clear()
        if has_place:
            self._to_worker.post(self._begin, job)

    def _time_out(self, job: _Job[RequestT, EventT], seconds: float) -> None:
        if job.task is None:
            message = f"the turn waited {seconds:g} s in the queue and was not begun"
        else:
            message = f"the turn took longer than {seconds:g} s and was ended; ask for less, or raise the time limit"
        self._cancel(job, AgentError("timeout", message))

    def _cancel(self, job: _Job[RequestT, EventT], error: Exception | None) -> bool:
        """End a turn for its reader now and on the worker as soon as it can be; harmless if it has ended.

        A turn that is past its point of no return ends by itself, and only a reader that has left (no error) is let go.
        Returns whether the turn was ended before that point.
        """
        if job.outlet.ended:
            return False
        with self._lock:
            waited = self._admission.give_up(job)
        if waited:
            job.outlet.cut(error)
            self._finished(job)
        elif job.turn.try_cancel():
            job.outlet.cut(error)
            self._to_worker.post(_cancel_task, job)
        else:
            if error is None:
                job.outlet.cut(None)
            return False
        return True

    def _finished(self, job: _Job[RequestT, EventT]) -> None:
        self._jobs.discard(job)
        if not self._jobs:
            self._idle.set()

    # The worker's loop: turns

    def _begin(self, job: _Job[RequestT, EventT]) -> None:
        job.turn.queue_seconds = time.monotonic() - job.arrived_at
        job.task = self._worker.create_task(self._work(job), context=job.context)

    async def _work(self, job: _Job[RequestT, EventT]) -> None:
        job.begun = True
        error: Exception | None = None
        try:
            if not job.turn.cancelled:
                async with aclosing(self._turn(job.request, job.turn)) as events:
                    async for event in events:
                        # Past its commit a turn cannot be cut, so no reader may keep it from ending.
                        await job.outlet.send(event, may_wait=not job.turn.committed)
        except asyncio.CancelledError:
            # Whoever cancelled has told the reader already; this is for a turn that cancelled itself.
            if not job.turn.cancelled:
                _log.exception("a turn cancelled itself")
            error = internal_error()
        except Exception as raised:
            error = raised
        finally:
            # Only now, with the turn's generator closed, is its place free: so order and concurrency really hold.
            job.outlet.end(error)
            self._to_server.post(self._finished, job)
            with self._lock:
                self._admission.leave(job.session)

    def _work_until_stopped(self) -> None:
        asyncio.set_event_loop(self._worker)
        try:
            self._worker.run_forever()
        finally:
            self._worker.close()

    # The server's loop: everything else

    def start(self) -> None:
        """Start the worker; call it on the server's loop."""
        server = asyncio.get_running_loop()
        self._to_worker, self._to_server = Mailbox(server, self._worker), Mailbox(self._worker, server)
        self._thread.start()

    async def call(self, function: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Run a coroutine function on the worker's loop, beside the turns, and return its result."""

        async def on_worker() -> ResultT:
            return await function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(on_worker(), self._worker))

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine on the worker's loop that lives as long as the worker does."""
        call_on(self._worker, self._keep, coroutine)

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._worker.create_task(coroutine)
        self._worker_tasks.add(task)
        task.add_done_callback(self._worker_tasks.discard)

    @property
    def running(self) -> int:
        """How many turns run."""
        return self._admission.running

    @property
    def waiting(self) -> int:
        """How many turns wait for a place."""
        return self._admission.waiting

    def stuck_seconds(self) -> float:
        """How long the worker's loop has failed to answer a ping; 0.0 if it answered the last one.

        Each call sends a ping unless one is still on its way, so the truth is as fresh as the calls are frequent and
        an idle pod never wakes up for it.
        """
        sent_at = self._ping_sent_at  # read once: the worker may answer at any moment
        if sent_at is not None:
            return time.monotonic() - sent_at
        self._ping_sent_at = time.monotonic()
        call_on(self._worker, self._answer_ping)
        return 0.0

    def _answer_ping(self) -> None:
        self._ping_sent_at = None

    async def drain(self, seconds: float) -> bool:
        """Refuse new turns; let those that are here finish, and cancel what is left. False: some were.

        Then it waits a moment for readers to be told, and no longer: one may have ceased to read.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        try:
            async with asyncio.timeout_at(ends):
                await self._idle.wait()
        except TimeoutError:
            for job in tuple(self._jobs):
                message = "the agent shut down before the turn was finished"
                self._cancel(job, AgentError("not_ready", message, begun=job.task is not None))
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(ends, loop.time() + _TOLD_SECONDS)):
                await self._told.wait()
        return True

    async def stop(self, close: Callable[[], Awaitable[None]], *, timeout_seconds: float) -> None:
        """Run `close` on the worker, then end the worker's thread; gives up on a worker that does not answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self.call(close)
                await self.call(self._cancel_worker_tasks)
        call_on(self._worker, self._worker.stop)
        await asyncio.to_thread(self._thread.join, timeout_seconds)

    async def _cancel_worker_tasks(self) -> None:
        for task in self._worker_tasks:
            task.cancel()
        await asyncio.gather(*self._worker_tasks, return_exceptions=True)


def _cancel_task(job: _Job[Any, Any]) -> None:
    if job.begun and job.task is not None:
        job.task.cancel()
