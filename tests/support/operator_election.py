"""A simulated world for elections: time that passes at once, a strict store of one Lease, and processes that stop.

All of it runs in one event loop whose clock jumps to the next thing that is due, so that hours take milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ropewalk_operator.guard import Guard, NotLeading
from ropewalk_operator.kinds import Key
from ropewalk_operator.kube import ApiError
from ropewalk_operator.leader import Election, LeaseLost

T = TypeVar("T")

PLACE = Key("Lease", "default", "ropewalk-operator")


class _Selector(selectors.DefaultSelector):
    """Never waits: it tells the loop's clock how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing is due any more")
        self.passed += timeout
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        """Seconds since the simulation began."""
        return self._simulated.passed


def simulate(world: Coroutine[Any, Any, T]) -> T:
    """Run it in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(world)


async def pass_time(seconds: float) -> None:
    """Let simulated time pass; a test that would really wait fails."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop), "this is real time"
    over = asyncio.Event()
    loop.call_later(seconds, over.set)
    await over.wait()


@dataclass
class Weather:
    """How the way to the API server is: seconds that a request takes, and how often something goes wrong."""

    latency: tuple[float, float] = (0.001, 0.01)
    unreachable: float = 0.0
    """The chance that a request never arrives."""
    unanswered: float = 0.0
    """The chance that a write of the Lease arrives, and its answer does not."""


class Store:
    """One Lease, kept as the API server keeps it; `log` has every accepted write of it."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.body: dict[str, Any] | None = None
        self.versions = 0

    def read(self) -> dict[str, Any] | None:
        """The Lease or None."""
        return self.body

    def write(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create or replace it, with the preconditions of the API server."""
        wanted = manifest["metadata"].get("resourceVersion")
        if wanted is None and self.body is not None:
            raise ApiError(409, "AlreadyExists", "it exists")
        if wanted is not None and (self.body is None or self.body["metadata"]["resourceVersion"] != wanted):
            raise ApiError(409, "Conflict", "it has changed")
        assert int(manifest["spec"]["leaseDurationSeconds"]) > 0, "the API server refuses it"
        uid = self.body["metadata"]["uid"] if self.body else f"uid-{self.versions}"
        self.versions += 1
        metadata = {**manifest["metadata"], "uid": uid, "resourceVersion": str(self.versions)}
        self.body = {**manifest, "metadata": metadata}
        return self.body

    @property
    def holder(self) -> str:
        """Who holds it, by what it says."""
        return self.body["spec"]["holderIdentity"] if self.body else ""


@dataclass
class Process:
    """An operator as far as the election goes: it campaigns, leads while it can, and writes all the time.

    `offset` is what its clock, and `wall` what the clock on its wall shows at the beginning.
    """

    identity: str
    store: Store
    offset: float = 0.0
    wall: float = 1_700_000_000.0
    weather: Weather = field(default_factory=Weather)
    writes: list[tuple[float, float]] = field(default_factory=list)
    """When each write was sent, and when it was over."""
    lost: str = ""

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._runs = asyncio.Event()
        self._runs.set()
        self.guard = Guard(self.clock)
        self.election = Election(
            self, self.guard, PLACE, identity=self.identity, clock=self.clock, wall_clock=lambda: self.wall
        )
        self._task: asyncio.Task[None] | None = None

    def clock(self) -> float:
        """Seconds of this process's own clock."""
        return self.offset + self._loop.time()

    def start(self) -> Process:
        """Begin to campaign."""
        self._task = asyncio.create_task(self._live())
        return self

    def pause(self) -> None:
        """SIGSTOP: nothing that it does goes on."""
        self._runs.clear()

    def go_on(self) -> None:
        """SIGCONT."""
        self._runs.set()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._task is not None
        self._task.cancel()
        self.guard.close()

    async def stop(self) -> None:
        """SIGTERM."""
        assert self._task is not None
        self._task.cancel()
        await self.election.release()

    async def _live(self) -> None:
        await self.election.campaign()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.election.hold())
                tasks.create_task(self._work())
        except* LeaseLost as errors:
            self.lost = str(errors.exceptions[0])
            self.guard.close()

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.store.random.uniform(0, 1))
            await self._runs.wait()
            try:
                with suppress(TimeoutError), self.guard.writing() as left:
                    await self._write(left)
            except NotLeading:
                return

    async def _write(self, left: float) -> None:
        begun = self._loop.time()
        try:
            # The connection closes when the time is over, and what has not come into force by then never will.
            async with asyncio.timeout(left):
                await asyncio.sleep(self.store.random.uniform(*self.weather.latency))
        finally:
            self.writes.append((begun, self._loop.time()))

    async def read_lease(self, namespace: str, name: str, within_seconds: float) -> dict[str, Any] | None:
        """As the connection to the API server, in this process's weather."""
        assert (namespace, name) == PLACE[1:]
        return await self._carried(within_seconds, self.store.read, 0.0)

    async def write_lease(
        self, namespace: str, name: str, manifest: Mapping[str, Any], within_seconds: float
    ) -> dict[str, Any]:
        """As the connection to the API server, in this process's weather."""
        assert (namespace, name) == PLACE[1:]
        return await self._carried(within_seconds, lambda: self.store.write(manifest), self.weather.unanswered)

    async def _carried(self, within_seconds: float, ask: Callable[[], T], unanswered: float) -> T:
        await self._runs.wait()
        try:
            async with asyncio.timeout(within_seconds):
                chance = self.store.random
                await asyncio.sleep(chance.uniform(*self.weather.latency))
                if chance.random() < self.weather.unreachable:
                    await asyncio.sleep(within_seconds)
                answer = ask()
                if chance.random() < unanswered:
                    await asyncio.sleep(within_seconds)
                await asyncio.sleep(chance.uniform(*self.weather.latency))
        except TimeoutError:
            raise ApiError(0, "Unreachable", "no answer") from None
        finally:
            # Whatever comes, a process that is stopped learns of it when it goes on.
            await self._runs.wait()
        return answer


def overlaps(processes: list[Process]) -> list[str]:
    """Where a process has written while another one was still writing, or in between its writes as a leader."""
    spans = []
    for each in processes:
        if each.writes:
            spans.append((min(begun for begun, _ in each.writes), max(over for _, over in each.writes), each.identity))
    spans.sort()
    return [
        f"{after[2]} began at {after[0]:.3f}, {before[2]} ended at {before[1]:.3f}"
        for before, after in itertools.pairwise(spans)
        if after[0] < before[1]
    ]
