"""What the watches bring reaches the cache, and the queue hears of it; over real connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from clock import Clock
from operator_kube import answered_by
from operator_world import agent, mcp_server, pod
from ropewalk_operator import __version__, handlers, streams
from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import Guard
from ropewalk_operator.handlers import Watcher
from ropewalk_operator.kinds import AGENT, MCP_SERVER, POD, WATCHED, Key, Kind
from ropewalk_operator.kube import Kube
from ropewalk_operator.leader import uptime
from ropewalk_operator.patience import Patience
from ropewalk_operator.watch_session import StaysForbidden, StaysRefused
from ropewalk_operator.watches import Watches
from waiting import eventually

CALC = Key("Agent", "default", "calc")
OTHER = Key("Agent", "default", "other")
MATH = Key("MCPServer", "default", "math")


SILENCE_SECONDS = 0.5
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "The provided continue parameter is too old"}
FOR_EVER = float("inf")
USER_AGENT = "ropewalk-operator-me"


class Api:
    """Lists no Agents but `agents`, and says on their last watch what it is told to; `refuses` so many requests whose
    path ends so, with `status` and words.

    Everything is of version `version`. Its answers to the first `garbles` watches of Agents are no HTTP. With
    `loses_pages` the first listing of Agents has a second page, which is gone.
    """

    def __init__(
        self,
        refuses: float = 0,
        status: int = 403,
        path: str = "/agents",
        *,
        only_watches: bool = False,
        loses_pages: bool = False,
        garbles: int = 0,
    ) -> None:
        self.refuses = refuses
        self.status = status
        self.path = path
        self.only_watches = only_watches
        self.garbles = garbles
        self.user_agents = set[str | None]()
        self.open: list[web.Request] = []
        """The watches of all kinds."""
        self.loses_pages = loses_pages
        self.agents: list[dict[str, Any]] = []
        self.version = 1
        self.watches = 0
        """How many of Agents have begun."""
        self._agents = web.StreamResponse()

    async def say(self, event: object) -> None:
        """A line of its own; what is no text as JSON."""
        await self._agents.write((event if isinstance(event, str) else json.dumps(event)).encode() + b"\n")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.user_agents.add(request.headers.get("User-Agent"))
        is_watch = request.query.get("watch") == "true"
        if self.refuses and request.path.endswith(self.path) and (is_watch or not self.only_watches):
            self.refuses -= 1
            said = {"kind": "Status", "code": self.status, "message": 'User "ropewalk" cannot'}
            return web.json_response(said, status=self.status)
        if not is_watch:
            return self._list(request)
        if request.path.endswith("/agents") and self.garbles:
            self.garbles -= 1
            assert isinstance(request.transport, asyncio.WriteTransport)
            request.transport.write(b"what is this?\r\n\r\n")
        stream = web.StreamResponse()
        await stream.prepare(request)
        self.open.append(request)
        if request.path.endswith("/agents"):
            self._agents = stream
            self.watches += 1
        await asyncio.Event().wait()
        return stream

    def end_watches(self) -> None:
        """All that are open break off."""
        for request in self.open:
            if request.transport is not None:
                request.transport.close()
        self.open.clear()

    def _list(self, request: web.Request) -> web.Response:
        if "continue" in request.query:
            self.loses_pages, self.agents = False, []
            return web.json_response(GONE, status=410)
        is_agents = request.path.endswith("/agents")
        more = {"continue": "more"} if is_agents and self.loses_pages else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return web.json_response({"kind": "List", "items": self.agents if is_agents else [], "metadata": metadata})


@asynccontextmanager
async def watching(
    api: Api, cache: Cache, enqueue: Callable[[Key, bool], None], silence_seconds: float = 70
) -> AsyncIterator[tuple[Watches, Collection[asyncio.Task[None]]]]:
    """The watches of this API server, and their tasks."""
    async with answered_by(api.answer, Guard(uptime), agent=USER_AGENT) as kube:
        watches = Watches([], Clock(0.0))
        tasks = Watcher(cache, watches, kube, enqueue, Patience(), silence_seconds=silence_seconds).watch()
        try:
            yield watches, tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def versioned(body: dict[str, Any], version: int) -> dict[str, Any]:
    """The body as the API server gives it at this version."""
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}


async def test_only_what_a_user_has_changed_goes_before_the_rest() -> None:
    heard: list[tuple[Key, bool]] = []
    kube = Kube(Configuration(), Guard(uptime))
    watches = Watches([], Clock(0.0))
    enqueue = lambda key, urgent: heard.append((key, urgent))  # noqa: E731
    watcher = Watcher(Cache(), watches, kube, enqueue, Patience(), silence_seconds=70)

    def heard_of(kind: Kind, body: dict[str, Any], version: int, **metadata: Any) -> dict[Key, bool]:
        heard.clear()
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}
        watcher.take(kind, "", {"type": "MODIFIED", "object": body})  # type: ignore[typeddict-item]
        return dict(heard)

    assert heard_of(AGENT, agent(mcpServers=[{"name": "math"}]), 1) == {CALC: True}
    assert heard_of(MCP_SERVER, mcp_server(), 2, generation=1) == {MATH: True, CALC: False}
    assert heard_of(MCP_SERVER, mcp_server(ready=True), 3, generation=1) == {MATH: False, CALC: False}
    assert heard_of(MCP_SERVER, mcp_server(ready=True, port=9000), 4, generation=2) == {MATH: True, CALC: False}
    assert heard_of(POD, pod(version=5), 5) == {CALC: False}
    await kube.close()


async def test_an_event_that_cannot_be_understood_hides_no_other_one() -> None:
    api, cache, heard = Api(), Cache(), asyncio.Queue[tuple[Key, bool]]()
    async with watching(api, cache, lambda key, urgent: heard.put_nowait((key, urgent))) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        calc = agent()
        calc["metadata"] |= {"resourceVersion": "5"}
        await api.say({"type": "ADDED", "object": {"metadata": {"name": "odd"}}})
        await api.say({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "4"}}})
        await api.say({"type": "ADDED", "object": calc})
        assert await asyncio.wait_for(heard.get(), 10) == (CALC, True)
        await api.say({"type": "DELETED", "object": {**calc, "metadata": calc["metadata"] | {"resourceVersion": "6"}}})
        assert await asyncio.wait_for(heard.get(), 10) == (CALC, True)
        assert not cache.resources
        assert not any(task.done() for task in tasks)


async def test_a_watch_goes_on_where_its_time_is_over_just_as_an_event_comes() -> None:
    api, heard, loop = Api(), asyncio.Queue[Key](), asyncio.get_running_loop()
    enqueue = lambda key, _urgent: heard.put_nowait(key)  # noqa: E731
    async with watching(api, Cache(), enqueue, silence_seconds=SILENCE_SECONDS) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        # After each fifty the others of the loop once went first, outside of what the time limit guards.
        for number in range(50):
            await api.say({"type": "ADDED", "object": versioned(agent(f"agent-{number}"), 5 + number)})
            if number == 49:
                # The loop is busy before it reads the event. Then the time is over, and the event is taken first.
                loop.call_soon(busy, SILENCE_SECONDS * 1.5)
            await asyncio.wait_for(heard.get(), 10)
        begun = api.watches
        await eventually(lambda: api.watches > begun, "the watch begins anew when it is silent")
        assert not any(task.done() for task in tasks)


def busy(seconds: float) -> None:
    """Let nothing else of this loop go on."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        '{"type": "ADDED", "obj',
        "null",
        "[]",
        "{}",
        {"type": "ADDED", "object": None},
        {"type": "ERROR", "object": {"code": 500}},
    ],
)
async def test_a_watch_that_cannot_be_understood_begins_anew(line: object) -> None:
    api, heard = Api(), asyncio.Queue[Key]()
    async with watching(api, Cache(), lambda key, _urgent: heard.put_nowait(key)) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        missed, calc = versioned(agent("missed"), 4), versioned(agent(), 5)
        api.agents, api.version = [missed], 4
        await api.say(line)
        assert await asyncio.wait_for(heard.get(), 10) == Key("Agent", "default", "missed"), "it is listed anew"
        await eventually(lambda: api.watches == 2, "it is watched anew")
        await api.say({"type": "ADDED", "object": calc})
        assert await asyncio.wait_for(heard.get(), 10) == CALC
        assert not any(task.done() for task in tasks)


