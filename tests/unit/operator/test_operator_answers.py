"""What pods say at /ready is asked in the background."""

from __future__ import annotations

import asyncio

from ropewalk_operator.answers import AT_ONCE, REMEMBERED, Answers


class Pods:
    """Answer when they are told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.reasons = ["model"]

    async def ready(self, ip: str, _port: int | None) -> list[str]:
        self.asked.append(ip)
        await self.may_answer.wait()
        return self.reasons


async def test_who_answers_at_once_is_heard_at_once() -> None:
    pods = Pods()
    pods.may_answer.set()
    assert await Answers(pods.ready).ready("one", "10.0.0.1") == ["model"]


async def test_a_silent_pod_is_not_waited_for_and_not_asked_twice_at_once() -> None:
    pods = Pods()
    answers = Answers(pods.ready)
    assert await answers.ready("one", "10.0.0.1") == []
    assert await answers.ready("one", "10.0.0.1") == []
    assert pods.asked == ["10.0.0.1"]


async def test_what_a_slow_pod_has_said_is_there_at_the_next_look_and_until_it_says_something_else() -> None:
    pods = Pods()
    answers = Answers(pods.ready)
    await answers.ready("one", "10.0.0.1")
    pods.may_answer.set()
    assert await answers.ready("one", "10.0.0.1") == ["model"]
    pods.may_answer.clear()
    assert await answers.ready("one", "10.0.0.1") == ["model"]
    pods.reasons = []
    pods.may_answer.set()
    assert await answers.ready("one", "10.0.0.1") == []


async def test_a_pod_is_not_blamed_with_the_words_of_another_that_had_its_address() -> None:
    pods = Pods()
    pods.may_answer.set()
    answers = Answers(pods.ready)
    assert await answers.ready("one", "10.0.0.1") == ["model"]
    pods.may_answer.clear()
    assert await answers.ready("two", "10.0.0.1") == []


async def test_of_thousands_of_silent_pods_few_are_asked_at_a_time() -> None:
    pods = Pods()
    answers = Answers(pods.ready)
    await asyncio.gather(*(answers.ready(str(number), f"10.0.0.{number}") for number in range(AT_ONCE * 2)))
    assert len(pods.asked) == AT_ONCE


async def test_what_is_remembered_is_bounded() -> None:
    pods = Pods()
    pods.may_answer.set()
    answers = Answers(pods.ready)
    for number in range(REMEMBERED + 1):
        await answers.ready(str(number), "10.0.0.1")
    pods.may_answer.clear()
    assert await answers.ready("0", "10.0.0.1") == [], "the oldest is forgotten"
    assert await answers.ready(str(REMEMBERED), "10.0.0.1") == ["model"]
