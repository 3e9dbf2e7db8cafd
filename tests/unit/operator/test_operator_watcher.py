"""What the watches bring reaches the cache, and the queue hears of it; over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from clock import Clock
from operator_world import agent, mcp_server, pod
from ropewalk_operator import streams
from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import Guard
from ropewalk_operator.handlers import Watcher
from ropewalk_operator.kinds import AGENT, MCP_SERVER, POD, Key, Kind
from ropewalk_operator.kube import Kube
from ropewalk_operator.leader import uptime
from ropewalk_operator.watch_session import StaysForbidden
from ropewalk_operator.watches import Watches

CALC = Key("Agent", "default", "calc")
MATH = Key("MCPServer", "default", "math")


FORBIDDEN = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": 'User "ropewalk" cannot list'}


class Api:
    """Lists nothing, and says on the last watch of Agents what it is told to; `forbids` so many of its listings."""

    def __init__(self, forbids: float = 0) -> None:
        self.forbids = forbids
        self._agents = web.StreamResponse()

    async def say(self, event: object) -> None:
        """A line of its own; what is no text as JSON."""
        await self._agents.write((event if isinstance(event, str) else json.dumps(event)).encode() + b"\n")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/agents") and self.forbids:
            self.forbids -= 1
            return web.json_response(FORBIDDEN, status=403)
        if request.query.get("watch") != "true":
            return web.json_response({"kind": "List", "items": [], "metadata": {"resourceVersion": "1"}})
        stream = web.StreamResponse()
        if request.path.endswith("/agents"):
            self._agents = stream
        await stream.prepare(request)
        await asyncio.Event().wait()
        return stream


@asynccontextmanager
async def watching(
    api: Api, cache: Cache, enqueue: Callable[[Key, bool], None]
) -> AsyncIterator[tuple[Watches, Collection[asyncio.Task[None]]]]:
    """The watches of this API server, and their tasks."""
    application = web.Application()
    application.router.add_get("/{path:.*}", api.answer)
    async with TestServer(application) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        kube = Kube(configuration, Guard(uptime))
        watches = Watches([], Clock(0.0))
        tasks = Watcher(cache, watches, kube, enqueue, silence_seconds=70).watch()
        try:
            yield watches, tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await kube.close()


async def test_only_what_a_user_has_changed_goes_before_the_rest() -> None:
    heard: list[tuple[Key, bool]] = []
    kube = Kube(Configuration(), Guard(uptime))
    watches = Watches([], Clock(0.0))
    watcher = Watcher(Cache(), watches, kube, lambda key, urgent: heard.append((key, urgent)), silence_seconds=70)

    def heard_of(kind: Kind, body: dict[str, Any], version: int, **metadata: Any) -> dict[Key, bool]:
        heard.clear()
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}
        watcher.take(kind, {"type": "MODIFIED", "object": body})  # type: ignore[typeddict-item]
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
        await asyncio.wait_for(watches.begun(), 10)
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
        await asyncio.wait_for(watches.begun(), 10)
        await api.say(line)
        assert await asyncio.wait_for(watches.relist.get(), 10) == (AGENT, ""), "it may have missed something"
        calc = agent()
        calc["metadata"] |= {"resourceVersion": "5"}
        await api.say({"type": "ADDED", "object": calc})
        assert await asyncio.wait_for(heard.get(), 10) == CALC
        assert not any(task.done() for task in tasks)


async def test_rights_that_are_missing_end_the_watching_with_what_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REFUSED_SECONDS", 0.01)
    async with watching(Api(forbids=float("inf")), Cache(), lambda *_: None) as (_, tasks):
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        (error,) = [task.exception() for task in done]
    assert isinstance(error, StaysForbidden)
    assert "LIST /apis/ropewalk.dev/v1alpha1/agents is forbidden" in str(error)
    assert 'User "ropewalk" cannot list' in str(error)


async def test_an_api_server_that_does_not_know_its_rules_yet_is_asked_again() -> None:
    async with watching(Api(forbids=1), Cache(), lambda *_: None) as (watches, tasks):
        await asyncio.wait_for(watches.begun(), 10)
        assert not any(task.done() for task in tasks)