async def test_an_answer_that_is_no_http_does_not_end_the_watching() -> None:
    api = Api(garbles=1)
    async with watching(api, Cache(), lambda *_: None) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        assert not api.garbles
        assert not any(task.done() for task in tasks)


async def test_what_has_vanished_while_a_watch_had_lost_its_place_is_gone() -> None:
    api, cache, heard = Api(), Cache(), asyncio.Queue[Key]()
    api.agents, api.version = [versioned(agent(), 5), versioned(agent("other"), 6)], 6
    async with watching(api, cache, lambda key, _urgent: heard.put_nowait(key)) as (watches, _):
        await asyncio.wait_for(watches.settled(), 10)
        assert {heard.get_nowait(), heard.get_nowait()} == set(cache.resources) == {CALC, OTHER}
        api.agents, api.version = [versioned(agent("other"), 6)], 7
        await api.say({"type": "ERROR", "object": {"code": 410}})
        assert await asyncio.wait_for(heard.get(), 10) == CALC
        assert set(cache.resources) == {OTHER}


async def test_what_only_half_a_listing_has_shown_is_gone_when_the_watch_begins() -> None:
    api, cache = Api(loses_pages=True), Cache()
    api.agents = [versioned(agent(), 1)]
    heard: list[Key] = []
    async with watching(api, cache, lambda key, _urgent: heard.append(key)) as (watches, _):
        await asyncio.wait_for(watches.settled(), 10)
    assert heard == [CALC, CALC], "it came with the first page, and was deleted before the next listing"
    assert not cache.resources


