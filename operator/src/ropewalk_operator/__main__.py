"""Starts the operator: settings, connection, endpoints, watches, election, workers; and ends it on SIGTERM.

Nothing is saved at the end: every step can be repeated, so that SIGKILL does no more harm than SIGTERM. Only the
Lease is given up, so that nobody has to wait for its end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Collection, Coroutine
from typing import Any

from ropewalk_operator import __version__, handlers, leader, logs, metrics, server, settings, watches, workers
from ropewalk_operator.answers import Answers
from ropewalk_operator.api import API_VERSION
from ropewalk_operator.apply import Applier
from ropewalk_operator.asking import asking
from ropewalk_operator.cache import Cache
from ropewalk_operator.discovery import Discovery
from ropewalk_operator.guard import Guard
from ropewalk_operator.kinds import LEASE, RESOURCES, Key
from ropewalk_operator.kube import ApiError, Kube
from ropewalk_operator.observe import AgentClient
from ropewalk_operator.patience import Patience
from ropewalk_operator.reconcile import Options, Reconciler
from ropewalk_operator.workqueue import WorkQueue

logger = logging.getLogger("ropewalk_operator")

STOP_SECONDS = 1.0
OBJECTS_PER_COLLECTION = 10_000
LAST_WORD_SECONDS = 5.0
"""A worker ends where it may write no more. Why that is, the election says, at its next renewal at the latest."""


class CannotGoOn(Exception):
    """The operator has to end; Kubernetes starts it again."""


class Operator:
    """The parts of one process, put together; made inside the event loop."""

    def __init__(
        self, chosen: settings.Settings, kube: Kube, election: leader.Election, counted: metrics.Metrics
    ) -> None:
        self._settings = chosen
        self._kube = kube
        self._election = election
        self._metrics = counted
        self._cache = Cache()
        self._queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop())
        self._watches = watches.Watches(chosen.watch_namespaces, time.monotonic)
        self._patience = Patience()
        self._agents = AgentClient()
        self._leads = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._reconciler = Reconciler(
            cache=self._cache,
            applier=Applier(kube, self._cache),
            connection=kube,
            discovery=Discovery(
                self._queue.add,
                every_seconds=chosen.resync_seconds,
                clock=time.monotonic,
                ask=asking(self._agents.tools),
            ),
            ask_ready=Answers(self._agents.ready, self._queue.add).ready,
            options=Options(
                chosen.agent_image,
                chosen.stdio_image,
                chosen.image_pull_policy,
                scrapers=chosen.scrapers,
                fixed_user=chosen.fixed_user,
            ),
            enqueue=self._queue.add,
            is_pressed=lambda: self._queue.is_pressed,
            clock=time.time,
            uptime=time.monotonic,
            server_clock=kube.clock,
        )
        counted.read_at_scrape(self._cache, self._queue, self._watches.ages, lambda: election.leads)

    async def run(self) -> None:
        """Run until a signal. Raises what makes it impossible to go on."""
        self._catch_signals()
        runner = await server.start(
            server.app(
                health=self._watches.problems,
                ready=self._unready,
                metrics=self._metrics.text,
                metrics_type=metrics.CONTENT_TYPE,
            ),
            self._settings.host,
            self._settings.port,
        )
        try:
            self._start(self._work(), "start")
            await self._over
        finally:
            await self._step_down()
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            await runner.cleanup()
            await self._agents.close()

    async def _work(self) -> None:
        served = await self._patience.ask(lambda: self._kube.served(API_VERSION))
        if unknown := [kind.plural for kind in RESOURCES if kind.plural not in served]:
            raise CannotGoOn(
                f"the API server knows no {', '.join(unknown)} of {API_VERSION}; "
                "install the CRDs of this release first, the chart brings them"
            )
        await self._election.look()
        self._watches.begin()
        silence = self._settings.watch_silence_seconds
        watcher = handlers.Watcher(
            self._cache, self._watches, self._kube, self._enqueue, self._patience, silence_seconds=silence
        )
        self._start(_until_one_fails(watcher.watch()), "watching")
        await self._watches.settled()
        self._cache.synced = True
        counts = {"resources": len(self._cache.resources), "children": len(self._cache.children)}
        logger.info("the caches are filled", extra={"fields": counts})
        every = self._settings.resync_seconds
        self._start(workers.resync(self._cache, self._kube, self._watches, self._enqueue, every), "resync")
        await self._election.campaign()
        self._start(self._election.hold(), "election")
        # A watch may have hung for a while without a sign, and what the last leader has applied would be taken back.
        if not self._election.follows_nobody:
            await workers.catch_up(self._cache, self._kube, self._watches, self._patience)
        self._lead()

    def _lead(self) -> None:
        self._leads = True
        for key, body in self._cache.resources.items():
            # What its user has changed since anybody has looked at it goes first.
            is_behind = (body.get("status") or {}).get("observedGeneration") != body["metadata"]["generation"]
            self._enqueue(key, is_behind)
        for number in range(self._settings.workers):
            self._start(workers.work(self._queue, self._reconciler.reconcile, self._metrics), f"worker {number}")

    async def _step_down(self) -> None:
        # The workers go on until what they write has an answer: a write that is cut off may still come into force.
        for task in self._tasks:
            if task.get_name() in ("start", "election"):
                task.cancel()
        await self._election.release()

    def _unready(self) -> list[str]:
        if not self._cache.synced:
            why = self._patience.waits_for
            waits = (
                f"waiting for the API server: {why}" if why else f"to be watched: {', '.join(self._watches.missing())}"
            )
            return [f"the caches are not filled yet; {waits}"]
        return self._election.problems()

    def _enqueue(self, key: Key, urgent: bool) -> None:
        # Before this process leads it decides nothing; then every resource is looked at once.
        if self._leads:
            self._queue.add(key, urgent=urgent)

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._has_ended)
        self._tasks.append(task)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._fail(error)
        elif task.get_name() != "start":
            # Only the start may end by itself, when the loops have taken over.
            ended = CannotGoOn(f"{task.get_name()} has ended")
            asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._fail, ended)

    def _fail(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._end)


async def _until_one_fails(tasks: Collection[asyncio.Task[Any]]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    errors = [task.exception() for task in done if not task.cancelled()]
    # The others are not waited for: their way out takes seconds, and there is nothing to save.
    raise CannotGoOn(f"watching has ended: {errors[0]!r}" if errors else "watching was cancelled")


async def run(chosen: settings.Settings) -> int:
    """Run the operator; the exit code of the process."""
    counted = metrics.Metrics()
    guard = Guard(leader.uptime)
    # A container that is started again in the same pod goes on with the Lease that it held; nobody else has its uid.
    identity = f"{chosen.identity}_{chosen.pod_uid or uuid.uuid4()}"
    agent = f"ropewalk-operator-{identity}"
    try:
        kube = await Kube.connect(guard, counted.api_request, agent=agent, timeout_seconds=chosen.api_timeout_seconds)
        # A renewal must not wait for a connection behind the work of all workers.
        lease_kube = await Kube.connect(guard, counted.api_request, agent=agent)
    except ApiError as error:
        logger.error("the operator cannot start", extra={"fields": {"error": str(error)}})
        return 2
    fields = {"version": __version__, "identity": chosen.identity, "server": kube.server}
    logger.info("the operator starts", extra={"fields": fields})
    place = Key(LEASE.name, chosen.lease_namespace, chosen.lease_name)
    election = leader.Election(lease_kube, guard, place, identity=identity, clock=leader.uptime, wall_clock=time.time)
    code = 0
    try:
        await Operator(chosen, kube, election, counted).run()
    except (ApiError, CannotGoOn, leader.LeaseLost) as error:
        logger.error("the operator cannot go on", extra={"fields": {"error": str(error)}})
        code = 1
    except Exception:
        logger.exception("the operator cannot go on")
        code = 1
    await kube.close()
    await lease_kube.close()
    logger.info("the operator ends", extra={"fields": {"exit_code": code}})
    return code


def main() -> int:
    """The process; its exit code."""
    try:
        chosen = settings.load(os.environ)
    except settings.InvalidSettings as error:
        logs.configure("info")
        logger.error("the operator cannot start", extra={"fields": {"error": str(error)}})
        return 2
    logs.configure(chosen.log_level)
    # Listings bring thousands of objects that stay. To look for garbage among them after every few hundred was a
    # fifth of a start's CPU.
    gc.freeze()
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(run(chosen))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Without waiting for what is left of kopf's tasks: there is nothing to save.
    os._exit(code)
