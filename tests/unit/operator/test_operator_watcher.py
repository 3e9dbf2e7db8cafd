"""What the watches bring reaches the cache, and the queue hears of it; over real connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from clock import Clock
from operator_world import agent, mcp_server, pod
from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import Guard
from ropewalk_operator.handlers import Watcher
from ropewalk_operator.kinds import AGENT, MCP_SERVER, POD, Key, Kind
from ropewalk_operator.kube import Kube
from ropewalk_operator.leader import uptime
from ropewalk_operator.watches import Watches

CALC = Key("Agent", "default", "calc")
MATH = Key("MCPServer", "default", "math")


class Api:
    """Lists nothing, and says on the watch of Agents what it is told to."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            return web.json_response({"kind": "List", "items": [], "metadata": {"resourceVersion": "1"}})
        stream = web.StreamResponse()
        await stream.prepare(request)
        while True:
            event = await (self.says.get() if request.path.endswith("/agents") else asyncio.Future())
            await stream.write(json.dumps(event).encode() + b"\n")


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
    application = web.Application()
    application.router.add_get("/{path:.*}", api.answer)
    async with TestServer(application) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        kube = Kube(configuration, Guard(uptime))
        watches = Watches([], Clock(0.0))
        watcher = Watcher(cache, watches, kube, lambda key, urgent: heard.put_nowait((key, urgent)), silence_seconds=70)
        tasks = watcher.watch()
        await asyncio.wait_for(watches.begun(), 10)
        calc = agent()
        calc["metadata"] |= {"resourceVersion": "5"}
        api.says.put_nowait({"type": "ADDED", "object": {"metadata": {"name": "odd"}}})
        api.says.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "4"}}})
        api.says.put_nowait({"type": "ADDED", "object": calc})
        assert await asyncio.wait_for(heard.get(), 10) == (CALC, True)
        api.says.put_nowait(
            {"type": "DELETED", "object": {**calc, "metadata": calc["metadata"] | {"resourceVersion": "6"}}}
        )
        assert await asyncio.wait_for(heard.get(), 10) == (CALC, True)
        assert not cache.resources
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await kube.close()
