"""What the connection, the watches and the applier make of an API server in trouble."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from clock import Clock
from operator_kube import answered_by
from operator_reconciler import AGENT, NOW, World, edited
from operator_world import WEBHOOK_AWAY, FakeApiServer, Nobody, agent
from ropewalk_operator.apply import Applier
from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import Guard
from ropewalk_operator.kinds import EVENT, POD, SERVICE
from ropewalk_operator.kube import ApiError, Kube
from ropewalk_operator.server_clock import ServerClock
from ropewalk_operator.streams import (
    LONGEST_PAUSE_SECONDS,
    REFUSED_SECONDS,
    SHORT_SECONDS,
    Backoffs,
    Pace,
    Refusals,
)

PODS = "/api/v1/namespaces/a/pods"


@asynccontextmanager
async def answering(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Kube]:
    """A connection to a server that answers everything so."""
    guard = Guard(Clock(0.0))
    guard.open_until(float("inf"))
    async with answered_by(answer, guard) as kube:
        yield kube


def always(**answer: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(**answer)

    return handler


@pytest.mark.parametrize("body", ['{"kind": "Service", "metadata": {"na', "", "[]", "{}", "<html>"])
async def test_a_success_that_is_no_object_is_trouble(body: str) -> None:
    async with answering(always(text=body)) as kube:
        with pytest.raises(ApiError, match="is not a JSON object") as error:
            await kube.get(SERVICE, "a", "b")
    assert error.value.is_trouble


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("100000", 60.0), ("", 0.0), ("-1", 0.0), ("Sat, 21 Nov 2026 20:00:00 GMT", 0.0)],
)
async def test_an_error_says_how_long_to_wait(header: str, seconds: float) -> None:
    async with answering(always(status=429, text="too many", headers={"Retry-After": header})) as kube:
        with pytest.raises(ApiError) as error:
            await kube.get(SERVICE, "a", "b")
    assert error.value.retry_after_seconds == seconds
    assert error.value.message == "too many"
    assert error.value.is_trouble


@pytest.mark.parametrize(
    ("status", "message", "is_trouble"),
    [
        (500, "", True),
        (503, "", True),
        (401, "", True),
        (409, "", False),
        (403, "", False),
        (422, "", False),
        (500, WEBHOOK_AWAY, False),
        (500, 'admission webhook "policy.example.com" denied the request: it is broken', False),
    ],
)
def test_what_is_said_about_an_object_is_no_trouble(status: int, message: str, is_trouble: bool) -> None:
    assert ApiError(status, "", message).is_trouble == is_trouble


async def test_a_listing_whose_pages_are_gone_is_read_in_one_piece() -> None:
    async def pages(request: web.Request) -> web.Response:
        if "continue" in request.query:
            return web.json_response({"kind": "Status", "code": 410, "reason": "Expired"}, status=410)
        names = ["one"] if "limit" in request.query else ["one", "two"]
        token = "next" if "limit" in request.query else ""
        items = [{"metadata": {"name": name}} for name in names]
        return web.json_response({"metadata": {"resourceVersion": "5", "continue": token}, "items": items})

    async with answering(pages) as kube:
        items, version = await kube.list_all(POD, "a")
    assert [item["metadata"]["name"] for item in items] == ["one", "two"]
    assert version == 5


async def test_a_listing_without_metadata_is_trouble() -> None:
    async with answering(always(text='{"kind": "PodList"}')) as kube:
        with pytest.raises(ApiError, match="LIST /api/v1/namespaces/a/pods: the answer is no listing") as error:
            await kube.list_all(POD, "a")
    assert error.value.is_trouble


async def test_an_event_has_less_time_than_other_writes() -> None:
    over = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with answering(hang) as kube:
        with pytest.raises(ApiError, match="Unreachable"):
            await kube.create(EVENT, "a", {}, within_seconds=0.01)
        over.set()


async def test_a_listing_that_is_gone_for_good_is_an_error() -> None:
    async with answering(always(status=410)) as kube:
        with pytest.raises(ApiError) as error:
            await kube.list_all(POD, "a")
    assert error.value.status == 410


async def test_a_watch_refused_with_410_tells_of_a_lost_place() -> None:
    async with answering(always(status=410)) as kube, kube.watch_session(Nobody()) as session:
        answer = await session.get(f"{kube.server}{PODS}?watch=true")
        lines = [line async for line in answer.content.iter_chunked(100)]
        assert answer.status == 200
        event = json.loads(b"".join(lines))
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        answer.close()


async def test_a_listing_of_kopfs_that_is_gone_begins_anew() -> None:
    async with answering(always(status=410)) as kube, kube.watch_session(Nobody()) as session:
        with pytest.raises(aiohttp.ClientPayloadError):
            await session.get(f"{kube.server}{PODS}?continue=x")


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", "7"), ("100000", "60"), ("", "0"), ("Sat, 21 Nov 2026 20:00:00 GMT", "0")]
)
async def test_kopf_is_told_to_wait_for_a_number_of_seconds_that_has_a_bound(header: str, seconds: str) -> None:
    busy = always(status=429, headers={"Retry-After": header})
    async with answering(busy) as kube, kube.watch_session(Nobody()) as session:
        answer = await session.get(f"{kube.server}{PODS}")
        assert answer.headers["Retry-After"] == seconds


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
@pytest.mark.parametrize("query", ["", "?watch=true"])
async def test_kopf_is_asked_to_come_again_by_whatever_would_end_its_watching_or_its_session(
    status: int, query: str
) -> None:
    async with answering(always(status=status, text="no")) as kube, kube.watch_session(Nobody()) as session:
        answer = await session.get(f"{kube.server}{PODS}{query}")
        assert (answer.status, await answer.text()) == (503, "no")


@pytest.mark.parametrize(
    "body", ['{"items": [', "", "null", "[]", "{}", "<html>", '{"metadata": null}', '{"metadata": {}, "items": {}}']
)
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_a_listing_of_kopfs_that_is_none_begins_anew(body: str, content_type: str) -> None:
    wrong = always(text=body, content_type=content_type)
    async with answering(wrong) as kube, kube.watch_session(Nobody()) as session:
        answer = await session.get(f"{kube.server}{PODS}")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.json()


async def test_an_error_that_is_no_json_stays_what_it_is() -> None:
    broken = always(status=500, text="{", content_type="application/json")
    async with answering(broken) as kube, kube.watch_session(Nobody()) as session:
        answer = await session.get(f"{kube.server}{PODS}")
        with pytest.raises(ValueError, match="Expecting"):
            await answer.json()


async def test_an_event_that_breaks_off_is_left_out() -> None:
    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"a": 1}\n{"b"', b": 2", b'}\n{"c":'):
            await response.write(piece)
        await response.write_eof()
        return response

    async with answering(watch) as kube, kube.watch_session(Nobody()) as session:
        answer = await session.get(f"{kube.server}{PODS}?watch=true")
        text = b"".join([piece async for piece in answer.content.iter_chunked(100)])
    assert text == b'{"a": 1}\n{"b": 2}\n'


def test_short_watches_are_begun_ever_more_slowly_and_each_place_by_itself() -> None:
    clock = Clock()
    pace = Pace(clock)
    pauses = []
    for _ in range(12):
        pauses.append(pace.delay("pods"))
        clock.now += pauses[-1]
    assert pauses[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE_SECONDS
    assert pace.delay("agents") == 0.0
    clock.now += SHORT_SECONDS
    assert pace.delay("pods") == 0.0


def test_who_gives_up_waiting_waits_no_longer_the_next_time() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.delay("pods")
    assert pace.delay("pods") == pytest.approx(0.1)
    clock.now += 0.04
    assert pace.delay("pods") == pytest.approx(0.06)
    clock.now += 0.07
    assert pace.delay("pods") == pytest.approx(0.2)


def test_a_place_refuses_for_as_long_as_it_says_nothing_else() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    assert refusals.seconds("pods", 403) == 0.0
    clock.now += 7
    assert refusals.seconds("agents", 404) == 0.0
    assert refusals.seconds("pods", 409) == 7.0
    for status in (200, 401, 410, 429, 503):
        assert refusals.seconds("pods", status) == 0.0
        assert refusals.seconds("pods", 403) == 0.0
        clock.now += 7
        assert refusals.seconds("pods", 403) == 7.0
    refusals.forget("pods")
    assert refusals.seconds("pods", 403) == 0.0
    assert refusals.seconds("agents", 404) == 35.0


async def test_rights_that_were_missing_before_the_api_server_went_away_may_be_there_soon() -> None:
    clock, is_away = Clock(), False

    async def answer(request: web.Request) -> web.Response:
        if is_away and request.transport is not None:
            request.transport.close()
        return web.Response(status=403)

    async with answering(answer) as kube, kube.watch_session(Nobody()) as session:
        kube._watching._refusals = Refusals(clock)
        assert (await session.get(f"{kube.server}{PODS}?continue=x")).status == 503
        clock.now += REFUSED_SECONDS
        is_away = True
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{kube.server}{PODS}?continue=x")
        is_away = False
        assert (await session.get(f"{kube.server}{PODS}?continue=x")).status == 503


def test_the_pauses_between_attempts_have_a_bound_and_no_end() -> None:
    pauses = list(itertools.islice(Backoffs(), 100))
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


async def test_a_conflict_over_a_status_is_tried_again() -> None:
    world = World()
    world.put(agent())
    await world.settle()
    edited(systemPrompt="Be brief.")(world)

    def conflict() -> None:
        raise ApiError(409, "Conflict", "the object has been modified")

    world.api.before_status = conflict
    with pytest.raises(ApiError, match="409"):
        await world.reconciler.reconcile(AGENT)


async def test_a_conflict_over_a_deletion_is_tried_again() -> None:
    async with answering(always(status=409, text='{"kind": "Status", "reason": "Conflict"}')) as kube:
        with pytest.raises(ApiError, match="409"):
            await kube.delete(SERVICE, "a", "b", "uid")


async def test_what_is_gone_already_need_not_be_deleted() -> None:
    async with answering(always(status=404, text='{"kind": "Status", "reason": "NotFound"}')) as kube:
        await kube.delete(SERVICE, "a", "b", "uid")


async def test_a_conflict_over_a_child_that_nobody_has_is_no_leave_to_take_one_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.put(agent())

    async def conflict(*_: Any, only_if_new: bool = False, **__: Any) -> None:
        assert only_if_new, "what somebody makes just now would be taken over"
        raise ApiError(409, "Conflict", "the object has been modified")

    monkeypatch.setattr(world.api, "apply", conflict)
    with pytest.raises(ApiError, match="409"):
        await world.reconciler.reconcile(AGENT)


def test_the_clock_of_the_api_server_goes_by_its_answers_and_not_by_this_machines() -> None:
    uptime = Clock(7.0)
    clock = ServerClock(uptime, lambda: 3600.0)
    assert clock() == 3600.0
    clock.heed("Thu, 01 Jan 2026 00:00:00 GMT")
    assert clock() == NOW
    uptime.now += 0.75
    clock.heed("Thu, 01 Jan 2026 00:00:00 GMT")
    assert clock() == NOW + 0.75, "it says whole seconds only"
    uptime.now += 0.125
    clock.heed("Thu, 01 Jan 2026 00:00:01 GMT")
    assert clock() == NOW + 1
    for nonsense in ("", "soon"):
        clock.heed(nonsense)
    assert clock() == NOW + 1


async def test_every_answer_tells_what_time_it_is_at_the_api_server() -> None:
    async with answering(always(status=404, headers={"Date": "Thu, 01 Jan 1970 01:00:00 GMT"})) as kube:
        await kube.get(SERVICE, "a", "b")
        assert 3600 <= kube.clock() < 7200


async def test_a_clock_set_back_does_not_silence_events() -> None:
    api = FakeApiServer()
    applier = Applier(api, Cache())
    body = api.put(agent())
    for now in (10_000.0, 10_001.0, 10_000.0 - 3600):
        await applier.tell(body, "Normal", "Ready", "it is ready", now)
    assert api.writes.count("EVENT Normal Ready") == 2
