"""The worker: order, interleaving, deadline, cancel, slow readers, drain. No HTTP and no Strands."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from agent_models import Gate
from ropewalk_agent import bridge as bridge_module
from ropewalk_agent.bridge import Bridge, Turn
from ropewalk_agent.errors import AgentError
from waiting import eventually

AnyBridge = Bridge[Any, Any]


async def _nothing() -> None:
    pass


@asynccontextmanager
async def running(turn: Callable[[Any, Turn], AsyncGenerator[Any, None]], **options: Any) -> AsyncIterator[AnyBridge]:
    bridge: AnyBridge = Bridge(turn, **{"concurrency": 4, "queue_length": 10, **options})
    bridge.start()
    try:
        yield bridge
    finally:
        await bridge.drain(0.0)
        await bridge.stop(_nothing, timeout_seconds=2)


async def all_of(
    bridge: AnyBridge, session: str, request: object, timeout_seconds: float = 5.0, **options: bool
) -> list[Any]:
    async with aclosing(bridge.run(session, request, timeout_seconds=timeout_seconds, **options)) as events:
        return [event async for event in events]


async def gated(gate: Gate, turn: Turn) -> AsyncGenerator[str, None]:
    await gate.pass_through()
    yield "done"


async def test_a_turn_runs_on_the_workers_thread_and_its_events_come_back_in_order() -> None:
    threads = set()

    async def turn(request: int, _: Turn) -> AsyncGenerator[int, None]:
        for number in range(request):
            threads.add(threading.current_thread().name)
            yield number

    async with running(turn) as bridge:
        assert await all_of(bridge, "s", 500) == list(range(500))
    assert threads == {"ropewalk-worker"}


async def test_turns_of_one_session_run_one_by_one_in_order_of_arrival() -> None:
    log = []

    async def turn(request: int, _: Turn) -> AsyncGenerator[int, None]:
        log.append(("begin", request))
        await asyncio.sleep(0)
        log.append(("end", request))
        yield request

    async with running(turn) as bridge:
        await asyncio.gather(*(all_of(bridge, "s", number) for number in range(5)))
    assert log == [(what, number) for number in range(5) for what in ("begin", "end")]


async def test_turns_of_different_sessions_interleave_up_to_the_concurrency() -> None:
    gates = [Gate() for _ in range(3)]
    async with running(gated, concurrency=2) as bridge:
        turns = [asyncio.create_task(all_of(bridge, str(i), gate)) for i, gate in enumerate(gates)]
        await gates[0].wait_reached()
        await gates[1].wait_reached()
        assert (bridge.running, bridge.waiting) == (2, 1)
        assert not gates[2].reached.is_set()
        gates[1].open()
        await gates[2].wait_reached()
        for gate in gates:
            gate.open()
        assert await asyncio.gather(*turns) == [["done"]] * 3


async def test_a_full_queue_refuses_with_retry_after() -> None:
    gate = Gate()
    async with running(gated, concurrency=1, queue_length=0) as bridge:
        first = asyncio.create_task(all_of(bridge, "a", gate))
        await gate.wait_reached()
        with pytest.raises(AgentError) as refused:
            await all_of(bridge, "b", gate)
        assert (refused.value.code, refused.value.retry_after_seconds) == ("queue_full", 1)
        gate.open()
        assert await first == ["done"]


async def test_who_leaves_the_queue_gives_its_turn_up() -> None:
    gate, never = Gate(), Gate()
    async with running(gated, concurrency=1) as bridge:
        first = asyncio.create_task(all_of(bridge, "a", gate))
        await gate.wait_reached()
        waiting = asyncio.create_task(all_of(bridge, "b", never))
        await eventually(lambda: bridge.waiting == 1)
        waiting.cancel()
        await eventually(lambda: bridge.waiting == 0)
        gate.open()
        assert await first == ["done"]
        await eventually(lambda: bridge.running == 0)
    assert not never.reached.is_set()


async def test_the_deadline_ends_a_turn_and_frees_its_place() -> None:
    gate, ended = Gate(), threading.Event()

    async def turn(request: Gate, _: Turn) -> AsyncGenerator[str, None]:
        try:
            await request.pass_through()
            yield "done"
        finally:
            ended.set()

    async with running(turn, concurrency=1) as bridge:
        with pytest.raises(AgentError) as late:
            await all_of(bridge, "s", gate, timeout_seconds=0.05)
        assert late.value.code == "timeout"
        open_gate = Gate()
        open_gate.open()
        assert await all_of(bridge, "s", open_gate) == ["done"]
        assert ended.is_set()


async def test_the_deadline_counts_the_time_in_the_queue() -> None:
    gate = Gate()
    async with running(gated, concurrency=1) as bridge:
        first = asyncio.create_task(all_of(bridge, "a", gate))
        await gate.wait_reached()
        with pytest.raises(AgentError) as late:
            await all_of(bridge, "b", gate, timeout_seconds=0.05)
        assert late.value.code == "timeout"
        assert "queue" in late.value.message
        gate.open()
        assert await first == ["done"]


async def test_a_worker_that_is_hogged_does_not_delay_the_deadlines_answer() -> None:
    release = threading.Event()

    async def hog(_: None, __: Turn) -> AsyncGenerator[str, None]:
        release.wait(5)
        yield "done"

    async with running(hog) as bridge:
        with pytest.raises(AgentError) as late:
            await all_of(bridge, "s", None, timeout_seconds=0.05)
        assert late.value.code == "timeout"
        assert bridge.running == 1, "the place is not free before the worker has let go"
        bridge.stuck_seconds()
        await eventually(lambda: bridge.stuck_seconds() > 0.02)
        release.set()
        await eventually(lambda: bridge.running == 0)
        await eventually(lambda: bridge.stuck_seconds() == 0.0)


async def test_a_reader_that_leaves_cancels_the_turn_and_the_session_goes_on() -> None:
    gate = Gate()

    async def turn(request: Gate, _: Turn) -> AsyncGenerator[str, None]:
        yield "first"
        await request.pass_through()
        yield "second"

    async with running(turn, concurrency=1) as bridge:
        async with aclosing(bridge.run("s", gate, timeout_seconds=5)) as events:
            assert await anext(events) == "first"
            await gate.wait_reached()
        open_gate = Gate()
        open_gate.open()
        assert await all_of(bridge, "s", open_gate) == ["first", "second"]


async def test_a_committed_turn_is_finished_although_the_deadline_passes() -> None:
    gate, saved = Gate(), threading.Event()

    async def turn(request: Gate, turn: Turn) -> AsyncGenerator[str, None]:
        turn.commit()
        await request.pass_through()
        saved.set()
        yield "done"

    async with running(turn) as bridge:
        result = asyncio.create_task(all_of(bridge, "s", gate, timeout_seconds=0.02))
        await gate.wait_reached()
        deadline = time.monotonic() + 0.05
        await eventually(lambda: time.monotonic() > deadline)
        gate.open()
        assert await result == ["done"]
    assert saved.is_set()


async def test_a_cancelled_turn_cannot_commit() -> None:
    turn = Turn(0.0)
    assert turn.try_cancel()
    with pytest.raises(asyncio.CancelledError):
        turn.commit()


async def test_a_slow_reader_makes_the_turn_wait_instead_of_filling_memory() -> None:
    made = []

    async def turn(request: int, _: Turn) -> AsyncGenerator[int, None]:
        for number in range(request):
            made.append(number)
            yield number

    async with running(turn) as bridge, aclosing(bridge.run("s", 10_000, timeout_seconds=5)) as events:
        assert await anext(events) == 0
        count = 0
        while count != len(made):  # until it makes no more
            count = len(made)
            await bridge.call(_nothing)
        assert count < 200
        assert sum(1 for _ in [event async for event in events]) == 9_999


async def test_an_error_of_a_turn_reaches_its_reader_and_nobody_else() -> None:
    async def turn(request: str, _: Turn) -> AsyncGenerator[str, None]:
        if request == "bad":
            raise ValueError(request)
        yield request

    async with running(turn) as bridge:
        with pytest.raises(ValueError, match="bad"):
            await all_of(bridge, "s", "bad")
        assert await all_of(bridge, "s", "good") == ["good"]


async def test_a_drain_finishes_what_runs_and_waits_and_refuses_what_comes() -> None:
    gate = Gate()
    async with running(gated, concurrency=1) as bridge:
        turns = [asyncio.create_task(all_of(bridge, str(i), gate)) for i in range(2)]
        await gate.wait_reached()
        draining = asyncio.create_task(bridge.drain(5))
        # A task begins in the order in which it was made.
        refused = asyncio.create_task(all_of(bridge, "new", gate))
        with pytest.raises(AgentError) as error:
            await refused
        assert error.value.code == "not_ready"
        assert not draining.done()
        gate.open()
        assert await asyncio.gather(*turns) == [["done"], ["done"]]
        assert await draining


async def test_a_drain_ends_only_when_what_turns_said_has_been_told() -> None:
    gate = Gate()
    async with running(gated) as bridge, aclosing(bridge.run("s", gate, timeout_seconds=5)) as events:
        telling = asyncio.ensure_future(anext(events))
        await gate.wait_reached()
        draining = asyncio.create_task(bridge.drain(5))
        gate.open()
        assert await telling == "done"
        await eventually(lambda: bridge.running == 0, "the turn has ended")
        await bridge.call(_nothing)  # what the worker said of its end has come before this
        assert not draining.done()
        assert [event async for event in events] == []
        assert await draining


async def test_a_drain_does_not_wait_long_for_a_reader_that_has_ceased_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "_TOLD_SECONDS", 0.01)
    gate = Gate()
    async with running(gated) as bridge, aclosing(bridge.run("s", gate, timeout_seconds=60)) as events:
        telling = asyncio.ensure_future(anext(events))
        await gate.wait_reached()
        gate.open()
        await telling
        async with asyncio.timeout(30):
            assert await bridge.drain(60)


async def test_a_drain_that_takes_too_long_cuts_turns_off() -> None:
    gate = Gate()
    async with running(gated) as bridge:
        turn = asyncio.create_task(all_of(bridge, "s", gate))
        await gate.wait_reached()
        assert not await bridge.drain(0.02)
        with pytest.raises(AgentError) as cut:
            await turn
        assert (cut.value.code, cut.value.begun) == ("not_ready", True)


async def test_a_drain_that_takes_too_long_tells_who_still_waited_that_nothing_was_begun() -> None:
    gate = Gate()
    async with running(gated, concurrency=1) as bridge:
        first = asyncio.create_task(all_of(bridge, "a", gate))
        await gate.wait_reached()
        waiting = asyncio.create_task(all_of(bridge, "b", gate))
        await eventually(lambda: bridge.waiting == 1)
        assert not await bridge.drain(0.0)
        results = await asyncio.gather(first, waiting, return_exceptions=True)
    assert [isinstance(cut, AgentError) and cut.begun for cut in results] == [True, False]


async def test_a_committed_turn_gives_its_place_back_although_nobody_reads_what_it_says() -> None:
    gate = Gate()

    async def turn(request: Gate, turn: Turn) -> AsyncGenerator[int, None]:
        yield 0
        await request.pass_through()
        for number in range(1, 65):
            yield number
        turn.commit()
        yield 65

    async with running(turn, concurrency=1) as bridge, aclosing(bridge.run("s", gate, timeout_seconds=5)) as events:
        assert await anext(events) == 0
        gate.open()
        await eventually(lambda: bridge.running == 0)
        assert [event async for event in events] == list(range(1, 66))


async def test_a_turn_that_cancels_itself_is_an_internal_error_that_the_log_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def turn(_: None, __: Turn) -> AsyncGenerator[int, None]:
        yield 1
        raise asyncio.CancelledError

    async with running(turn) as bridge:
        with pytest.raises(AgentError) as broken:
            await all_of(bridge, "s", None)
    assert broken.value.code == "internal"
    assert "a turn cancelled itself" in caplog.text


async def test_places_are_never_lost_under_random_cancels() -> None:
    async def turn(request: int, _: Turn) -> AsyncGenerator[int, None]:
        for number in range(request):
            await asyncio.sleep(0)
            yield number

    async with running(turn, concurrency=3, queue_length=1000) as bridge:
        tasks = [asyncio.create_task(all_of(bridge, str(i % 7), i % 5)) for i in range(300)]
        for i, task in enumerate(tasks):
            if i % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for i, result in enumerate(results):
            if i % 3 == 0:
                assert isinstance(result, asyncio.CancelledError) or result == list(range(i % 5))
            else:
                assert result == list(range(i % 5))
        await eventually(lambda: (bridge.running, bridge.waiting) == (0, 0))
        assert await all_of(bridge, "0", 2) == [0, 1]


def test_a_ping_that_is_answered_while_it_is_looked_at_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_at: list[float | None] = [time.monotonic(), None]

    def read(_: AnyBridge) -> float | None:
        return sent_at.pop(0)

    def write(_: AnyBridge, __: float | None) -> None: ...

    monkeypatch.setattr(Bridge, "_ping_sent_at", property(read, write), raising=False)
    bridge: AnyBridge = Bridge(lambda *_: gated(Gate(), Turn()), concurrency=1, queue_length=1)
    assert bridge.stuck_seconds() >= 0.0
    bridge._worker.close()


async def test_as_many_turns_as_may_run_find_a_thread_to_block_and_some_are_left() -> None:
    places = 12
    meeting = threading.Barrier(places + 2)

    async def turn(request: int, _: Turn) -> AsyncGenerator[int, None]:
        yield await asyncio.to_thread(meeting.wait, 5)

    async with running(turn, concurrency=places + 1) as bridge:
        beside = asyncio.create_task(bridge.call(lambda: asyncio.to_thread(meeting.wait, 5)))
        await asyncio.gather(*(all_of(bridge, str(n), n) for n in range(places + 1)))
        await beside


async def test_who_will_not_wait_for_a_busy_session_is_refused() -> None:
    gate, open_gate = Gate(), Gate()
    open_gate.open()
    async with running(gated) as bridge:
        first = asyncio.create_task(all_of(bridge, "s", gate))
        await gate.wait_reached()
        assert bridge.is_busy("s")
        with pytest.raises(AgentError) as refused:
            await all_of(bridge, "s", open_gate, wait_for_session=False)
        assert refused.value.code == "session_busy"
        assert await all_of(bridge, "other", open_gate, wait_for_session=False) == ["done"]
        gate.open()
        assert await first == ["done"]
        await eventually(lambda: not bridge.is_busy("s"))
        assert await all_of(bridge, "s", open_gate, wait_for_session=False) == ["done"]


async def test_a_cancelled_turn_ends_with_its_own_code_and_the_next_of_the_session_goes_on() -> None:
    gate, open_gate = Gate(), Gate()
    open_gate.open()
    async with running(gated) as bridge:
        first = asyncio.create_task(all_of(bridge, "s", gate))
        await gate.wait_reached()
        second = asyncio.create_task(all_of(bridge, "s", open_gate))
        await eventually(lambda: bridge.waiting == 1)
        assert not bridge.cancel("other")
        assert bridge.cancel("s")
        with pytest.raises(AgentError) as ended:
            await first
        assert ended.value.code == "cancelled"
        assert await second == ["done"]
        await eventually(lambda: bridge.running == 0)
        assert not bridge.cancel("s")


async def test_a_committed_turn_cannot_be_cancelled() -> None:
    gate = Gate()

    async def turn(request: Gate, turn: Turn) -> AsyncGenerator[str, None]:
        turn.commit()
        await request.pass_through()
        yield "done"

    async with running(turn) as bridge:
        result = asyncio.create_task(all_of(bridge, "s", gate))
        await gate.wait_reached()
        assert not bridge.cancel("s")
        gate.open()
        assert await result == ["done"]
