"""One of several namespaces that is forbidden is left out, and is taken up again; the others do not notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web

from clock import Clock
from operator_kube import answered_by
from operator_reconciler import AGENT as CALC
from operator_reconciler import AGENT_CHILDREN, World
from operator_world import FakeApiServer, agent, mcp_server
from ropewalk_operator import handlers, streams
from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import Guard
from ropewalk_operator.handlers import Watcher
from ropewalk_operator.kinds import RESOURCES, Key, Kind
from ropewalk_operator.kube import ApiError, Kube
from ropewalk_operator.leader import uptime
from ropewalk_operator.metrics import Metrics
from ropewalk_operator.patience import Patience
from ropewalk_operator.watch_session import StaysForbidden
from ropewalk_operator.watches import Watches
from ropewalk_operator.workers import catch_up, resync
from ropewalk_operator.workqueue import WorkQueue
from waiting import eventually

NAMESPACES = ("a", "b")
LEFT_OUT, TAKEN_UP = "a namespace is left out", "a namespace is taken up again"
LOOK_FAILED = "the rights in a namespace were not understood"


def of(namespace: str) -> Key:
    return Key("Agent", namespace, "calc")


class Api:
    """Has an Agent in each namespace. `forbidden` holds parts of paths, as in `/b/pods`, that are answered 403; without
    `listings_too` only their watches are.
    """

    def __init__(self, *forbidden: str) -> None:
        self.forbidden = set(forbidden)
        self.listings_too = True
        self.refuses_content = 0
        """So many listings of the operator's own ConfigMaps are answered 403 as well."""
        self.refusals = 0
        self.limits: list[str | None] = []
        """Of the refused."""
        self._watches: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") == "true"
        is_content = request.path.endswith("/configmaps") and "labelSelector" in request.query
        is_refused = any(part in request.path for part in self.forbidden) and (is_watch or self.listings_too)
        if is_content and self.refuses_content:
            self.refuses_content -= 1
            is_refused = True
        if is_refused:
            self.refusals += 1
            self.limits.append(request.query.get("limit"))
            return web.json_response({"kind": "Status", "code": 403, "message": "may not"}, status=403)
        if not is_watch:
            items = [self._agent(name) for name in NAMESPACES if request.path.endswith(f"/{name}/agents")]
            return web.json_response({"kind": "List", "items": items, "metadata": {"resourceVersion": "7"}})
        stream = web.StreamResponse()
        await stream.prepare(request)
        self._watches.append(request)
        await asyncio.Event().wait()
        return stream

    def end_watches(self) -> None:
        """All that are open break off."""
        for request in self._watches:
            if request.transport is not None:
                request.transport.close()
        self._watches.clear()

    @staticmethod
    def _agent(namespace: str) -> dict[str, Any]:
        body = agent()
        body["metadata"] |= {"namespace": namespace, "uid": f"uid-in-{namespace}", "resourceVersion": "5"}
        return body


class Watching:
    """The watches of both namespaces, and what the queue has heard."""

    def __init__(self, kube: Kube) -> None:
        self.cache, self.watches, self.heard = Cache(), Watches(NAMESPACES, Clock(0.0)), list[Key]()
        watcher = Watcher(
            self.cache, self.watches, kube, lambda key, _urgent: self.heard.append(key), Patience(), silence_seconds=70
        )
        self.tasks: Collection[asyncio.Task[None]] = watcher.watch()

    async def ended(self) -> BaseException | None:
        done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        (error,) = [task.exception() for task in done]
        return error


