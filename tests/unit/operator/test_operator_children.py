"""Children: whose they are, what is put back, what is left alone, what is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from operator_reconciler import AGENT, AGENT_CHILDREN, CORRECTED, SERVER, STATUS, World, created, edited
from operator_world import agent, mcp_server
from ropewalk_operator.kinds import Key
from ropewalk_operator.kube import ApiError

REDIS = {"urlSecretRef": {"name": "redis", "key": "url"}}


async def test_a_child_that_the_watches_have_not_shown_yet_is_applied_all_the_same(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.cache.children.clear()
    world.applier.forget("calc-agent", "default")
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == created("ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "Deployment")


class Unsearchable(dict[Key, Any]):
    """Holds the children of thousands of others, too many to go through."""

    def __iter__(self) -> Iterator[Key]:
        raise AssertionError("all children were gone through")


async def test_to_forget_one_owners_children_those_of_others_are_not_gone_through(world: World) -> None:
    world.put(agent())
    world.put(agent("other"))
    await world.settle()
    await world.settle(Key("Agent", "default", "other"))
    applied = world.applier._applied = Unsearchable(world.applier._applied)
    before = len(applied)
    world.applier.forget("calc-agent", "default")
    assert before == 2 * len(AGENT_CHILDREN)
    assert len(applied) == len(AGENT_CHILDREN)
    assert all(Key(kind, "default", "other-agent") in applied for kind in AGENT_CHILDREN)


@pytest.mark.parametrize("kind", AGENT_CHILDREN)
async def test_an_object_of_somebody_else_is_never_taken_over(kind: str, world: World) -> None:
    foreign = {"kind": kind, "metadata": {"name": "calc-agent", "namespace": "default"}}
    world.api.put(foreign)  # The watches have not shown it.
    before = world.api.objects[Key(kind, "default", "calc-agent")]
    world.put(agent())
    await world.reconciler.reconcile(AGENT)
    assert f"APPLY {kind} calc-agent" not in world.api.writes
    assert world.api.objects[Key(kind, "default", "calc-agent")] is before
    assert world.condition("Accepted")["reason"] == "ChildNameTaken"
    assert f"{kind} calc-agent" in world.condition("Accepted")["message"]


async def test_a_copy_of_a_child_is_not_taken_for_an_orphan(world: World) -> None:
    world.put(agent())
    await world.settle()
    copied = world.api.objects[Key("Service", "default", "calc-agent")]
    metadata = {key: value for key, value in copied["metadata"].items() if key not in ("ownerReferences", "uid")}
    world.put({**copied, "metadata": {**metadata, "name": "copy-agent"}})
    world.put(agent("copy"))
    key = Key("Agent", "default", "copy")
    await world.reconciler.reconcile(key)
    assert "APPLY Service copy-agent" not in world.api.writes
    assert world.condition("Accepted", key)["reason"] == "ChildNameTaken"


async def test_children_of_a_deleted_agent_of_the_same_name_are_waited_for(world: World) -> None:
    world.put(agent())
    await world.settle()
    reborn = agent()
    reborn["metadata"]["uid"] = "another"
    world.put(reborn)
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS]
    assert world.condition("Available")["reason"] == "WaitingForDeletion"


async def test_the_deployment_of_a_deleted_agent_of_the_same_name_is_not_counted(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.settle()
    assert world.api.objects[AGENT]["status"]["readyReplicas"] == 1
    reborn = agent()
    reborn["metadata"]["uid"] = "another"
    world.put(reborn)
    await world.reconciler.reconcile(AGENT)
    assert world.api.objects[AGENT]["status"]["readyReplicas"] == 0


async def test_a_refused_child_is_reported_in_the_api_servers_words_and_the_deployment_waits(world: World) -> None:
    world.put(agent())
    world.api.refuse["Service"] = ApiError(403, "Forbidden", "exceeded quota: services=1")
    assert await world.reconciler.reconcile(AGENT) is not None
    assert "APPLY Deployment calc-agent" not in world.api.writes
    assert world.condition("Available")["reason"] == "ChildRefused"
    assert "exceeded quota" in world.condition("Ready")["message"]


async def test_a_list_that_server_side_apply_cannot_put_back_is_replaced_as_a_whole(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.change("Service", "calc-agent", lambda body: body["spec"]["ports"][0].update(port=9999))
    world.api.refuse["Service"] = ApiError(422, "Invalid", "spec.ports[1].name: Duplicate value")
    await world.reconciler.reconcile(AGENT)
    service = "Service calc-agent"
    assert world.api.writes == [f"APPLY {service}", f"MERGE {service}", f"APPLY {service}", CORRECTED]
    assert world.api.objects[Key("Service", "default", "calc-agent")]["spec"]["ports"][0]["port"] == 8080


@pytest.mark.parametrize(
    "change",
    [
        lambda pod_spec: pod_spec["containers"].append({"name": "sidecar", "image": "x"}),
        lambda pod_spec: pod_spec.update(initContainers=[{"name": "first", "image": "x"}]),
        lambda pod_spec: pod_spec.update(hostNetwork=True),
        lambda pod_spec: pod_spec["containers"][0].update(command=["evil"]),
    ],
    ids=["sidecar", "init container", "host network", "command"],
)
async def test_what_somebody_adds_to_a_pod_template_is_taken_away(
    change: Callable[[dict[str, Any]], None], world: World
) -> None:
    world.put(agent())
    await world.settle()
    key = Key("Deployment", "default", "calc-agent")
    before = world.api.objects[key]["spec"]
    wanted = copy.deepcopy(before)
    world.change("Deployment", "calc-agent", lambda body: change(body["spec"]["template"]["spec"]))
    world.api.keep_additions = True
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == ["APPLY Deployment calc-agent", "MERGE Deployment calc-agent", CORRECTED]
    assert world.api.objects[key]["spec"] == wanted
    world.api.writes.clear()
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_what_an_admission_webhook_changes_is_not_fought(world: World) -> None:
    world.put(agent())
    apply = world.api.apply

    async def mutating(kind: Any, namespace: str, name: str, manifest: Any, **options: Any) -> dict[str, Any]:
        await apply(kind, namespace, name, manifest, **options)
        stored = world.api.objects[Key(kind.name, namespace, name)]
        if kind.name == "Deployment":
            stored["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror/agent"
        return {**stored}

    world.api.apply = mutating  # type: ignore[method-assign]
    await world.settle()
    world.change("Deployment", "calc-agent", lambda body: body.update(status={"observedGeneration": 0}))
    assert await world.reconciler.reconcile(AGENT) is None
    assert world.api.writes == []
    world.change("Deployment", "calc-agent", lambda body: body["spec"].update(replicas=7))
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [*created("Deployment"), CORRECTED], "a person's change is still put back"


async def test_an_image_server_that_becomes_remote_loses_its_children(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)

    def move(body: dict[str, Any]) -> None:
        body["spec"] = {"remote": {"url": "https://tools.example.com/mcp"}}
        body["metadata"]["generation"] += 1

    world.change("MCPServer", "math", move)
    await world.reconciler.reconcile(SERVER)
    deleted = sorted(write for write in world.api.writes if write.startswith("DELETE"))
    assert deleted == [
        f"DELETE {kind} math-mcp" for kind in ("Deployment", "NetworkPolicy", "Service", "ServiceAccount")
    ]


CLAIM = Key("PersistentVolumeClaim", "default", "calc-agent")
FILES = {"store": "file"}


def storage(world: World) -> str:
    return str(world.api.objects[CLAIM]["spec"]["resources"]["requests"]["storage"])


@pytest.mark.parametrize("sessions", [{"store": "memory"}, {"store": "redis", "redis": REDIS}])
async def test_a_claim_is_kept_when_the_store_changes_and_the_status_says_so(
    sessions: dict[str, Any], world: World
) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    assert CLAIM in world.api.objects
    edited(sessions=sessions)(world)
    await world.settle()
    assert CLAIM in world.api.objects
    message = world.condition("Accepted")["message"]
    assert "the PersistentVolumeClaim calc-agent still holds the sessions of store file" in message
    world.lose("PersistentVolumeClaim", "calc-agent")
    await world.settle()
    assert "PersistentVolumeClaim" not in world.condition("Accepted")["message"]
    assert CLAIM not in world.api.objects


async def test_a_store_that_is_file_again_finds_its_old_claim(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    before = world.api.objects[CLAIM]["metadata"]["uid"]
    for sessions in ({"store": "memory"}, FILES):
        edited(sessions=sessions)(world)
        await world.settle()
    assert world.api.objects[CLAIM]["metadata"]["uid"] == before
    assert "PersistentVolumeClaim" not in world.condition("Accepted")["message"]


async def test_a_claim_grows_with_the_spec(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    assert storage(world) == "1Gi"
    world.change("PersistentVolumeClaim", "calc-agent", bind)
    edited(sessions={"store": "file", "file": {"size": "3Gi"}})(world)
    await world.reconciler.reconcile(AGENT)
    assert created("PersistentVolumeClaim")[0] in world.api.writes
    assert storage(world) == "3Gi"


async def test_a_claim_without_its_volume_keeps_its_size_until_it_has_one(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    world.change("PersistentVolumeClaim", "calc-agent", lambda body: body.update(status={"phase": "Pending"}))
    edited(sessions={"store": "file", "file": {"size": "2Gi"}}, systemPrompt="Be brief.")(world)
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [*created("ConfigMap", "Deployment"), STATUS]
    assert "keeps its 1Gi, it cannot grow before it has its volume" in world.condition("Accepted")["message"]
    world.change("PersistentVolumeClaim", "calc-agent", bind)
    await world.settle()
    assert storage(world) == "2Gi"
    assert "PersistentVolumeClaim" not in world.condition("Accepted")["message"]


async def test_a_claim_that_somebody_has_grown_is_never_asked_to_shrink(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    world.change("PersistentVolumeClaim", "calc-agent", lambda body: grow(body, "5Gi"))
    await world.settle()
    assert storage(world) == "5Gi"
    edited(sessions={"store": "file", "file": {"size": "2Gi"}})(world)
    await world.settle()
    assert storage(world) == "5Gi"
    assert "keeps its 5Gi, it cannot shrink" in world.condition("Accepted")["message"]


async def test_a_claim_that_a_former_agent_has_left_keeps_its_size(world: World) -> None:
    world.put(agent(sessions={"store": "file", "file": {"size": "5Gi"}}))
    await world.settle()
    world.lose("Agent", "calc")
    await world.settle()
    for kind in (*AGENT_CHILDREN, "PersistentVolumeClaim"):
        world.change(kind, "calc-agent", lambda body: body["metadata"].pop("ownerReferences"))
    reborn = agent(sessions=FILES)
    reborn["metadata"]["uid"] = "another"
    world.put(reborn)
    await world.settle()
    (reference,) = world.api.objects[CLAIM]["metadata"]["ownerReferences"]
    assert reference["uid"] == "another"
    assert storage(world) == "5Gi"
    assert "keeps its 5Gi, it cannot shrink" in world.condition("Accepted")["message"]


def grow(body: dict[str, Any], size: str) -> None:
    body["spec"]["resources"]["requests"]["storage"] = size


def bind(body: dict[str, Any]) -> None:
    body["spec"] |= {"volumeName": "pv-1", "storageClassName": "standard", "volumeMode": "Filesystem"}
    body["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes"
    body["metadata"]["finalizers"] = ["kubernetes.io/pvc-protection"]
    body["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}


async def test_what_kubernetes_adds_to_a_bound_claim_is_no_drift(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    world.change("PersistentVolumeClaim", "calc-agent", bind)
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_a_claim_of_somebody_else_is_neither_used_nor_spoken_of(world: World) -> None:
    world.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "calc-agent", "namespace": "default"}, "spec": {}})
    world.put(agent())
    await world.settle()
    assert "PersistentVolumeClaim" not in world.condition("Accepted")["message"]
    edited(sessions=FILES)(world)
    await world.settle()
    assert world.condition("Accepted")["reason"] == "ChildNameTaken"


async def test_a_claim_that_somebody_deletes_keeps_nothing_waiting_and_comes_back_empty(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    world.change("PersistentVolumeClaim", "calc-agent", lambda body: body["metadata"].update(deletionTimestamp="now"))
    edited(sessions=FILES, suspend=True)(world)
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes[0] == created("Deployment")[0], (
        "or the pod that uses the claim would stay, and the claim too"
    )
    assert "PersistentVolumeClaim" not in str(world.api.writes)
    assert "was deleted: it and its sessions go when no pod uses it" in world.condition("Accepted")["message"]
    world.api.writes.clear()
    world.lose("PersistentVolumeClaim", "calc-agent")
    await world.reconciler.reconcile(AGENT)
    assert created("PersistentVolumeClaim")[0] in world.api.writes


async def test_the_claim_of_a_former_agent_of_that_name_is_waited_for(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    world.change("PersistentVolumeClaim", "calc-agent", lambda body: body["metadata"].update(deletionTimestamp="now"))
    reborn = agent(sessions=FILES)
    reborn["metadata"]["uid"] = "another"
    world.put(reborn)
    assert await world.reconciler.reconcile(AGENT) is not None
    assert world.condition("Available")["reason"] == "WaitingForDeletion"


async def test_settings_that_need_a_claim_are_not_written_while_the_claim_is_refused(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.api.refuse["PersistentVolumeClaim"] = ApiError(403, "Forbidden", "exceeded quota: requests.storage=0")
    edited(sessions=FILES)(world)
    await world.reconciler.reconcile(AGENT)
    assert [write for write in world.api.writes if write.startswith("APPLY")] == created("PersistentVolumeClaim"), (
        "or the old pod, which has no volume, would restart with the store file"
    )
    assert world.condition("Available")["reason"] == "ChildRefused"


async def test_a_size_that_is_taken_back_is_asked_for_no_more(world: World) -> None:
    world.put(agent(sessions=FILES))
    await world.settle()
    world.change("PersistentVolumeClaim", "calc-agent", bind)
    world.api.refuse["PersistentVolumeClaim"] = ApiError(403, "Forbidden", "the class must support resize")
    edited(sessions={"store": "file", "file": {"size": "2Gi"}})(world)
    await world.reconciler.reconcile(AGENT)
    assert world.condition("Available")["reason"] == "ChildRefused"
    edited(sessions=FILES)(world)
    world.api.writes.clear()
    await world.reconciler.reconcile(AGENT)
    assert not any(write.startswith("APPLY") for write in world.api.writes)
    assert world.condition("Available")["reason"] != "ChildRefused"


async def test_a_network_policy_that_is_switched_off_is_pruned(world: World) -> None:
    world.put(agent())
    await world.settle()
    edited(networkPolicy={"enabled": False})(world)
    await world.reconciler.reconcile(AGENT)
    assert "DELETE NetworkPolicy calc-agent" in world.api.writes


async def test_a_child_too_many_that_is_deleted_by_somebody_else_meanwhile_is_no_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(agent())
    await world.settle()
    edited(networkPolicy={"enabled": False}, systemPrompt="Another one.")(world)
    policy, apply = Key("NetworkPolicy", "default", "calc-agent"), world.api.apply

    async def apply_while_it_goes(*arguments: Any, **options: Any) -> Any:
        if (gone := world.api.objects.pop(policy, None)) is not None:
            world.cache.lose(policy.kind, gone)
        return await apply(*arguments, **options)

    monkeypatch.setattr(world.api, "apply", apply_while_it_goes)
    await world.reconciler.reconcile(AGENT)
    assert "APPLY Deployment calc-agent" in world.api.writes
    assert not any(write.startswith("DELETE") for write in world.api.writes)
