"""The parts around the reconciler: settings, logs, endpoints, watches, workers."""

import asyncio
import json
import logging
from typing import Any, cast

import pytest
from aiohttp import ClientConnectionError, web
from aiohttp.test_utils import TestClient, TestServer
from kubernetes.aio.client import Configuration

from clock import Clock
from operator_world import FakeApiServer, Nobody, agent
from ropewalk_operator import server, settings
from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import Guard
from ropewalk_operator.kinds import AGENT, CONFIG_MAP, POD, WATCHED, Key, Kind, collection
from ropewalk_operator.kube import ApiError, Kube
from ropewalk_operator.leader import uptime
from ropewalk_operator.logs import JsonFormatter
from ropewalk_operator.metrics import CONTENT_TYPE, Metrics
from ropewalk_operator.watches import SILENCE_SECONDS, Watches, list_into
from ropewalk_operator.workers import resync, work
from ropewalk_operator.workqueue import WorkQueue


def test_settings_come_from_the_environment_with_their_defaults() -> None:
    images = {"ROPEWALK_AGENT_IMAGE": "a", "ROPEWALK_STDIO_IMAGE": "s"}
    loaded = settings.load({**images, "ROPEWALK_WATCH_NAMESPACES": "x, y", "POD_NAME": "p", "HOME": "/"})
    assert (loaded.agent_image, loaded.stdio_image) == ("a", "s")
    assert loaded.watch_namespaces == ("x", "y")
    assert loaded.identity == "p"
    assert (loaded.workers, loaded.resync_seconds, loaded.port) == (8, 600, 8080)
    assert settings.load({**images, "ROPEWALK_WATCH_NAMESPACES": ""}).watch_namespaces == ()


def test_settings_that_cannot_be_used_name_every_variable() -> None:
    with pytest.raises(settings.InvalidSettings) as error:
        settings.load({"ROPEWALK_WORKERS": "many"})
    assert "ROPEWALK_AGENT_IMAGE is not set" in str(error.value)
    assert "ROPEWALK_STDIO_IMAGE is not set" in str(error.value)
    assert "ROPEWALK_WORKERS is 'many'" in str(error.value)
    with pytest.raises(settings.InvalidSettings, match="ROPEWALK_API_TIMEOUT_SECONDS is '3600'"):
        settings.load({"ROPEWALK_API_TIMEOUT_SECONDS": "3600"})


def test_who_may_scrape_is_the_peer_of_a_network_policy() -> None:
    images = {"ROPEWALK_AGENT_IMAGE": "a", "ROPEWALK_STDIO_IMAGE": "s"}
    peer = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    assert settings.load({**images, "ROPEWALK_SCRAPERS": json.dumps(peer)}).scrapers == peer
    assert settings.load(images).scrapers == {}


def test_users_of_pods_are_fixed_unless_the_cluster_is_told_to_choose() -> None:
    images = {"ROPEWALK_AGENT_IMAGE": "a", "ROPEWALK_STDIO_IMAGE": "s"}
    assert settings.load(images).fixed_user is True
    assert settings.load({**images, "ROPEWALK_FIXED_USER": "false"}).fixed_user is False
    with pytest.raises(
        settings.InvalidSettings, match="ROPEWALK_FIXED_USER is 'root': input should be a valid boolean"
    ):
        settings.load({**images, "ROPEWALK_FIXED_USER": "root"})


@pytest.mark.parametrize("wrong", ["prometheus", "[]", '{"ipBlock": {}}', '{"podSelector": "all"}'])
def test_a_scraper_that_is_no_peer_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(settings.InvalidSettings, match=r"ROPEWALK_SCRAPERS is .* use a JSON object such as"):
        settings.load({"ROPEWALK_AGENT_IMAGE": "a", "ROPEWALK_STDIO_IMAGE": "s", "ROPEWALK_SCRAPERS": wrong})


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "hello %s", ("you",), None)
    record.fields = {"object": "Agent a/b"}
    entry = json.loads(JsonFormatter().format(record))
    assert entry["time"].endswith("Z")
    assert {key: entry[key] for key in ("level", "logger", "message", "object")} == {
        "level": "info", "logger": "n", "message": "hello you", "object": "Agent a/b",
    }  # fmt: skip


