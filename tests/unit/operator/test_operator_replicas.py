"""Replicas: who sets them, and how they pass from the operator to an autoscaler and back."""

from __future__ import annotations

from typing import Any

import pytest

from operator_reconciler import AGENT, STATUS, World, edited
from operator_world import agent, owns_replicas
from ropewalk_operator.kinds import Key
from ropewalk_operator.kube import ApiError

REDIS = {"urlSecretRef": {"name": "redis", "key": "url"}}
DEPLOYMENT = Key("Deployment", "default", "calc-agent")
AUTOSCALED: dict[str, Any] = {
    "sessions": {"store": "redis", "redis": REDIS},
    "autoscaling": {"minReplicas": 3, "maxReplicas": 9},
}
FIXED = {**AUTOSCALED, "autoscaling": None}


def replicas(world: World) -> int:
    return int(world.api.objects[DEPLOYMENT]["spec"]["replicas"])


def owners_of_replicas(world: World) -> list[str]:
    return [entry["manager"] for entry in world.api.objects[DEPLOYMENT]["metadata"]["managedFields"]]


def scale(world: World, to: int) -> None:
    """The autoscaler writes another number and owns it then."""

    def change(body: dict[str, Any]) -> None:
        body["spec"]["replicas"] = to
        body["metadata"]["managedFields"] = [owns_replicas("kube-controller-manager", "Update")]

    world.change("Deployment", "calc-agent", change)


async def test_an_autoscaled_deployment_begins_with_the_fewest_pods_and_its_replicas_are_let_go(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    await world.reconciler.reconcile(AGENT)
    assert replicas(world) == 3
    assert "ropewalk-operator" not in owners_of_replicas(world)
    await world.settle()
    scale(world, 7)
    await world.reconciler.reconcile(AGENT)
    assert "APPLY Deployment calc-agent" not in world.api.writes
    assert replicas(world) == 7
    assert "of 7 pods" in world.condition("Available")["message"], "what the Deployment says is what is wanted"


def report(world: World, **condition: str) -> None:
    """The autoscaler writes its status."""
    world.change("HorizontalPodAutoscaler", "calc-agent", lambda body: body.update(status={"conditions": [condition]}))


async def test_an_autoscaler_that_does_nothing_is_told_with_its_reason_and_once(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    await world.settle()
    scale(world, 1)
    world.rolled_out()
    await world.settle()
    assert world.condition("Available")["message"] == "1 of 1 pods of this spec are ready"
    report(world, type="ScalingActive", status="False", reason="FailedGetPodsMetric", message="no such metric")
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS]
    assert world.condition("Available")["message"] == (
        "1 of 1 pods of this spec are ready; its autoscaler leaves it at that: no such metric"
    )
    assert world.condition("Available")["status"] == "True", "its pods answer all the same"
    report(world, type="ScalingActive", status="True", reason="ValidMetricFound", message="it counts")
    await world.settle()
    assert world.condition("Available")["message"] == "1 of 1 pods of this spec are ready"


async def test_the_autoscaler_and_the_pods_of_another_owner_say_nothing_of_this_one(world: World) -> None:
    another = [{"kind": "Agent", "name": "other", "uid": "uid-of-other", "controller": True}]
    for kind in ("Deployment", "HorizontalPodAutoscaler"):
        metadata = {"name": "calc-agent", "namespace": "default", "ownerReferences": another}
        idle = {"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": "foreign"}
        body = {"kind": kind, "metadata": metadata, "spec": {"replicas": 8}, "status": {"conditions": [idle]}}
        world.put(body)
    world.put(agent(**AUTOSCALED))
    facts, _, _ = await world.reconciler._agent(AGENT, world.cache.resources[AGENT])
    assert facts.autoscaler_idle == ""
    assert facts.replicas == 3


async def test_what_else_an_autoscaler_says_concerns_nobody(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    await world.settle()
    body = world.api.objects[Key("HorizontalPodAutoscaler", "default", "calc-agent")]
    told = {"conditions": [{"type": "ScalingLimited", "status": "False"}], "desiredReplicas": 3}
    assert world.cache.see("HorizontalPodAutoscaler", world.api.put({**body, "status": told})) == set()
    idle = {"conditions": [{"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled", "message": "0"}]}
    assert world.cache.see("HorizontalPodAutoscaler", world.api.put({**body, "status": idle})) == set()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 3), (5, 5), (20, 20)])
