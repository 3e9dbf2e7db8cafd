"""How workers go on while the API server is in trouble: who pauses, for how long, and who does not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from operator_election import pass_time, simulate
from operator_world import WEBHOOK_AWAY
from ropewalk_operator import workers
from ropewalk_operator.kinds import Key
from ropewalk_operator.kube import ApiError
from ropewalk_operator.metrics import Metrics
from ropewalk_operator.workqueue import JITTER, MAX_DELAY_SECONDS, WorkQueue


@asynccontextmanager
async def working(queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[None]]) -> AsyncIterator[None]:
    """One worker at this queue."""
    worker = asyncio.create_task(workers.work(queue, reconcile, Metrics()))
    yield
    assert not worker.done()
    worker.cancel()


def test_a_worker_pauses_while_the_api_server_is_in_trouble() -> None:
    errors = {
        "a": ApiError(500, "", ""),
        "b": ApiError(429, "", "", 5.0),
        "c": ApiError(403, "", ""),
        "d": ApiError(0, "", ""),
        "f": ApiError(0, "", ""),
    }
    seen: list[tuple[str, float]] = []

    async def reconcile(key: Key) -> None:
        seen.append((key.name, asyncio.get_running_loop().time()))
        if key.name in errors and len(seen) <= len("abcdef"):
            raise errors[key.name]

    async def world() -> None:
        queue: WorkQueue[Key] = WorkQueue(jitter=lambda: 1.0)
        for name in "abcdef":
            queue.add(Key("Agent", "default", name))
        async with working(queue, reconcile):
            await pass_time(60)

    simulate(world())
    assert "".join(name for name, _ in seen[:6]) == "abcdef"
    pauses = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(seen[:7])]
    least = [0.05, 5.0, 0.0, 0.2, 0.0, 0.05]
    assert all(few <= pause <= few * (1 + JITTER) + 0.001 for few, pause in zip(least, pauses, strict=True)), (
        f"{pauses}: a refusal is no trouble, and a success ends it"
    )


def test_what_a_user_has_changed_is_tried_at_once_while_the_api_server_is_in_trouble() -> None:
    tried: list[float] = []

    async def world() -> None:
        queue: WorkQueue[Key] = WorkQueue()
        clock = asyncio.get_running_loop().time

        async def reconcile(key: Key) -> None:
            if key.name == "edited":
                tried.append(clock())
                return
            raise ApiError(500, "", "")

        for number in range(100):
            queue.add(Key("Agent", "default", str(number)))
        async with working(queue, reconcile):
            await pass_time(60)
            began = clock()
            queue.add(Key("Agent", "default", "edited"), urgent=True)
            await pass_time(60)
            assert tried
            assert tried[0] - began <= workers.URGENT_PAUSE_SECONDS

    simulate(world())


def test_an_api_server_that_wants_to_be_left_alone_is_left_alone_whatever_a_user_has_changed() -> None:
    tried: list[float] = []

    async def reconcile(_key: Key) -> None:
        tried.append(asyncio.get_running_loop().time())
        raise ApiError(429, "", "", 30.0)

    async def world() -> None:
        queue: WorkQueue[Key] = WorkQueue()
        for number in range(10):
            queue.add(Key("Agent", "default", str(number)), urgent=True)
        async with working(queue, reconcile):
            await pass_time(100)

    simulate(world())
    assert len(tried) > 2
    assert all(later - earlier >= 30.0 for earlier, later in itertools.pairwise(tried))


def test_a_webhook_that_is_away_slows_nobody_whose_objects_it_does_not_see() -> None:
    done: dict[Key, float] = {}

    async def world() -> None:
        queue: WorkQueue[Key] = WorkQueue()

        async def reconcile(key: Key) -> None:
            if key.namespace == "broken":
                raise ApiError(500, "InternalError", WEBHOOK_AWAY)
            done[key] = asyncio.get_running_loop().time()

        for number in range(50):
            queue.add(Key("Agent", "broken", str(number)))
        async with working(queue, reconcile):
            await pass_time(60)
            began = asyncio.get_running_loop().time()
            queue.add(healthy := Key("Agent", "healthy", "calc"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert done[healthy] == began

    simulate(world())


@pytest.mark.parametrize(
    ("status", "longest"), [(401, 8.0), (409, 8.0), (500, 8.0), (403, MAX_DELAY_SECONDS), (404, MAX_DELAY_SECONDS)]
)
def test_what_passes_by_itself_is_tried_again_sooner_than_what_does_not(status: int, longest: float) -> None:
    tried: list[float] = []

    async def reconcile(_key: Key) -> None:
        tried.append(asyncio.get_running_loop().time())
        raise ApiError(status, "", "")

    async def world() -> None:
        queue: WorkQueue[Key] = WorkQueue(jitter=lambda: 0.0)
        queue.add(Key("Agent", "default", "calc"))
        async with working(queue, reconcile):
            await pass_time(1000)

    simulate(world())
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert pauses[0] < 0.1
    assert longest <= pauses[-1] <= longest * (1 + JITTER)


def test_a_conflict_slows_nobody_else() -> None:
    tried: list[tuple[str, float]] = []

    async def reconcile(key: Key) -> None:
        tried.append((key.name, asyncio.get_running_loop().time()))
        raise ApiError(409, "Conflict", "the object has been modified")

    async def world() -> None:
        queue: WorkQueue[Key] = WorkQueue()
        for name in "abc":
            queue.add(Key("Agent", "default", name))
        async with working(queue, reconcile):
            await pass_time(0.01)

    simulate(world())
    assert tried == [("a", 0.0), ("b", 0.0), ("c", 0.0)]


async def test_no_delay_is_shorter_than_what_the_api_server_asks_for() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 0.0)
    assert queue.retry("new", at_least=30.0) == 30.0
