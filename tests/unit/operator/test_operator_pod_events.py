"""One listing of a namespace's Events for all pods that are asked about at about the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clock import Clock
from ropewalk_operator.kinds import EVENT, Kind
from ropewalk_operator.kube import ApiError
from ropewalk_operator.pod_events import FRESH_SECONDS, LONGEST_SECONDS, OF_ALL, OF_ONE, REST, PodEvents


class Reader:
    """Has one Event for each of two pods, and takes some seconds of the clock for a listing."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[str | None] = []
        self.takes_seconds = 0.0
        self.error: ApiError | None = None

    async def list_all(self, kind: Kind, namespace: str | None, query: str = "") -> tuple[list[dict[str, Any]], int]:
        assert (kind, query) == (EVENT, OF_ALL)
        self.asked.append(namespace)
        await asyncio.sleep(0)
        self.clock.now += self.takes_seconds
        if self.error is not None:
            raise self.error
        return [event("one"), event("two")], 1


def event(uid: str) -> dict[str, Any]:
    return {"involvedObject": {"uid": uid}, "reason": "FailedMount"}


@pytest.fixture
def reader() -> Reader:
    return Reader(Clock(0.0))


async def test_pods_that_are_asked_about_at_once_share_a_listing_and_get_their_own_events(reader: Reader) -> None:
    events = PodEvents(reader, reader.clock)
    asked = [("a", "one"), ("a", "two"), ("b", "one"), ("a", "three")]
    answers = await asyncio.gather(*(events.list_all(EVENT, place, f"{OF_ONE}{uid}") for place, uid in asked))
    assert reader.asked == ["a", "b"]
    assert [found for found, _ in answers] == [[event("one")], [event("two")], [event("one")], []]


async def test_events_are_listed_anew_after_a_while(reader: Reader) -> None:
    events = PodEvents(reader, reader.clock)
    await events.list_all(EVENT, "a", OF_ONE)
    await events.list_all(EVENT, "a", OF_ONE)
    assert len(reader.asked) == 1
    reader.clock.now += FRESH_SECONDS
    await events.list_all(EVENT, "a", OF_ONE)
    assert len(reader.asked) == 2


async def test_a_listing_that_took_long_is_good_for_longer(reader: Reader) -> None:
    reader.takes_seconds = 1.0
    events = PodEvents(reader, reader.clock)
    await events.list_all(EVENT, "a", OF_ONE)
    reader.clock.now += REST * 1.0 - 0.1
    await events.list_all(EVENT, "a", OF_ONE)
    assert len(reader.asked) == 1
    reader.clock.now += 0.1
    await events.list_all(EVENT, "a", OF_ONE)
    assert len(reader.asked) == 2


async def test_a_listing_that_stalled_keeps_news_back_for_half_a_minute_at_most(reader: Reader) -> None:
    reader.takes_seconds = 60.0
    events = PodEvents(reader, reader.clock)
    await events.list_all(EVENT, "a", OF_ONE)
    reader.clock.now += LONGEST_SECONDS
    await events.list_all(EVENT, "a", OF_ONE)
    assert len(reader.asked) == 2


async def test_an_error_is_everybodys_and_is_not_remembered(reader: Reader) -> None:
    events = PodEvents(reader, reader.clock)
    reader.error = ApiError(500, "InternalError", "no")
    asked = (events.list_all(EVENT, "a", f"{OF_ONE}one") for _ in range(2))
    assert await asyncio.gather(*asked, return_exceptions=True) == [reader.error, reader.error]
    reader.error = None
    assert await events.list_all(EVENT, "a", f"{OF_ONE}one") == ([event("one")], 1)
