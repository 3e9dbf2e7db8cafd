"""What pods say at /ready is asked in the background, and told to their owners when it is news."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import replace

from operator_election import pass_time, simulate
from operator_world import pod as pod_body
from ropewalk_operator import pods
from ropewalk_operator.answers import (
    AT_ONCE,
    FORGOTTEN_SECONDS,
    FRESH_SECONDS,
    PATIENCE_SECONDS,
    REMEMBERED,
    Answers,
)
from ropewalk_operator.kinds import Key

HELD_SECONDS = 1.5
"""As agents hold their answer that have never been ready."""
LATER = FRESH_SECONDS + 0.1

found = pods.pod(pod_body())
assert found is not None
POD = found
OWNER = Key("Agent", "default", "calc")


class Pods:
    """Answer with the same reasons, after some time; `told` is who was told of news."""

    def __init__(self, *, after_seconds: float = 0.0) -> None:
        self.after_seconds = after_seconds
        self.asked: list[str] = []
        self.reasons = ["model"]
        self.told: list[Key] = []
        self.answers = Answers(self.ready, self.told.append)

    async def ready(self, ip: str, _port: int | None) -> list[str]:
        self.asked.append(ip)
        await pass_time(self.after_seconds)
        return list(self.reasons)


def numbered(number: int) -> pods.Pod:
    return replace(POD, uid=str(number), ip=f"10.0.{number // 256}.{number % 256}")


def test_who_answers_at_once_is_heard_at_once_and_nobody_is_told() -> None:
    async def world() -> None:
        all_pods = Pods()
        assert await all_pods.answers.ready(POD) == ["model"]
        assert all_pods.told == []

    simulate(world())


def test_a_silent_pod_is_not_waited_for_and_not_asked_twice_at_once() -> None:
    async def world() -> None:
        all_pods = Pods(after_seconds=HELD_SECONDS)
        assert await all_pods.answers.ready(POD) == []
        assert await all_pods.answers.ready(POD) == []
        assert all_pods.asked == [POD.ip]
        assert asyncio.get_running_loop().time() < 3 * PATIENCE_SECONDS

    simulate(world())


def test_the_owner_is_told_when_a_slow_pod_has_said_something_new_and_only_then() -> None:
    async def world() -> None:
        all_pods = Pods(after_seconds=HELD_SECONDS)
        for _ in range(3):
            await all_pods.answers.ready(POD)
            await pass_time(HELD_SECONDS + LATER)
        assert all_pods.told == [OWNER], "it has said the same three times"
        all_pods.reasons = ["key"]
        assert await all_pods.answers.ready(POD) == ["model"]
        await pass_time(HELD_SECONDS)
        assert all_pods.told == [OWNER, OWNER]
        assert await all_pods.answers.ready(POD) == ["key"]
        await pass_time(LATER)
        all_pods.reasons = []
        await all_pods.answers.ready(POD)
        await pass_time(HELD_SECONDS)
        assert all_pods.told == [OWNER, OWNER, OWNER]
        assert await all_pods.answers.ready(POD) == []

    simulate(world())


def test_who_is_told_does_not_ask_anew_so_that_a_pod_that_never_says_the_same_has_an_end() -> None:
    async def world() -> None:
        all_pods = Pods(after_seconds=HELD_SECONDS)
        numbers = itertools.count()

        async def ready(ip: str, _port: int | None) -> list[str]:
            all_pods.asked.append(ip)
            await pass_time(HELD_SECONDS)
            return [f"it has not answered for {next(numbers)} s"]

        async def look(_owner: Key | None = None) -> None:
            await asyncio.gather(*(answers.ready(numbered(number)) for number in range(3)))

        looks: set[asyncio.Task[None]] = set()
        answers = Answers(ready, lambda owner: looks.add(asyncio.create_task(look(owner))))
        await look()
        await pass_time(600)
        assert looks
        assert set(Counter(all_pods.asked).values()) == {1}

    simulate(world())


def test_a_pod_that_now_answers_in_time_and_now_does_not_has_an_end_too() -> None:
    async def world() -> None:
        asked: list[float] = []

        async def ready(_ip: str, _port: int | None) -> list[str]:
            asked.append(asyncio.get_running_loop().time())
            await pass_time(HELD_SECONDS)
            return ["x"] if len(asked) % 2 else []

        looks: set[asyncio.Task[list[str]]] = set()
        answers = Answers(ready, lambda _owner: looks.add(asyncio.create_task(answers.ready(POD))))
        for number in range(4):
            await answers.ready(POD)
            await pass_time(30)
            assert len(asked) == number + 1
        assert len(looks) == 4

    simulate(world())


def test_what_a_pod_said_before_it_was_ready_is_not_said_of_it_when_it_is_not_ready_any_more() -> None:
    async def world() -> None:
        all_pods = Pods()
        assert await all_pods.answers.ready(POD) == ["model"]
        all_pods.after_seconds = HELD_SECONDS
        for _ in range(10):
            await pass_time(FORGOTTEN_SECONDS / 2)
            assert await all_pods.answers.ready(POD) == ["model"], "it is looked at all the time"
        await pass_time(FORGOTTEN_SECONDS + HELD_SECONDS)
        assert await all_pods.answers.ready(POD) == []

    simulate(world())


def test_a_pod_is_not_blamed_with_the_words_of_another_that_had_its_address() -> None:
    async def world() -> None:
        all_pods = Pods()
        assert await all_pods.answers.ready(POD) == ["model"]
        all_pods.after_seconds = HELD_SECONDS
        assert await all_pods.answers.ready(replace(POD, uid="another")) == []
        assert await all_pods.answers.ready(replace(POD, restarts=POD.restarts + 1)) == []

    simulate(world())


def test_of_thousands_of_silent_pods_few_are_asked_at_a_time_and_all_have_their_turn() -> None:
    async def world() -> None:
        all_pods = Pods(after_seconds=HELD_SECONDS)
        await asyncio.gather(*(all_pods.answers.ready(numbered(number)) for number in range(AT_ONCE * 3)))
        assert len(all_pods.asked) == AT_ONCE
        # Those that were asked first are looked at once more meanwhile.
        await pass_time(HELD_SECONDS + LATER)
        await asyncio.gather(*(all_pods.answers.ready(numbered(number)) for number in range(AT_ONCE)))
        await pass_time(HELD_SECONDS * 2)
        assert len(set(all_pods.asked)) == AT_ONCE * 3

    simulate(world())


def test_nobody_waits_for_a_pod_that_has_not_been_asked_yet() -> None:
    async def world() -> None:
        all_pods = Pods(after_seconds=HELD_SECONDS)
        await asyncio.gather(*(all_pods.answers.ready(numbered(number)) for number in range(AT_ONCE)))
        began = asyncio.get_running_loop().time()
        for number in range(AT_ONCE, AT_ONCE * 10):
            assert await all_pods.answers.ready(numbered(number)) == []
        assert asyncio.get_running_loop().time() == began
        await pass_time(HELD_SECONDS * 11)
        assert len(set(all_pods.asked)) == AT_ONCE * 10
        assert len(all_pods.told) == AT_ONCE * 10, "their words are told all the same"

    simulate(world())


def test_a_pod_whose_turn_comes_is_asked_at_the_address_that_it_has_then() -> None:
    async def world() -> None:
        all_pods = Pods(after_seconds=HELD_SECONDS)
        await asyncio.gather(*(all_pods.answers.ready(numbered(number)) for number in range(AT_ONCE)))
        await all_pods.answers.ready(POD)
        await all_pods.answers.ready(replace(POD, ip="10.9.9.9"))
        await pass_time(HELD_SECONDS * 2)
        assert all_pods.asked[AT_ONCE:] == ["10.9.9.9"]

    simulate(world())


def test_what_is_remembered_is_bounded() -> None:
    async def world() -> None:
        all_pods = Pods()
        for number in range(REMEMBERED + 1):
            await all_pods.answers.ready(numbered(number))
        all_pods.after_seconds = HELD_SECONDS
        assert await all_pods.answers.ready(numbered(0)) == [], "the oldest is forgotten"
        assert await all_pods.answers.ready(numbered(REMEMBERED)) == ["model"]

    simulate(world())
