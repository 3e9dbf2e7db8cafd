"""One listing of a namespace's Events for all pods that are asked about at about the same time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from operator_election import pass_time, simulate
from operator_world import pod as pod_body
from ropewalk_operator import pods
from ropewalk_operator.kinds import EVENT, Key, Kind
from ropewalk_operator.kube import ApiError
from ropewalk_operator.pod_events import (
    FRESH_SECONDS,
    KEPT_SECONDS,
    LONGEST_SECONDS,
    MESSAGE_CHARACTERS,
    PATIENCE_SECONDS,
    REST,
    WARNINGS_OF_PODS,
    Hindrance,
    PodEvents,
)


class Reader:
    """Has an Event for each of two pods, and takes some seconds for a listing."""

    def __init__(self, takes_seconds: float = 0.0) -> None:
        self.asked: list[str | None] = []
        self.told: list[Key] = []
        self.takes_seconds = takes_seconds
        self.error: ApiError | None = None
        self.events = [event("one"), event("two")]

    async def list_all(
        self, kind: Kind, namespace: str | None, query: str = "", *, keep: Callable[[dict[str, Any]], Any]
    ) -> tuple[list[Any], int]:
        assert (kind, query) == (EVENT, WARNINGS_OF_PODS)
        self.asked.append(namespace)
        await pass_time(self.takes_seconds)
        if self.error is not None:
            raise self.error
        return [keep(each) for each in self.events], 1


class Body(dict[str, Any]):
    """An object of a listing, which can be told from all others."""


def event(uid: str, message: str = "no", *, at: str = "2026-01-01T00:00:00Z", reason: str = "FailedMount") -> Body:
    return Body(involvedObject={"uid": uid}, reason=reason, message=message, lastTimestamp=at)


def pod(uid: str, namespace: str = "a") -> pods.Pod:
    body = pod_body()
    body["metadata"] |= {"uid": uid, "namespace": namespace}
    found = pods.pod(body)
    assert found is not None
    return found


async def said(events: PodEvents, uid: str = "one") -> str | None:
    found = await events.hindrance(pod(uid))
    return found.message if found is not None else None


def test_pods_that_are_asked_about_at_once_share_a_listing_and_get_their_own_events() -> None:
    async def world() -> None:
        reader = Reader()
        events = PodEvents(reader, reader.told.append)
        asked = [("a", "one"), ("a", "two"), ("b", "one"), ("a", "three")]
        answers = await asyncio.gather(*(events.hindrance(pod(uid, place)) for place, uid in asked))
        assert reader.asked == ["a", "b"]
        assert answers == [*[Hindrance("2026-01-01T00:00:00Z", "FailedMount", "no")] * 3, None]

    simulate(world())


def test_the_last_word_about_a_pod_counts_and_what_does_not_keep_it_from_starting_does_not() -> None:
    async def world() -> None:
        reader = Reader()
        reader.events = [
            event("one", "first", at="2026-01-01T00:00:01Z"),
            event("one", "last", at="2026-01-01T00:00:09Z"),
            event("one", "between", at="2026-01-01T00:00:05Z"),
            event("one", "unhealthy", at="2026-01-01T00:00:10Z", reason="Unhealthy"),
            event("one", "failed to sync secret cache", at="2026-01-01T00:00:11Z"),
        ]
        assert await said(PodEvents(reader, reader.told.append)) == "last"

    simulate(world())


def test_events_are_listed_anew_after_a_while() -> None:
    async def world() -> None:
        reader = Reader()
        events = PodEvents(reader, reader.told.append)
        await said(events)
        await said(events)
        assert len(reader.asked) == 1
        await pass_time(FRESH_SECONDS)
        await said(events)
        assert len(reader.asked) == 2

    simulate(world())


def test_a_listing_that_took_long_is_good_for_longer() -> None:
    async def world() -> None:
        reader = Reader(takes_seconds=1.0)
        events = PodEvents(reader, reader.told.append)
        await said(events)
        await pass_time(REST * 1.0 - 0.1)
        await said(events)
        assert len(reader.asked) == 1
        await pass_time(0.2)
        await said(events)
        assert len(reader.asked) == 2

    simulate(world())


def test_a_listing_that_stalled_keeps_news_back_for_half_a_minute_at_most() -> None:
    async def world() -> None:
        reader = Reader(takes_seconds=60.0)
        events = PodEvents(reader, reader.told.append)
        await said(events)
        await pass_time(60.0 + LONGEST_SECONDS)
        await said(events)
        assert len(reader.asked) == 2

    simulate(world())


def test_of_a_listing_one_bounded_word_for_each_pod_is_kept_and_nothing_after_a_while() -> None:
    async def world() -> None:
        reader = Reader()
        reader.events = [event(f"pod-{number % 10}", "flood" * 1000) for number in range(1000)]
        events = PodEvents(reader, reader.told.append)
        await said(events)
        reader.events.clear()
        assert not alive(Body), "no object of the listing is kept"
        kept = floods()
        assert len(kept) == 10
        assert max(len(each.message) for each in kept) == MESSAGE_CHARACTERS
        kept.clear()
        await pass_time(FRESH_SECONDS + KEPT_SECONDS + 0.1)
        assert not floods(), "also where nobody asks again"

    simulate(world())


def floods() -> list[Hindrance]:
    return [each for each in alive(Hindrance) if each.message.startswith("flood")]


def alive(kind: type) -> list[Any]:
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is kind]


def test_a_listing_that_fails_is_everybodys_and_is_not_asked_for_again_at_once() -> None:
    async def world() -> None:
        reader = Reader()
        events = PodEvents(reader, reader.told.append)
        reader.error = ApiError(429, "TooManyRequests", "no", 20.0)
        assert await asyncio.gather(*(said(events) for _ in range(2))) == [None, None]
        await pass_time(19.0)
        assert await said(events) is None
        assert len(reader.asked) == 1
        reader.error = None
        await pass_time(1.0)
        assert await said(events) == "no"

    simulate(world())


def test_what_is_known_stands_until_a_listing_that_fails_or_takes_its_time_has_come() -> None:
    async def world() -> None:
        reader = Reader()
        events = PodEvents(reader, reader.told.append)
        assert await said(events) == "no"
        reader.error = ApiError(500, "InternalError", "no")
        await pass_time(FRESH_SECONDS)
        assert await said(events) == "no"
        reader.error, reader.takes_seconds = None, 5.0
        await pass_time(FRESH_SECONDS)
        assert await said(events) == "no"
        await pass_time(5.0)
        assert reader.told == [], "it is no news"
        assert len(reader.asked) == 3

    simulate(world())


def test_a_listing_that_hangs_holds_workers_up_for_a_second_in_all_and_its_news_are_told() -> None:
    async def world() -> None:
        reader = Reader(takes_seconds=60.0)
        events = PodEvents(reader, reader.told.append)
        clock = asyncio.get_running_loop().time
        for uid in ("one", "two", "three"):
            assert await said(events, uid) is None
        assert clock() == PATIENCE_SECONDS
        await pass_time(60.0)
        assert reader.told == [Key("Agent", "a", "calc")] * 2, "of the third there is no news"
        assert await said(events) == "no"
        assert len(reader.asked) == 1

    simulate(world())
