"""Models that Agents share: what an edit of one writes, what a missing or wrong one stops, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from operator_reconciler import AGENT, AGENT_CHILDREN, STATUS, World, created, edited
from operator_world import MODEL, agent, model
from ropewalk_operator import api
from ropewalk_operator.cache import Cache
from ropewalk_operator.kinds import Key

HOUSE = Key("Model", "default", "house")
KEY = {"name": "keys", "key": "api-key"}


@dataclass(frozen=True)
class Row:
    sentence: str
    happens: Callable[[World], None]
    wanted: list[str]


def model_edited(**fields: Any) -> Callable[[World], None]:
    def edit(world: World) -> None:
        def change(body: dict[str, Any]) -> None:
            body["spec"].update(fields)
            body["metadata"]["generation"] += 1

        world.change("Model", "house", change)

    return edit


def being_deleted(world: World) -> None:
    world.change("Model", "house", lambda body: body["metadata"].update(deletionTimestamp="now"))


# What happens to a settled Agent "calc" with its Model "house", and the wanted writes of the Agent's next reconcile.
ROWS = [
    Row("in the steady state nothing is written", lambda _: None, []),
    Row("a restart of the operator writes nothing", World.restart, []),
    Row(
        "another id changes the settings file and rolls the pods",
        model_edited(id="n"),
        [*created("ConfigMap", "Deployment"), STATUS],
    ),
    Row(
        "parameters change the settings file and roll the pods",
        model_edited(parameters={"temperature": 0}),
        created("ConfigMap", "Deployment"),
    ),
    Row(
        "another address changes the policy too",
        model_edited(baseURL="http://server.models.svc:8000/v1"),
        created("ConfigMap", "NetworkPolicy", "Deployment"),
    ),
    Row(
        "a fallback with a key of its own changes the policy too",
        model_edited(fallbacks=[{"provider": "openai", "id": "f", "apiKeySecretRef": KEY}]),
        created("ConfigMap", "NetworkPolicy", "Deployment"),
    ),
    Row(
        "what the status of the Model says is nothing to its Agents",
        lambda world: world.change("Model", "house", lambda body: body.update(status={"observedGeneration": 1})),
        [],
    ),
    Row(
        "a Model that goes away stops what is new and leaves what runs",
        lambda world: world.lose("Model", "house"),
        [STATUS, "EVENT Warning ModelNotFound"],
    ),
    Row("a Model that is being deleted is as good as gone", being_deleted, [STATUS, "EVENT Warning ModelNotFound"]),
    Row(
        "a Model that cannot be used stops what is new and leaves what runs",
        model_edited(baseURL="http://server:99999/v1"),
        [STATUS, "EVENT Warning InvalidSpec"],
    ),
    Row(
        "another Model that is not there stops what is new and leaves what runs",
        edited(modelRef={"name": "other"}),
        [STATUS, "EVENT Warning ModelNotFound"],
    ),
    Row(
        "the same model as one's own changes nothing that runs",
        edited(modelRef=None, model=MODEL),
        [STATUS],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
async def test_reconcile_writes_what_the_row_wants_and_no_more(row: Row, world: World) -> None:
    world.put(model())
    world.put(agent(modelRef={"name": "house"}))
    await world.settle()
    row.happens(world)
    await world.reconciler.reconcile(AGENT)
    assert sorted(world.api.writes) == sorted(row.wanted)


async def test_an_agent_waits_for_its_model_and_says_which_it_misses(world: World) -> None:
    world.put(agent(modelRef={"name": "house"}))
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS, "EVENT Warning ModelNotFound"]
    accepted = world.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "ModelNotFound")
    assert accepted["message"] == (
        'spec.modelRef names the Model "house", not found in this namespace; create it, or name another one'
    )
    assert world.condition("Ready")["reason"] == "ModelNotFound"
    assert AGENT in world.cache.see("Model", world.api.put(model()))
    await world.reconciler.reconcile(AGENT)
    assert set(created(*AGENT_CHILDREN)) <= set(world.api.writes)
    assert world.condition("Accepted")["status"] == "True"


async def test_the_status_names_the_model_that_is_used(world: World) -> None:
    world.put(agent(model={**MODEL, "id": "own"}))
    await world.settle()
    assert world.api.objects[AGENT]["status"]["model"] == "own"
    world.put(model(id="shared"))
    edited(model=None, modelRef={"name": "house"})(world)
    await world.settle()
    assert world.api.objects[AGENT]["status"]["model"] == "shared"
    world.lose("Model", "house")
    await world.settle()
    assert world.api.objects[AGENT]["status"]["model"] == "shared", "its pods go on using it"


async def test_a_model_that_cannot_be_used_is_told_on_the_agent_with_both_names(world: World) -> None:
    world.put(model(baseURL="http://server:99999/v1"))
    world.put(agent(modelRef={"name": "house"}, mcpServers=[{"name": "math"}]))
    await world.reconciler.reconcile(AGENT)
    accepted = world.condition("Accepted")
    assert accepted["reason"] == "InvalidSpec"
    assert accepted["message"].startswith(
        'spec.modelRef names the Model "house", which cannot be used: spec: baseURL is'
    )
    assert "http://server:99999/v1" in accepted["message"]


MODEL_STATUS = "STATUS Model house"


async def test_a_model_is_judged_once(world: World) -> None:
    world.put(model())
    await world.reconciler.reconcile(HOUSE)
    assert world.api.writes == [MODEL_STATUS, "EVENT Normal Ready"]
    assert world.api.objects[HOUSE]["status"]["observedGeneration"] == 1
    assert set(world.api.objects[HOUSE]["status"]) == {"observedGeneration", "conditions"}
    assert [world.condition(type_, HOUSE)["status"] for type_ in ("Accepted", "Ready")] == ["True", "True"]
    world.api.writes.clear()
    await world.reconciler.reconcile(HOUSE)
    world.restart()
    await world.reconciler.reconcile(HOUSE)
    assert world.api.writes == []


async def test_a_model_that_cannot_be_used_says_so_itself(world: World) -> None:
    world.put(model())
    await world.settle(HOUSE)
    model_edited(baseURL="http://server:99999/v1")(world)
    await world.reconciler.reconcile(HOUSE)
    assert world.api.writes == [MODEL_STATUS, "EVENT Warning InvalidSpec"]
    assert world.condition("Ready", HOUSE)["reason"] == "InvalidSpec"
    assert world.condition("Accepted", HOUSE)["message"] == (
        "spec: baseURL is 'http://server:99999/v1'; use http:// or https://, a host and an optional path"
    )
    assert world.api.objects[HOUSE]["status"]["observedGeneration"] == 2


async def test_a_model_that_is_gone_is_forgotten(world: World) -> None:
    world.put(model())
    await world.settle(HOUSE)
    world.lose("Model", "house")
    assert await world.reconciler.reconcile(HOUSE) is None
    assert world.api.writes == []


async def test_a_model_whose_deletion_is_blocked_says_so_and_speaks_of_no_pods(world: World) -> None:
    world.put(model())
    await world.settle(HOUSE)
    world.change(
        "Model",
        "house",
        lambda body: body["metadata"].update(deletionTimestamp="2025-12-31T23:59:00Z", finalizers=["x.dev/keep"]),
    )
    await world.reconciler.reconcile(HOUSE)
    world.now += 6
    await world.reconciler.reconcile(HOUSE)
    assert world.condition("Ready", HOUSE)["reason"] == "DeletionBlocked"
    assert "kubectl patch model house" in world.condition("Ready", HOUSE)["message"]
    assert "pods" not in world.condition("Ready", HOUSE)["message"]


def at(body: dict[str, Any], version: int, **metadata: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}


def test_a_model_concerns_the_agents_that_name_it_when_its_spec_changes() -> None:
    cache = Cache()
    cache.see("Agent", agent(modelRef={"name": "house"}))
    cache.see("Agent", agent("other"))
    assert cache.see("Model", at(model(), 2)) == {HOUSE, AGENT}
    assert cache.see("Model", at({**model(), "status": {"observedGeneration": 1}}, 3)) == {HOUSE}
    assert cache.see("Model", at(model(id="n"), 4)) == {HOUSE, AGENT}
    assert cache.see("Model", at(model(id="n"), 5, deletionTimestamp="now")) == {HOUSE, AGENT}
    assert cache.lose("Model", at(model(id="n"), 6)) == {HOUSE, AGENT}
    assert cache.see("Model", at(model("elsewhere"), 7)) == {Key("Model", "default", "elsewhere")}


def test_a_model_that_is_not_in_a_listing_is_gone() -> None:
    cache = Cache()
    cache.see("Agent", agent(modelRef={"name": "house"}))
    cache.see("Model", at(model(), 5))
    assert cache.lose_others("Model", None, set(), 4) == set(), "the listing is older"
    assert cache.lose_others("Model", None, set(), 5) == {HOUSE, AGENT}


def test_an_agent_that_names_another_model_is_no_longer_concerned() -> None:
    cache = Cache()
    cache.see("Agent", at(agent(modelRef={"name": "house"}), 1))
    cache.see("Agent", at(agent(modelRef={"name": "other"}), 2))
    assert cache.agents_of_model("default", "house") == set()
    assert cache.agents_of_model("default", "other") == {AGENT}


@pytest.mark.parametrize("spec", [{"model": MODEL, "modelRef": {"name": "house"}}, {"model": None}])
def test_an_agent_has_exactly_one_model(spec: dict[str, Any]) -> None:
    with pytest.raises(api.InvalidSpec, match="set exactly one of modelRef and model"):
        api.agent(agent(**spec))