async def test_replicas_pass_to_the_autoscaler_and_never_fall(before: int, after: int, world: World) -> None:
    world.put(agent(**{**FIXED, "replicas": before}))
    await world.settle()
    seen: list[int] = []
    apply = world.api.apply

    async def watching(kind: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        answer = await apply(kind, *arguments, **options)
        if kind.name == "Deployment":
            seen.append(answer["spec"]["replicas"])
        return answer

    world.api.apply = watching  # type: ignore[method-assign]
    edited(replicas=1, autoscaling=AUTOSCALED["autoscaling"])(world)
    await world.reconciler.reconcile(AGENT)
    assert seen
    assert set(seen) == {after}
    assert owners_of_replicas(world) == ["ropewalk-operator-replicas"]


async def test_an_edit_of_an_autoscaled_agent_leaves_its_replicas_alone(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    await world.settle()
    scale(world, 7)
    edited(systemPrompt="Be brief.")(world)
    await world.reconciler.reconcile(AGENT)
    assert "APPLY Deployment calc-agent" in world.api.writes
    assert replicas(world) == 7


async def test_a_scaling_between_two_steps_of_the_handing_over_is_not_overruled(world: World) -> None:
    world.put(agent(**{**FIXED, "replicas": 4}))
    await world.settle()
    get = world.api.get

    async def meanwhile(kind: Any, *arguments: Any, **options: Any) -> dict[str, Any] | None:
        found = await get(kind, *arguments, **options)
        if kind.name == "Deployment":
            world.api.get = get  # type: ignore[method-assign]
            scale(world, 6)
        return found

    world.api.get = meanwhile  # type: ignore[method-assign]
    edited(replicas=1, autoscaling=AUTOSCALED["autoscaling"])(world)
    await world.reconciler.reconcile(AGENT)
    assert replicas(world) == 6


async def test_an_operator_that_ends_before_it_has_let_go_of_the_replicas_does_so_when_it_is_back(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    apply = world.api.apply

    async def conflicting(kind: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        if "manager" in options:
            raise ApiError(409, "Conflict", "the object has been modified")
        return await apply(kind, *arguments, **options)

    world.api.apply = conflicting  # type: ignore[method-assign]
    with pytest.raises(ApiError, match="modified"):
        await world.reconciler.reconcile(AGENT)
    assert owners_of_replicas(world) == ["ropewalk-operator"]
    world.api.apply = apply  # type: ignore[method-assign]
    world.restart()
    await world.reconciler.reconcile(AGENT)
    assert owners_of_replicas(world) == ["ropewalk-operator-replicas"]


async def test_an_autoscaled_deployment_that_somebody_scaled_to_nothing_stays_so_and_says_what_to_do(
    world: World,
) -> None:
    world.put(agent(**AUTOSCALED))
    await world.settle()
    scale(world, 0)
    await world.reconciler.reconcile(AGENT)
    assert replicas(world) == 0
    said = world.condition("Ready")
    assert said["reason"] == "ScaledToZero"
    assert "kubectl scale deployment calc-agent --replicas=1" in said["message"]
    assert "spec.replicas" not in said["message"], "it may not be set beside spec.autoscaling"


async def test_from_autoscaling_back_to_replicas_the_autoscaler_goes_first(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    await world.settle()
    scale(world, 7)
    edited(replicas=5, autoscaling=None)(world)
    await world.reconciler.reconcile(AGENT)
    gone = world.api.writes.index("DELETE HorizontalPodAutoscaler calc-agent")
    assert gone < world.api.writes.index("APPLY Deployment calc-agent"), "or it would scale back"
    assert world.api.writes.count("DELETE HorizontalPodAutoscaler calc-agent") == 1
    assert replicas(world) == 5


async def test_a_suspended_agent_has_no_autoscaler_and_comes_back_with_the_fewest_pods(world: World) -> None:
    world.put(agent(**AUTOSCALED))
    await world.settle()
    scale(world, 7)
    edited(suspend=True)(world)
    await world.reconciler.reconcile(AGENT)
    assert replicas(world) == 0
    assert Key("HorizontalPodAutoscaler", "default", "calc-agent") not in world.api.objects
    world.restart()
    await world.settle()
    edited(suspend=False)(world)
    await world.reconciler.reconcile(AGENT)
    assert replicas(world) == 3
    assert Key("HorizontalPodAutoscaler", "default", "calc-agent") in world.api.objects


async def test_a_budget_goes_when_one_pod_is_wanted(world: World) -> None:
    world.put(agent(**{**FIXED, "replicas": 2}))
    await world.settle()
    assert Key("PodDisruptionBudget", "default", "calc-agent") in world.api.objects
    edited(replicas=1)(world)
    await world.reconciler.reconcile(AGENT)
    assert "DELETE PodDisruptionBudget calc-agent" in world.api.writes
