"""What a broken Agent says beyond its pods' status: by the pod's own answer, in Events, and while it is deleted."""

from __future__ import annotations

from typing import Any

import pytest

from operator_reconciler import AGENT, SERVER, STATUS, World
from operator_world import FakeApiServer, agent, mcp_server
from operator_world import pod as pod_body
from ropewalk_operator import observe, pods
from ropewalk_operator.changes import news
from ropewalk_operator.kinds import Key
from ropewalk_operator.observe import LISTENING_IS_SLOW_SECONDS
from ropewalk_operator.pod_events import PodEvents
from ropewalk_operator.reconcile import LOOK_AGAIN_SECONDS

CREATING = {"waiting": {"reason": "ContainerCreating"}}
CRASHED = {"exitCode": 1, "message": "it is broken"}
KEY_REFUSED = "the model m cannot be asked: its provider refused the key (status 401); put a valid key into the Secret"


async def asked(
    body: dict[str, Any],
    *,
    reasons: tuple[str, ...] = (),
    events: tuple[tuple[str, str], ...] = (),
    seconds_old: float = 60,
) -> Any:
    """What is found out about a pod that answers /ready with these reasons and has these Events, some time after."""
    server = FakeApiServer()
    about = {"kind": "Pod", "uid": body["metadata"]["uid"]}
    server.events = [{"involvedObject": about, "reason": reason, "message": message} for reason, message in events]

    async def ready(_pod: pods.Pod) -> list[str]:
        return list(reasons)

    found = pods.pod(body)
    assert found is not None
    return (
        await observe.extra_trouble([found], PodEvents(server, lambda _owner: None), ready, found.created + seconds_old)
    ).get(found.uid)


ANSWERS: list[tuple[str, dict[str, Any], tuple[str, ...], str | None]] = [
    # sentence, how the last container ended, what the pod answers, the reason of its trouble
    ("a pod that is starting is in no trouble", {}, ("the agent is starting", "the store has not answered"), None),
    ("a pod that lacks something is not ready", {}, ("the session store cannot be used: no host",), "NotReady"),
    ("a pod whose key is refused says so", {}, (KEY_REFUSED,), "ModelKeyRefused"),
    ("a refused key goes before what else is wrong", {}, ("mcp server a: down", KEY_REFUSED), "ModelKeyRefused"),
    ("a pod that will end says why", {}, ("the agent cannot start: x",), "NotReady"),
    ("one that has ended so before goes on being in a crash loop", CRASHED, ("the agent cannot start: x",), None),
    ("one that has ended before and is starting, too", CRASHED, ("the agent is starting",), None),
    ("one that runs now says more than how it ended", CRASHED, ("the session store cannot be used",), "NotReady"),
]


@pytest.mark.parametrize("row", ANSWERS, ids=[row[0] for row in ANSWERS])
async def test_a_running_pods_answer_is_judged(row: tuple[str, dict[str, Any], tuple[str, ...], str | None]) -> None:
    sentence, last, reasons, wanted = row
    found = await asked(pod_body(state={"running": {}}, last=last or None), reasons=reasons)
    assert (found and found.reason) == wanted, sentence


async def test_what_a_pod_is_not_ready_for_is_quoted_with_what_follows() -> None:
    found = await asked(pod_body(state={"running": {}}), reasons=("one.", "two"))
    assert found.message == "not ready: one; two; it becomes ready by itself once that is put right"


EVENTS: list[tuple[str, str, str, str | None]] = [
    ("a Secret that is not there", "FailedMount", 'MountVolume… : secret "k" not found', "SecretNotFound"),
    ("a ConfigMap that is not there", "FailedMount", 'MountVolume… : configmap "c" not found', "ConfigMapNotFound"),
    ("any other mount that fails", "FailedMount", "the driver is not registered here", "FailedMount"),
    ("a kubelet whose cache lags behind", "FailedMount", "failed to sync secret cache: timed out", None),
    ("one that has not seen the object yet", "FailedMount", 'object "default"/"c" not registered', None),
    ("what does not keep a pod from starting", "Unhealthy", "Readiness probe failed", None),
]