@asynccontextmanager
async def watching(api: Api) -> AsyncIterator[Watching]:
    async with answered_by(api.answer, Guard(uptime)) as kube:
        world = Watching(kube)
        try:
            yield world
        finally:
            for task in world.tasks:
                task.cancel()
            await asyncio.wait(world.tasks)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(streams, "REFUSED_SECONDS", 0.01)
    monkeypatch.setattr(handlers, "LEFT_OUT_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "ropewalk_operator")


@pytest.mark.parametrize("forbidden", ["/b/", "/b/pods", "/b/agents"])
async def test_a_start_goes_on_without_a_namespace_where_any_kind_is_forbidden(
    forbidden: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(Api(forbidden)) as world:
        await asyncio.wait_for(world.watches.settled(), 10)
        assert world.cache.left_out == {"b"}
        assert set(world.cache.resources) == {of("a")}
        assert not any(task.done() for task in world.tasks)
        (line,) = [record for record in caplog.records if record.message == LEFT_OUT]
    fields: dict[str, str] = line.__dict__["fields"]
    assert fields["namespace"] == "b"
    assert "LIST /" in fields["error"]
    assert forbidden in fields["error"]
    assert "watchNamespaces" in fields["next"]


async def test_a_namespace_that_is_forbidden_later_is_forgotten_and_is_known_again_with_its_rights(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = Api()
    async with watching(api) as world:
        await asyncio.wait_for(world.watches.settled(), 10)
        assert set(world.cache.resources) == {of("a"), of("b")}
        assert not world.cache.left_out
        world.heard.clear()
        api.forbidden = {"/b/"}
        api.end_watches()
        await eventually(lambda: set(world.cache.resources) == {of("a")}, "what is there is forgotten")
        assert world.cache.left_out == {"b"}
        assert world.heard == [of("b")], "what is remembered of it elsewhere is to be forgotten"
        refusals = api.refusals
        await eventually(lambda: api.refusals > refusals + 3, "its rights are looked at again and again")
        assert caplog.messages.count(LEFT_OUT) == 1, "it is said once"

        api.forbidden.clear()
        await eventually(lambda: not world.cache.left_out, "it is taken up again")
        assert set(world.cache.resources) == {of("a"), of("b")}, "at the version at which it was known before"
        assert world.heard[-1] == of("b")
        assert caplog.messages.count(TAKEN_UP) == 1
        assert not any(task.done() for task in world.tasks)


async def test_a_namespace_that_may_be_listed_and_not_watched_stays_left_out(caplog: pytest.LogCaptureFixture) -> None:
    api = Api("/b/pods")
    api.listings_too = False
    async with watching(api) as world:
        await asyncio.wait_for(world.watches.settled(), 10)
        refusals = api.refusals
        await eventually(lambda: api.refusals > refusals + 2, "it is tried again and again")
        assert world.cache.left_out == {"b"}
        assert caplog.messages.count(LEFT_OUT) == 1
        assert TAKEN_UP not in caplog.messages


async def test_a_namespace_whose_contents_are_refused_for_a_moment_is_not_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = Api()
    api.refuses_content = len(NAMESPACES)
    async with watching(api) as world:
        await asyncio.wait_for(world.watches.settled(), 10)
        assert not any(task.done() for task in world.tasks)
    assert api.refusals == len(NAMESPACES)
    assert LEFT_OUT not in caplog.messages


async def test_the_rights_are_looked_at_by_a_single_object() -> None:
    api = Api("/b/")
    async with watching(api) as world:
        await asyncio.wait_for(world.watches.settled(), 10)
        api.limits.clear()
        await eventually(lambda: len(api.limits) > 2, "its rights are looked at")
        assert set(api.limits) == {"1"}


async def test_a_look_at_the_rights_that_goes_wrong_is_said_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(*_: object) -> bool:
        raise RuntimeError("odd")

    api = Api("/b/")
    with monkeypatch.context() as broken:
        broken.setattr(Kube, "may_list", breaks)
        async with watching(api) as world:
            await eventually(lambda: caplog.messages.count(LOOK_FAILED) > 1, "it is tried again")
            assert not any(task.done() for task in world.tasks)
            broken.undo()
            api.forbidden.clear()
            await eventually(lambda: TAKEN_UP in caplog.messages, "it is taken up again")


async def test_a_kind_that_is_forbidden_in_every_namespace_ends_the_watching() -> None:
    async with watching(Api("/pods")) as world:
        error = await world.ended()
    assert isinstance(error, StaysForbidden)
    assert "/pods is forbidden" in str(error)


async def test_the_last_namespace_that_is_forbidden_ends_the_watching() -> None:
    api = Api("/b/")
    async with watching(api) as world:
        await asyncio.wait_for(world.watches.settled(), 10)
        api.forbidden.add("/a/")
        api.end_watches()
        error = await world.ended()
    assert isinstance(error, StaysForbidden)
    assert "/namespaces/a/" in str(error)


def test_what_is_left_out_is_dropped_and_not_taken_for_gone() -> None:
    cache, world = Cache(), FakeApiServer()
    bodies = [
        world.put(agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "k"}})),
        world.put(mcp_server()),
        world.put({"kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": "default"}}),
        world.put({"kind": "Service", "metadata": {"name": "calc-agent", "namespace": "default"}}),
    ]
    for body in bodies:
        cache.see(body["kind"], body)
    assert cache.leave_out("elsewhere") == set()
    assert cache.leave_out("default") == {CALC, Key("MCPServer", "default", "math")}
    assert not any((cache.resources, cache.children, cache.pods, cache.config_maps))
    assert all(cache.see(body["kind"], body) for body in bodies[:2])
    assert len(cache.resources) == 2