async def test_the_endpoints_answer_503_with_the_reasons() -> None:
    problems: list[str] = []
    leads = True
    counted = Metrics()
    cache = Cache()
    body = agent()
    body["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    cache.see("Agent", body)
    counted.read_at_scrape(cache, WorkQueue(), lambda: {"Pod": 2.0}, lambda: leads)
    counted.reconciled(Key("Agent", "default", "calc"), 0.1, ok=False)
    app = server.app(health=lambda: [], ready=lambda: problems, metrics=counted.text, metrics_type=CONTENT_TYPE)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/ready")).status == 200
        problems.append("no caches")
        answer = await client.get("/ready")
        assert answer.status == 503
        assert await answer.json() == {"ready": False, "reasons": ["no caches"]}
        assert (await client.get("/health")).status == 200
        text = await (await client.get("/metrics")).text()
    assert 'ropewalk_resource_condition{condition="Ready",kind="Agent",name="calc",namespace="default"} 1.0' in text
    assert 'ropewalk_operator_reconcile_total{kind="Agent",result="error"} 1.0' in text
    assert 'ropewalk_operator_last_watch_event_age_seconds{kind="Pod"} 2.0' in text
    assert "ropewalk_operator_leader 1.0" in text
    leads = False
    text = counted.text().decode()
    assert "ropewalk_operator_leader 0.0" in text
    assert "ropewalk_resource_condition{" not in text, "the leader says it already"


@pytest.mark.parametrize(("reason", "idle"), [("Suspended", 1.0), ("ScaledToZero", 1.0), ("CrashLoop", 0.0)])
async def test_what_shall_have_no_pods_is_told_from_what_has_none_by_a_failure(reason: str, idle: float) -> None:
    counted, cache, body = Metrics(), Cache(), agent()
    body["status"] = {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]}
    cache.see("Agent", body)
    counted.read_at_scrape(cache, WorkQueue(), dict, lambda: True)
    labels = {"kind": "Agent", "namespace": "default", "name": "calc"}
    assert counted.registry.get_sample_value("ropewalk_resource_idle", labels) == idle


async def test_watching_has_begun_when_every_kind_is_watched_in_a_namespace() -> None:
    watches = Watches(["a", "b"], Clock(0.0))
    begun = asyncio.create_task(watches.begun("b"))
    for place in "ab":
        for kind in WATCHED:
            await asyncio.sleep(0)
            assert not begun.done()
            watches.on_watch(kind, place)
    await begun


async def test_a_start_waits_for_every_namespace() -> None:
    watches = Watches(["a", "b"], Clock(0.0))
    settled = asyncio.create_task(watches.settled())
    for place in "ab":
        await asyncio.sleep(0)
        assert not settled.done()
        watches.settle(place)
    await settled


def test_the_silence_of_a_namespace_that_is_left_out_is_no_problem_until_all_of_it_is_watched_again() -> None:
    clock = Clock(0.0)
    watches = Watches(["a", "b"], clock)
    watches.begin()
    watches.settle("a")
    watches.leave_out("b")
    clock.now = SILENCE_SECONDS + 1
    for kind in WATCHED:
        watches.on_event(kind, "a")
    assert watches.problems() == []
    watches.begin_anew("b")
    watches.on_event(AGENT, "b")
    clock.now += SILENCE_SECONDS - 1
    assert watches.problems() == []
    watches.settle("b")
    clock.now += SILENCE_SECONDS
    assert watches.problems() == [
        f"no sign of life of the watch of {kind.name} in namespace a for {SILENCE_SECONDS * 2 - 1:.0f} s"
        for kind in WATCHED
    ]
    clock.now += 1
    assert len(watches.problems()) == 2 * len(WATCHED)


def test_a_watch_that_is_silent_in_one_namespace_is_a_problem_though_it_lives_in_another() -> None:
    clock = Clock(0.0)
    watches = Watches(["a", "b"], clock)
    watches.begin()
    clock.now = SILENCE_SECONDS + 1
    for kind in WATCHED:
        watches.on_event(kind, "a")
        if kind is not AGENT:
            watches.on_event(kind, "b")
    assert watches.ages() == {kind.name: clock.now if kind is AGENT else 0.0 for kind in WATCHED}
    (problem,) = watches.problems()
    assert problem == f"no sign of life of the watch of Agent in namespace b for {clock.now:.0f} s"


def test_a_listing_that_takes_long_is_no_problem_while_it_gives_signs_of_life() -> None:
    clock = Clock(0.0)
    watches = Watches([], clock)
    watches.begin()
    for _ in range(3):
        clock.now += SILENCE_SECONDS
        for kind in WATCHED:
            watches.on_event(kind, "")
        assert watches.problems() == []
    assert watches.missing() == sorted(kind.name for kind in WATCHED)
    for kind in WATCHED:
        watches.on_watch(kind, "")
    assert watches.missing() == []


def test_an_operator_that_has_waited_long_for_the_api_server_is_healthy_and_has_its_time_to_begin() -> None:
    clock = Clock(0.0)
    watches = Watches([], clock)
    clock.now = SILENCE_SECONDS * 2
    assert watches.problems() == []
    watches.begin()
    clock.now += SILENCE_SECONDS
    assert watches.problems() == []