@pytest.mark.parametrize("row", EVENTS, ids=[row[0] for row in EVENTS])
async def test_the_events_of_a_pod_that_hangs_in_creation_are_judged(row: tuple[str, str, str, str | None]) -> None:
    sentence, reason, message, wanted = row
    found = await asked(pod_body(state=CREATING), events=((reason, message),))
    assert (found and found.reason) == wanted, sentence


def told(reason: str, *, before: str | None = None, type_: str = "Ready") -> list[tuple[str, str, str]]:
    """The Events of an Agent whose condition becomes False; `before`: the condition's status until then."""
    former = [{"type": type_, "status": before, "reason": "Before"}] if before else []
    new = {"conditions": [{"type": type_, "status": "False", "reason": reason, "message": "m"}]}
    return news({"conditions": former}, new, [])


@pytest.mark.parametrize("before", [None, "False", "True"])
@pytest.mark.parametrize("reason", ["ImagePullFailed", "SecretNotFound", "ModelKeyRefused", "QuotaExceeded"])
def test_what_will_not_pass_is_told_as_a_warning_also_of_an_agent_that_never_was_ready(
    reason: str, before: str | None
) -> None:
    assert told(reason, before=before) == [("Warning", reason, "m")]


@pytest.mark.parametrize("reason", ["NotReady", "McpServerNotReady", "Pending", "WaitingForDeletion"])
def test_what_many_go_through_on_their_way_is_told_only_of_what_was_ready(reason: str) -> None:
    assert told(reason) == told(reason, before="False") == []
    assert told(reason, before="True") == [("Warning", reason, "m")]


def test_what_takes_its_time_is_no_warning() -> None:
    assert told("Progressing") == []
    assert told("Progressing", before="True") == [("Normal", "Progressing", "m")]


def test_the_same_reason_is_told_once() -> None:
    new = {"conditions": [{"type": "Ready", "status": "False", "reason": "CrashLoop", "message": "restarted twice"}]}
    old = {"conditions": [{"type": "Ready", "status": "False", "reason": "CrashLoop", "message": "restarted once"}]}
    assert news(old, new, []) == []


@pytest.fixture
async def world() -> World:
    """An Agent that is Ready."""
    world = World()
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.settle()
    return world


@pytest.mark.parametrize("off_by", [-3600.0, 0.0, 3600.0])
async def test_a_server_is_given_time_to_listen_whatever_the_clock_on_the_wall_says(off_by: float) -> None:
    world = World()
    world.clock_is_off_by = off_by
    world.put(mcp_server())
    await world.settle(SERVER)
    deployment = world.api.objects[Key("Deployment", "default", "math-mcp")]
    config_hash = deployment["spec"]["template"]["metadata"]["annotations"]["ropewalk.dev/config-hash"]
    world.put(pod_body("math", kind="MCPServer", config_hash=config_hash, state={"running": {}}))
    world.now += LISTENING_IS_SLOW_SECONDS - 1
    assert await world.reconciler.reconcile(SERVER) == LOOK_AGAIN_SECONDS
    assert world.condition("Available", SERVER)["reason"] == "Progressing"
    world.now += 1
    await world.reconciler.reconcile(SERVER)
    assert world.condition("Available", SERVER)["reason"] == "NotListening"


