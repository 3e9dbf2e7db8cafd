"""The one worker of a pod: a thread with an event loop of its own, and the way in and out of it.

The server's loop submits turns and reads their events; the turns themselves run on the worker's loop, so that
/health, /ready and a refusal are answered even while a tool hogs the worker. A turn is an async generator function
given to `Bridge`: this module knows neither the web framework nor Strands.

Which thread touches what:
- admission, deadlines and everything in `Bridge.run` belong to the server's loop;
- the turn's generator and its task belong to the worker's loop;
- `_Outlet` (the events of one turn) and `Turn` (may it still be cancelled?) are shared and hold a lock.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

from ropewalk_agent.admission import Admission
from ropewalk_agent.errors import AgentError, internal_error

RequestT = TypeVar("RequestT")
EventT = TypeVar("EventT")
ResultT = TypeVar("ResultT")

_BUFFERED_EVENTS = 64
"""How many events of a turn may wait for a slow reader before the turn itself waits."""


class Turn:
    """What a running turn knows of its own place in the bridge."""

    def __init__(self, queue_seconds: float) -> None:
        self.queue_seconds = queue_seconds
        """How long the turn waited for its place."""
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


class _Outlet(Generic[EventT]):
    """The events of one turn on their way from the worker's loop (`send`) to the server's loop (`events`)."""

    def __init__(self, worker: asyncio.AbstractEventLoop, server: asyncio.AbstractEventLoop) -> None:
        self._worker, self._server = worker, server
        self._lock = threading.Lock()
        self._items: deque[EventT] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._arrival = asyncio.Event()  # awaited on the server's loop only
        self._room = asyncio.Event()  # awaited on the worker's loop only

    async def send(self, event: EventT) -> None:
        """Hand over one event; waits while the reader is far behind, drops the event once nobody reads."""
        while True:
            with self._lock:
                if self._ended:
                    return
                if len(self._items) < _BUFFERED_EVENTS:
                    self._items.append(event)
                    wake_reader = len(self._items) == 1
                    break
                self._room.clear()
            await self._room.wait()
        if wake_reader:
            _call_on(self._server, self._arrival.set)

    def end(self, error: Exception | None = None, *, at_once: bool = False) -> None:
        """Close the stream, from either loop; only the first call counts. `at_once` drops what was not yet read."""
        with self._lock:
            if self._ended:
                return
            self._ended, self._error = True, error
            if at_once:
                self._items.clear()
        _call_on(self._server, self._arrival.set)
        _call_on(self._worker, self._room.set)

    async def events(self) -> AsyncIterator[EventT]:
        """Yield the events in order, then raise the turn's error if it had one."""
        while True:
            with self._lock:
                if self._items:
                    event = self._items.popleft()
                    wake_worker = len(self._items) == _BUFFERED_EVENTS // 2
                elif self._ended:
                    if self._error is not None:
                        raise self._error
                    return
                else:
                    self._arrival.clear()
                    event, wake_worker = None, False
            if event is None:
                await self._arrival.wait()
                continue
            if wake_worker:
                _call_on(self._worker, self._room.set)
            yield event


class _Job(Generic[RequestT, EventT]):
    """One admitted turn: what was asked, where its events go, and its task once the worker has begun it."""

    def __init__(self, session: Hashable, request: RequestT, turn: Turn, outlet: _Outlet[EventT]) -> None:
        self.session, self.request, self.turn, self.outlet = session, request, turn, outlet
        self.task: asyncio.Task[None] | None = None  # the worker's loop only