async def test_a_listing_shows_what_a_watch_has_missed() -> None:
    api = FakeApiServer()
    cache = Cache()
    cache.see("Agent", api.put(agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "k"}})))
    managed = {"app.kubernetes.io/managed-by": "ropewalk-operator"}
    for name, labels in (("prompts", {}), ("calc-agent", managed)):
        metadata = {"name": name, "namespace": "default", "labels": labels}
        cache.see("ConfigMap", api.put({"kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}}))
    cache.children.clear()
    del api.objects[Key("ConfigMap", "default", "prompts")]
    concerned: set[Key] = set()
    await list_into(cache, cast(Kube, api), [CONFIG_MAP], "", concerned.update)
    assert concerned == {Key("Agent", "default", "calc")}, "its prompt is gone"
    child = cache.children[Key("ConfigMap", "default", "calc-agent")]
    assert child.content is not None, "of the operator's own the content is listed too"


async def test_an_object_that_cannot_be_understood_hides_no_other_one_of_its_listing() -> None:
    api, cache, concerned = FakeApiServer(), Cache(), set[Key]()
    api.put(agent("odd"))
    api.put(agent())
    del api.objects[Key("Agent", "default", "odd")]["metadata"]["name"]
    await list_into(cache, cast(Kube, api), [AGENT], "", concerned.update)
    assert set(cache.resources) == concerned == {Key("Agent", "default", "calc")}


async def test_a_resync_looks_at_every_resource_and_at_those_that_only_it_finds_gone() -> None:
    api, cache = FakeApiServer(), Cache()
    cache.see("Agent", api.put(agent()))
    cache.see("Agent", api.put(agent("gone")))
    del api.objects[Key("Agent", "default", "gone")]
    looked_at: asyncio.Queue[Key] = asyncio.Queue()
    watches = Watches([], Clock(0.0))
    task = asyncio.create_task(
        resync(cache, cast(Kube, api), watches, lambda key, _urgent: looked_at.put_nowait(key), every_seconds=0.001)
    )
    first = {await asyncio.wait_for(looked_at.get(), 10) for _ in range(2)}
    task.cancel()
    assert first == {Key("Agent", "default", "calc"), Key("Agent", "default", "gone")}


async def test_what_a_resync_finds_is_looked_at_before_the_rest_of_it_is_listed() -> None:
    api, cache = FakeApiServer(), Cache()
    api.put(agent())
    looked_at: asyncio.Queue[Key] = asyncio.Queue()

    class HangsAfterTheAgents:
        async def list_all(self, kind: Kind, *args: Any, **options: Any) -> Any:
            if AGENT.name in [key.kind for key in cache.resources]:
                await asyncio.Future()
            return await api.list_all(kind, *args, **options)

    watches = Watches([], Clock(0.0))
    enqueue = lambda key, _urgent: looked_at.put_nowait(key)  # noqa: E731
    task = asyncio.create_task(resync(cache, cast(Kube, HangsAfterTheAgents()), watches, enqueue, every_seconds=0.001))
    assert await asyncio.wait_for(looked_at.get(), 10) == Key("Agent", "default", "calc")
    task.cancel()


async def test_requests_without_an_answer_are_counted() -> None:
    seen: list[tuple[str, int]] = []
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    kube = Kube(configuration, Guard(uptime), lambda verb, code: seen.append((verb, code)))
    async with kube.watch_session(Nobody()) as session:
        with pytest.raises(ClientConnectionError):
            await session.get(f"{kube.server}/api/v1/pods?watch=true")
    await kube.close()
    assert seen == [("WATCH", 0)]


async def test_a_namespace_without_config_maps_can_be_watched() -> None:
    async def empty(_: web.Request) -> web.Response:
        return web.json_response({"kind": "PartialObjectMetadataList", "metadata": {}, "items": None})

    application = web.Application()
    application.router.add_get("/api/v1/namespaces/empty/configmaps", empty)
    async with TestServer(application) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url(""))
        kube = Kube(configuration, Guard(uptime))
        async with kube.watch_session(Nobody()) as session:
            answer = await session.get(server.make_url("/api/v1/namespaces/empty/configmaps"))
            assert (await answer.json())["items"] == []
        await kube.close()


def test_an_address_tells_kind_and_namespace() -> None:
    assert collection("/apis/ropewalk.dev/v1alpha1/agents") == (AGENT, "")
    assert collection("/api/v1/namespaces/pods/pods") == (POD, "pods")
    assert collection("/api/v1/namespaces/a/pods/b") is None
    assert collection("/apis/other.dev/v1/agents") is None
    assert collection("/apis") is None


async def test_a_failed_reconcile_is_tried_again_and_the_worker_goes_on() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    counted = Metrics()
    seen: list[str] = []
    enough = asyncio.Event()

    async def reconcile(key: Key) -> float | None:
        seen.append(key.name)
        if seen.count(key.name) == 1 and key.name != "good":
            raise ApiError(500, "Internal", "no") if key.name == "down" else ValueError("a bug")
        if len(seen) >= 5:
            enough.set()
        return None

    for name in ("down", "bug", "good"):
        queue.add(Key("Agent", "default", name))
    worker = asyncio.create_task(work(queue, reconcile, counted))
    await enough.wait()
    worker.cancel()
    assert seen[:3] == ["down", "bug", "good"]
    assert sorted(seen[3:]) == ["bug", "down"]
    assert queue.retries == 2