def delete(world: World, *finalizers: str) -> None:
    """Somebody deletes the Agent, which the finalizers keep."""

    def change(body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        metadata.update(deletionTimestamp="2026-01-01T00:00:00Z", generation=2, finalizers=list(finalizers))

    world.change("Agent", "calc", change)


async def blocked(world: World, after_seconds: float = 6) -> None:
    """Look once at the deletion, and again some time later."""
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []
    world.now += after_seconds
    await world.reconciler.reconcile(AGENT)


@pytest.mark.parametrize("off_by", [-3600.0, 0.0, 3600.0])
async def test_a_deletion_is_given_time_before_it_is_called_blocked_whatever_the_clock_on_the_wall_says(
    off_by: float, world: World
) -> None:
    world.clock_is_off_by = off_by
    delete(world, "example.com/hold")
    assert await world.reconciler.reconcile(AGENT) == 5.0
    world.now += 2
    assert await world.reconciler.reconcile(AGENT) == 3.0
    assert world.api.writes == []
    world.now += 3
    assert await world.reconciler.reconcile(AGENT) is None
    assert world.condition("Ready")["reason"] == "DeletionBlocked"


async def test_a_deletion_that_is_blocked_leaves_no_ready_behind_and_names_the_finalizer(world: World) -> None:
    delete(world, "example.com/hold")
    await blocked(world)
    assert world.api.writes == [STATUS, "EVENT Warning DeletionBlocked"]
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"], ready["observedGeneration"]) == ("False", "DeletionBlocked", 2)
    assert 'metadata.finalizers "example.com/hold"' in ready["message"]
    assert "its pods go on until then" in ready["message"]
    assert """kubectl patch agent calc --type=merge -p '{"metadata":{"finalizers":null}}'""" in ready["message"]
    # The others stay as they were last judged.
    assert world.condition("Available")["observedGeneration"] == 1
    world.api.writes.clear()
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_of_a_deletion_that_takes_the_children_first_no_pods_are_promised_and_kubernetes_keeps_its_finalizer(
    world: World,
) -> None:
    delete(world, "foregroundDeletion", "example.com/hold")
    await blocked(world)
    message = world.condition("Ready")["message"]
    assert 'metadata.finalizers "example.com/hold" to take them away;' in message
    assert "pods" not in message
    assert """-p '{"metadata":{"finalizers":["foregroundDeletion"]}}'""" in message


@pytest.mark.parametrize("finalizer", ["foregroundDeletion", "orphan"])
async def test_kubernetes_garbage_collector_has_a_minute_and_nobody_is_told_to_patch_its_finalizer_away(
    finalizer: str, world: World
) -> None:
    delete(world, finalizer)
    await blocked(world, after_seconds=59)
    assert world.api.writes == []
    world.now += 1
    await world.reconciler.reconcile(AGENT)
    ready = world.condition("Ready")
    assert ready["reason"] == "DeletionBlocked"
    assert f'garbage collector (metadata.finalizers "{finalizer}")' in ready["message"]
    assert "patch" not in ready["message"]


async def test_whom_a_blocked_deletion_waits_for_is_told_anew_when_that_changes(world: World) -> None:
    delete(world, "example.com/hold", "foregroundDeletion")
    await blocked(world)
    delete(world, "foregroundDeletion")
    assert await world.reconciler.reconcile(AGENT) == 54.0
    ready = world.condition("Ready")
    assert "example.com/hold" not in ready["message"]
    assert 'garbage collector (metadata.finalizers "foregroundDeletion")' in ready["message"]


async def test_the_deletion_of_another_of_the_same_name_has_its_own_time(world: World) -> None:
    delete(world, "example.com/hold")
    await blocked(world)
    world.lose("Agent", "calc")
    world.put({**agent(), "metadata": {**agent()["metadata"], "uid": "another"}})
    delete(world, "example.com/hold")
    assert await world.reconciler.reconcile(AGENT) == 5.0


async def test_many_finalizers_are_counted(world: World) -> None:
    delete(world, *(f"example.com/{number}" for number in range(7)))
    await blocked(world)
    assert '"example.com/4" and 2 more' in world.condition("Ready")["message"]


async def test_an_agent_that_was_never_judged_says_that_its_deletion_is_blocked() -> None:
    world = World()
    world.put(agent())
    delete(world, "example.com/hold")
    await blocked(world)
    assert world.condition("Ready")["reason"] == "DeletionBlocked"


async def test_why_a_pod_does_not_start_is_asked_also_where_the_clock_on_the_wall_is_behind() -> None:
    body = pod_body(state=CREATING)
    found = await asked(body, events=(("FailedMount", "no disk"),), seconds_old=-3600)
    assert found.reason == "FailedMount"
    assert await asked(body, events=(("FailedMount", "no disk"),), seconds_old=1) is None