class Bridge(Generic[RequestT, EventT]):
    """Runs turns on its worker, in order for each session and at most `concurrency` at a time."""

    def __init__(
        self,
        turn: Callable[[RequestT, Turn], AsyncGenerator[EventT, None]],
        *,
        concurrency: int,
        queue_length: int,
        tool_threads: int = 8,
    ) -> None:
        self._turn = turn
        self._admission = Admission(concurrency=concurrency, queue_length=queue_length)
        self._worker = asyncio.new_event_loop()
        self._worker.set_default_executor(ThreadPoolExecutor(tool_threads, thread_name_prefix="ropewalk-tool"))
        self._thread = threading.Thread(target=self._work_until_stopped, name="ropewalk-worker", daemon=True)
        self._server: asyncio.AbstractEventLoop | None = None
        self._jobs: set[_Job[RequestT, EventT]] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._ping_sent_at: float | None = None
        self._worker_tasks: set[asyncio.Task[Any]] = set()

    # The server's loop: turns

    async def run(
        self, session: Hashable, request: RequestT, *, timeout_seconds: float
    ) -> AsyncGenerator[EventT, None]:
        """Run one turn and yield its events. To leave early (aclose, or being cancelled) cancels the turn.

        Raises AgentError: not_ready while draining, queue_full, timeout (the time in the queue counts), and whatever
        AgentError the turn itself raises; anything else a turn raises passes through.
        """
        server = asyncio.get_running_loop()
        deadline = server.time() + timeout_seconds
        if self._draining:
            raise AgentError("not_ready", "the agent is shutting down; ask again, another pod will answer")
        self._idle.clear()
        try:
            queue_seconds = await self._take_a_place(session, timeout_seconds)
        finally:
            self._note_idle()
        job = _Job(session, request, Turn(queue_seconds), _Outlet[EventT](self._worker, server))
        self._jobs.add(job)
        self._idle.clear()
        _call_on(self._worker, self._begin, job)
        message = (
            f"the turn took longer than {timeout_seconds:g} s and was ended; ask for less, or raise the time limit"
        )
        timer = server.call_at(deadline, self._cancel, job, AgentError("timeout", message))
        try:
            async for event in job.outlet.events():
                yield event
        finally:
            timer.cancel()
            self._cancel(job, None)

    async def _take_a_place(self, session: Hashable, timeout_seconds: float) -> float:
        """Wait for a place and return the seconds that it took; a caller that leaves gives its turn up."""
        if self._admission.take(session):
            return 0.0
        started = time.monotonic()
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._admission.wait(admitted, session, lambda: admitted.set_result(None)):
            message = f"{self._admission.waiting} requests wait already, which is all that queue.maxLength allows"
            raise AgentError("queue_full", message, retry_after_seconds=1)
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(admitted)
        except BaseException as error:
            self._admission.give_up(admitted)
            if admitted.done():  # the place came in the same instant: hand it on
                self._admission.leave(session)
            if isinstance(error, TimeoutError):
                message = f"the turn waited {timeout_seconds:g} s in the queue and was not begun"
                raise AgentError("timeout", message) from None
            raise
        return time.monotonic() - started

    def _cancel(self, job: _Job[RequestT, EventT], error: Exception | None) -> None:
        """End a turn for its reader now and on the worker as soon as it can be; harmless if it has ended."""
        if job in self._jobs and job.turn.try_cancel():
            job.outlet.end(error, at_once=True)
            _call_on(self._worker, _cancel_task, job)
        elif error is None:
            job.outlet.end(at_once=True)  # nobody reads any more; a committed turn ends by itself

    def _finished(self, job: _Job[RequestT, EventT]) -> None:
        """The worker is done with the turn: only now is its place free, so order and concurrency really hold."""
        self._jobs.discard(job)
        self._admission.leave(job.session)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._jobs and self._admission.running == 0 and self._admission.waiting == 0:
            self._idle.set()

    # The worker's loop: turns

    def _begin(self, job: _Job[RequestT, EventT]) -> None:
        job.task = self._worker.create_task(self._work(job))
        job.task.add_done_callback(lambda _: _call_on(self._server, self._finished, job))

    async def _work(self, job: _Job[RequestT, EventT]) -> None:
        try:
            async with aclosing(self._turn(job.request, job.turn)) as events:
                async for event in events:
                    await job.outlet.send(event)
        except asyncio.CancelledError:
            # Whoever cancelled has told the reader already; this is for a turn that cancelled itself.
            job.outlet.end(internal_error())
        except Exception as error:
            job.outlet.end(error)
        else:
            job.outlet.end()

    def _work_until_stopped(self) -> None:
        asyncio.set_event_loop(self._worker)
        try:
            self._worker.run_forever()
        finally:
            self._worker.close()

    # The server's loop: everything else

    def start(self) -> None:
        """Start the worker; call it on the server's loop."""
        self._server = asyncio.get_running_loop()
        self._thread.start()

    async def call(self, function: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Run a coroutine function on the worker's loop, beside the turns, and return its result."""

        async def on_worker() -> ResultT:
            return await function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(on_worker(), self._worker))

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine on the worker's loop that lives as long as the worker does."""
        _call_on(self._worker, self._keep, coroutine)

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

    @property
    def draining(self) -> bool:
        """Whether new turns are refused because the pod is going away."""
        return self._draining

    def stuck_seconds(self) -> float:
        """How long the worker's loop has failed to answer a ping; 0.0 if it answered the last one.

        Each call sends a ping unless one is still on its way, so the truth is as fresh as the calls are frequent and
        an idle pod never wakes up for it.
        """
        if self._ping_sent_at is not None:
            return time.monotonic() - self._ping_sent_at
        self._ping_sent_at = time.monotonic()
        _call_on(self._worker, self._answer_ping)
        return 0.0

    def _answer_ping(self) -> None:
        self._ping_sent_at = None

    async def drain(self, seconds: float) -> bool:
        """Refuse new turns and let those that run or wait finish; cancels what is left. False: some were left."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            for job in tuple(self._jobs):
                self._cancel(job, AgentError("not_ready", "the agent shut down before the turn was finished"))
            return False
        return True

    async def stop(self, close: Callable[[], Awaitable[None]], *, timeout_seconds: float) -> None:
        """Run `close` on the worker, then end the worker's thread; gives up on a worker that does not answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self.call(close)
                await self.call(self._cancel_worker_tasks)
        _call_on(self._worker, self._worker.stop)
        await asyncio.to_thread(self._thread.join, timeout_seconds)

    async def _cancel_worker_tasks(self) -> None:
        for task in self._worker_tasks:
            task.cancel()
        await asyncio.gather(*self._worker_tasks, return_exceptions=True)


def _cancel_task(job: _Job[Any, Any]) -> None:
    # Runs on the worker's loop after _begin, because a loop keeps the order of what it is handed.
    if job.task is not None:
        job.task.cancel()


def _call_on(loop: asyncio.AbstractEventLoop | None, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function soon on another thread's loop; a loop that is closed already needs no telling."""
    if loop is not None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function, *arguments)