async def test_a_listing_takes_nothing_away_that_is_newer_or_of_another_place() -> None:
    cache, heard = Cache(), list[Key]()
    kube = Kube(Configuration(), Guard(uptime))
    watches = Watches(["default", "other"], Clock(0.0))
    enqueue = lambda key, _urgent: heard.append(key)  # noqa: E731
    watcher = Watcher(cache, watches, kube, enqueue, Patience(), silence_seconds=70)
    elsewhere = versioned(agent(), 2)
    elsewhere["metadata"] |= {"namespace": "other", "uid": "elsewhere"}
    watcher.begin_listing(AGENT, "default")
    for body in (versioned(agent("old"), 3), elsewhere, versioned(agent(), 9)):
        cache.see(AGENT.name, body)
    watcher.begin_watch(AGENT, "default", "8")
    assert heard == [Key("Agent", "default", "old")]
    watcher.begin_watch(AGENT, "default", "10")
    assert len(cache.resources) == 2, "a watch that goes on where it was has listed nothing"
    await kube.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REFUSED_SECONDS", 0.01)


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "Backoffs", lambda: [0.01] * 1000)
    monkeypatch.setattr(streams, "LONGEST_PAUSE_SECONDS", 0.01)


async def ended(tasks: Collection[asyncio.Task[None]]) -> BaseException | None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    (error,) = [task.exception() for task in done]
    return error


@pytest.mark.usefixtures("soon")
async def test_rights_that_are_missing_end_the_watching_with_what_is_forbidden() -> None:
    async with watching(Api(FOR_EVER), Cache(), lambda *_: None) as (_, tasks):
        error = await ended(tasks)
    assert isinstance(error, StaysForbidden)
    assert "LIST /apis/ropewalk.dev/v1alpha1/agents is forbidden" in str(error)
    assert 'User "ropewalk" cannot' in str(error)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [400, 404, 406, 409])
async def test_a_refusal_that_stays_ends_the_watching_with_its_words(status: int) -> None:
    async with watching(Api(FOR_EVER, status, only_watches=True), Cache(), lambda *_: None) as (_, tasks):
        error = await ended(tasks)
    assert isinstance(error, StaysRefused)
    assert f"WATCH /apis/ropewalk.dev/v1alpha1/agents is refused with {status}" in str(error)
    assert 'User "ropewalk" cannot; see who stands between the operator and the API server' in str(error)


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
@pytest.mark.parametrize("only_watches", [False, True], ids=["listings", "watches"])
async def test_a_refusal_for_a_moment_is_asked_again(status: int, only_watches: bool) -> None:
    api = Api(2, status, only_watches=only_watches)
    async with watching(api, Cache(), lambda *_: None) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        assert not api.refuses
        assert not any(task.done() for task in tasks)


@pytest.mark.usefixtures("without_pauses")
async def test_credentials_that_are_refused_for_a_moment_end_no_watch() -> None:
    api = Api(status=401, path="")
    async with watching(api, Cache(), lambda *_: None) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        for _ in range(3):
            # One after the other, so that some wait for their turn while others are refused.
            api.refuses = 2 * len(WATCHED) - 1
            api.end_watches()
            await eventually(lambda: len(api.open) == len(WATCHED), "each is begun again")
            assert not api.refuses
        assert not any(task.done() for task in tasks)


@pytest.mark.usefixtures("without_pauses")
async def test_an_error_of_tls_after_which_kopf_would_log_in_anew_ends_no_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = aiohttp.TCPConnector.connect
    said = "[SSL: APPLICATION_DATA_AFTER_CLOSE_NOTIFY] application data after close notify"
    # Of the first failure of a request nobody hears: aiohttp tries again by itself.
    failures = [aiohttp.ClientOSError(1, said) for _ in range(2 * len(WATCHED))]

    async def fails_first(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await connect(*arguments, **options)

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", fails_first)
    async with watching(Api(), Cache(), lambda *_: None) as (watches, tasks):
        await asyncio.wait_for(watches.settled(), 10)
        assert not failures
        assert not any(task.done() for task in tasks)


async def test_listings_and_watches_name_their_process_to_the_api_server() -> None:
    api = Api()
    async with watching(api, Cache(), lambda *_: None) as (watches, _):
        await asyncio.wait_for(watches.settled(), 10)
    assert api.user_agents == {f"{USER_AGENT}/{__version__}"}