async def test_nothing_is_written_for_what_is_in_a_namespace_that_is_left_out(world: World) -> None:
    world.put(agent())
    world.cache.left_out.add("default")
    assert await world.reconciler.reconcile(CALC) is None
    assert world.api.writes == []
    world.cache.left_out.clear()
    await world.reconciler.reconcile(CALC)
    assert len(world.api.writes) > len(AGENT_CHILDREN)


class Refusing:
    """Lists nothing, and refuses the namespace `refused`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def list_all(self, _kind: Kind, namespace: str, *_: Any, **__: Any) -> Any:
        self.asked.append(namespace)
        if namespace == "refused":
            raise ApiError(403, "Forbidden", "may not")
        return [], 7


async def test_a_resync_lists_the_others_where_one_namespace_is_left_out_or_just_refused() -> None:
    api, cache = Refusing(), Cache()
    cache.left_out.add("left-out")
    watches = Watches(["left-out", "refused", "fine"], Clock(0.0))
    task = asyncio.create_task(resync(cache, cast(Kube, api), watches, lambda *_: None, every_seconds=0.001))
    await eventually(lambda: "fine" in api.asked, "the namespace after it is listed")
    task.cancel()
    assert "left-out" not in api.asked


async def test_who_takes_over_lists_the_others_where_one_namespace_is_left_out_or_just_refused() -> None:
    api, cache = Refusing(), Cache()
    cache.left_out.add("left-out")
    watches = Watches(["left-out", "refused", "fine"], Clock(0.0))
    clock = Clock()
    patience = Patience(clock.sleep, clock)
    await catch_up(cache, cast(Kube, api), watches, patience)
    assert set(api.asked) == {"refused", "fine"}
    assert api.asked.count("fine") == len(RESOURCES)
    with pytest.raises(ApiError, match="may not"):
        await catch_up(cache, cast(Kube, api), Watches(["refused"], Clock(0.0)), patience)


async def test_the_namespaces_that_are_left_out_are_counted() -> None:
    cache, counted = Cache(), Metrics()
    counted.read_at_scrape(cache, WorkQueue(), dict, lambda: True)
    assert counted.registry.get_sample_value("ropewalk_operator_namespaces_left_out") == 0
    cache.leave_out("b")
    assert counted.registry.get_sample_value("ropewalk_operator_namespaces_left_out") == 1


async def test_what_an_answer_under_way_brings_of_a_namespace_that_is_left_out_is_in_no_metric() -> None:
    cache, counted = Cache(), Metrics()
    counted.read_at_scrape(cache, WorkQueue(), dict, lambda: True)
    conditions = [{"type": "Ready", "status": "True"}]
    for namespace in NAMESPACES:
        body = agent()
        body["metadata"] |= {"namespace": namespace, "uid": namespace, "resourceVersion": "5"}
        cache.leave_out("b")
        cache.see("Agent", {**body, "status": {"conditions": conditions}})
    for name in ("ropewalk_resource_condition", "ropewalk_resource_idle"):
        shown = {
            sample.labels["namespace"]
            for family in counted.registry.collect()
            for sample in family.samples
            if sample.name == name
        }
        assert shown == {"a"}
