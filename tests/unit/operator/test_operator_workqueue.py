import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ropewalk_operator.workqueue import MAX_DELAY_SECONDS, WorkQueue


@dataclass
class Alarm:
    due: float
    callback: Callable[[Any], None]
    key: Any
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeClock:
    now: float = 0.0
    alarms: list[Alarm] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[Any], None], key: Any, /) -> Alarm:
        alarm = Alarm(self.now + delay, callback, key)
        self.alarms.append(alarm)
        return alarm

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for alarm in [alarm for alarm in self.alarms if alarm.due <= self.now]:
            self.alarms.remove(alarm)
            if not alarm.cancelled:
                alarm.callback(alarm.key)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue[str]:
    return WorkQueue(clock, jitter=lambda: 0.0)


async def test_a_key_that_waits_among_the_others_goes_before_them_once_it_is_urgent(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    queue.add("c", urgent=True)
    await asyncio.wait_for(queue.pressed(), 10)
    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]
    assert queue.depth == 0


async def test_nothing_is_urgent_any_more_once_the_last_urgent_key_runs(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key, urgent=key != "c")
    for expected in (True, False, False):
        await queue.get()
        pressed = asyncio.create_task(queue.pressed())
        await asyncio.sleep(0)
        assert pressed.done() == expected
        pressed.cancel()


async def test_a_key_that_waits_is_not_added_twice(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert queue.depth == 1
    assert await queue.get() == "a"
    assert queue.depth == 0


async def test_a_key_in_flight_waits_until_it_is_done_and_then_runs_again(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert queue.depth == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.depth == 0


async def test_keys_come_in_the_order_in_which_they_were_added(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


async def test_urgent_keys_go_first(queue: WorkQueue[str]) -> None:
    queue.add("echo")
    queue.add("edit", urgent=True)
    assert queue.is_pressed
    assert [await queue.get(), await queue.get()] == ["edit", "echo"]
    assert not queue.is_pressed


async def test_an_urgent_key_in_flight_is_urgent_again_when_it_is_done(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("b")
    queue.add("a", urgent=True)
    queue.done("a")
    assert await queue.get() == "a"


async def test_a_worker_that_waits_gets_the_next_key(queue: WorkQueue[str]) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await waiting == "a"


async def test_a_cancelled_worker_does_not_take_the_key_with_it(queue: WorkQueue[str]) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"


async def test_a_delayed_key_runs_when_it_is_due(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    clock.advance(4)
    assert queue.depth == 0
    clock.advance(1)
    assert queue.depth == 1


@pytest.mark.parametrize("when", ["in flight", "waiting"])
async def test_a_key_that_was_told_to_wait_is_not_taken_before_its_time(
    queue: WorkQueue[str], clock: FakeClock, when: str
) -> None:
    queue.add("a")
    await queue.get()
    if when == "in flight":
        queue.add("a", urgent=True)
    delay = queue.retry("a", at_least=30)
    queue.done("a")
    if when == "waiting":
        queue.add("a", urgent=True)
    queue.add("b")
    queue.add_after("a", 1)
    clock.advance(delay - 1)
    assert await queue.get() == "b"
    assert queue.depth == 0, "not even for an edit, and not for an earlier look"
    clock.advance(1)
    queue.add("c")
    assert [await queue.get(), await queue.get()] == ["a", "c"]
    queue.done("a")
    queue.add("a")
    assert await queue.get() == "a", "once it has waited it is a key like the others"


async def test_of_two_delays_the_shorter_counts(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add_after("a", 1)
    queue.add_after("a", 9)
    clock.advance(1)
    assert queue.depth == 1
    await queue.get()
    queue.done("a")
    clock.advance(20)
    assert queue.depth == 0


async def test_a_run_makes_a_pending_delay_void(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    await queue.get()
    queue.done("a")
    clock.advance(10)
    assert queue.depth == 0


async def test_the_delay_after_errors_doubles_up_to_a_limit_and_begins_anew_after_success(
    queue: WorkQueue[str],
) -> None:
    delays = [queue.retry("a") for _ in range(4)]
    assert delays == [delays[0] * factor for factor in (1, 2, 4, 8)]
    assert max(queue.retry("a") for _ in range(40)) == MAX_DELAY_SECONDS
    queue.forgive("a")
    assert queue.retry("a") == delays[0]
    assert queue.retries == 45


async def test_jitter_makes_the_delay_longer_never_shorter(clock: FakeClock) -> None:
    plain = WorkQueue[str](clock, jitter=lambda: 0.0).retry("a")
    jittered = WorkQueue[str](clock, jitter=lambda: 1.0).retry("a")
    assert plain < jittered < 2 * plain


async def test_a_key_never_runs_twice_at_once_with_many_workers() -> None:
    queue: WorkQueue[int] = WorkQueue()
    running: set[int] = set()
    runs = 0

    async def worker() -> None:
        nonlocal runs
        while runs < 300:
            key = await queue.get()
            assert key not in running
            running.add(key)
            await asyncio.sleep(0)
            queue.add((key + 1) % 7)
            queue.add(key)
            await asyncio.sleep(0)
            running.discard(key)
            runs += 1
            queue.done(key)

    queue.add(0)
    workers = [asyncio.create_task(worker()) for _ in range(5)]
    await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
    for each in workers:
        each.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert not [result for result in results if isinstance(result, AssertionError)]
    assert runs >= 300
