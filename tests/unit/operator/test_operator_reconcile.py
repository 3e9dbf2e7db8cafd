"""Reconciliation as a table: a row is a sentence, the world before, and the wanted writes; any other write fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from operator_reconciler import AGENT, AGENT_CHILDREN, CORRECTED, SERVER, STATUS, World, created, edited
from operator_world import agent, mcp_server
from ropewalk_operator.kinds import Key
from ropewalk_operator.kube import ApiError


# Rows: a sentence, what happens to a settled Agent "calc" with its MCPServer "math", and the wanted writes.
@dataclass(frozen=True)
class Row:
    sentence: str
    happens: Callable[[World], None]
    wanted: list[str]


def by_hand(kind: str, change: Callable[[dict[str, Any]], None]) -> Callable[[World], None]:
    return lambda world: world.change(kind, "calc-agent", change)


def being_deleted(world: World) -> None:
    world.change("Agent", "calc", lambda body: body["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))
    world.lose("Deployment", "calc-agent")


def gone(world: World) -> None:
    world.lose("Agent", "calc")
    world.lose("Service", "calc-agent")


ROWS = [
    Row("in the steady state nothing is written", lambda _: None, []),
    Row("a restart of the operator writes nothing", World.restart, []),
    Row(
        "an edited system prompt changes the settings file and rolls the pods",
        edited(systemPrompt="Be brief."),
        [*created("ConfigMap", "Deployment"), STATUS],
    ),
    Row("scaling writes the Deployment only", edited(replicas=0), [*created("Deployment"), STATUS]),
    Row(
        "another store changes settings and pods, and leaves the network alone",
        edited(sessions={"store": "file"}),
        [*created("PersistentVolumeClaim", "ConfigMap", "Deployment"), STATUS],
    ),
    Row(
        "replicas that would not share their sessions stop what is new",
        edited(replicas=2),
        [STATUS, "EVENT Warning InvalidSpec"],
    ),
    Row("suspending scales the Deployment down", edited(suspend=True), [*created("Deployment"), STATUS]),
    Row(
        "a service account of the user's own replaces the child",
        edited(pod={"serviceAccountName": "mine"}),
        [*created("Deployment"), "DELETE ServiceAccount calc-agent", STATUS],
    ),
    Row(
        "a deleted Deployment comes back",
        lambda world: world.lose("Deployment", "calc-agent"),
        [*created("Deployment"), CORRECTED],
    ),
    Row(
        "an image changed by hand is put back",
        by_hand("Deployment", lambda body: body["spec"]["template"]["spec"]["containers"][0].update(image="evil")),
        [*created("Deployment"), CORRECTED],
    ),
    Row(
        "settings changed by hand are put back",
        by_hand("ConfigMap", lambda body: body["data"].update({"agent.json": "{}"})),
        [*created("ConfigMap"), CORRECTED],
    ),
    Row(
        "a Service whose selector was widened is put back",
        by_hand("Service", lambda body: body["spec"]["selector"].update(extra="x")),
        [*created("Service"), CORRECTED],
    ),
    Row(
        "a label that was removed is put back",
        by_hand("NetworkPolicy", lambda body: body["metadata"]["labels"].pop("app.kubernetes.io/name")),
        [*created("NetworkPolicy"), CORRECTED],
    ),
    Row(
        "a child that lost its owner is taken back",
        by_hand("Service", lambda body: body["metadata"].pop("ownerReferences")),
        [*created("Service"), CORRECTED],
    ),
    Row(
        "a stamp that speaks of another wish makes the child be written anew",
        by_hand("Service", lambda body: body["metadata"]["annotations"].update({"ropewalk.dev/desired-hash": "old"})),
        [*created("Service"), CORRECTED],
    ),
    Row(
        "what others add to a child is left alone",
        by_hand("Service", lambda body: body["metadata"].setdefault("annotations", {}).update({"other": "1"})),
        [],
    ),
    Row(
        "an MCPServer that goes away stops what is new and leaves what runs",
        lambda world: world.lose("MCPServer", "math"),
        [STATUS, "EVENT Warning McpServerNotFound"],
    ),
    Row(
        "a spec that is invalid stops what is new and leaves what runs",
        edited(model={"provider": "openai", "id": "m"}),
        [STATUS, "EVENT Warning InvalidSpec"],
    ),
    Row(
        "a moved MCPServer changes the settings, the policy and the pods",
        lambda world: world.change("MCPServer", "math", lambda body: body["spec"].update(port=9000)),
        created("ConfigMap", "NetworkPolicy", "Deployment"),
    ),
    Row(
        "an MCPServer that is no longer ready is reported",
        lambda world: world.put(mcp_server(ready=False)),
        [STATUS],
    ),
    Row(
        "an Agent that is being deleted gets nothing back",
        being_deleted,
        [],
    ),
    Row(
        "an Agent that is gone gets nothing back",
        gone,
        [],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
async def test_reconcile_writes_what_the_row_wants_and_no_more(row: Row, world: World) -> None:
    world.put(mcp_server(ready=True))
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle()
    row.happens(world)
    await world.reconciler.reconcile(AGENT)
    assert sorted(world.api.writes) == sorted(row.wanted)


async def test_a_new_agent_gets_its_children_and_a_status_with_the_deployment_after_the_others(world: World) -> None:
    world.put(agent())
    await world.reconciler.reconcile(AGENT)
    assert sorted(world.api.writes[:4]) == sorted(created(*AGENT_CHILDREN[:4]))
    assert world.api.writes[4:] == [*created("Deployment"), STATUS]


@pytest.mark.parametrize(("key", "deployment"), [(AGENT, "calc-agent"), (SERVER, "math-mcp")])
async def test_an_operator_that_is_told_to_let_the_cluster_choose_users_rolls_the_pods(
    world: World, key: Key, deployment: str
) -> None:
    world.put(agent())
    world.put(mcp_server())
    await world.settle(key)
    world.options = replace(world.options, fixed_user=False)
    world.restart()
    await world.reconciler.reconcile(key)
    assert world.api.writes[:1] == [f"APPLY Deployment {deployment}"]
    template = world.api.objects[Key("Deployment", "default", deployment)]["spec"]["template"]
    assert "runAsUser" not in template["spec"]["securityContext"]


async def test_under_pressure_the_children_of_others_go_before_the_first_status(world: World) -> None:
    world.put(agent())
    world.pressed = True
    assert await world.reconciler.reconcile(AGENT) == 0.0
    assert STATUS not in world.api.writes
    world.pressed = False
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes[-1] == STATUS


async def test_an_agent_whose_mcp_server_is_missing_gets_no_child_until_it_exists(world: World) -> None:
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS, "EVENT Warning McpServerNotFound"]
    assert '"math"' in world.condition("Accepted")["message"]
    concerned = world.cache.see("MCPServer", world.api.put(mcp_server()))
    assert AGENT in concerned
    await world.reconciler.reconcile(AGENT)
    assert set(created(*AGENT_CHILDREN)) <= set(world.api.writes)
    assert world.condition("Accepted")["status"] == "True"
    assert world.condition("ToolsReady")["status"] == "False"


async def test_children_are_made_without_asking_first_whether_they_are_there(world: World) -> None:
    world.put(agent())
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == []


async def test_an_api_server_that_is_down_is_an_error_to_be_retried(world: World) -> None:
    world.put(agent())
    world.api.refuse["ConfigMap"] = ApiError(503, "Unavailable", "no")
    with pytest.raises(ApiError):
        await world.reconciler.reconcile(AGENT)


async def test_a_system_prompt_from_a_config_map_is_read_once_for_each_version(world: World) -> None:
    prompts = {"kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": "default"}, "data": {"calc": "Add."}}
    world.put(prompts)
    world.put(agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "calc"}}))
    await world.settle()
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == []
    changed = {**prompts, "data": {"calc": "Subtract."}}
    assert world.cache.see("ConfigMap", world.api.put(changed)) == {AGENT}
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == ["GET ConfigMap prompts"]
    assert "Subtract." in world.api.objects[Key("ConfigMap", "default", "calc-agent")]["data"]["agent.json"]


@pytest.mark.parametrize(
    ("data", "said"), [(None, "not found"), ({}, 'has no key "calc"'), ({"calc": ""}, "has nothing in the key")]
)
async def test_a_system_prompt_that_is_not_there_is_reported(
    data: dict[str, str] | None, said: str, world: World
) -> None:
    if data is not None:
        world.put({"kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": "default"}, "data": data})
    world.put(agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "calc"}}))
    assert await world.reconciler.reconcile(AGENT) is not None
    assert world.condition("Accepted")["reason"] == "SystemPromptNotFound"
    assert said in world.condition("Accepted")["message"]
    assert not any(write.startswith("APPLY") for write in world.api.writes)


async def test_of_what_is_gone_before_its_status_is_written_nothing_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put(agent())
    world.api.before_status = lambda: world.api.objects.pop(AGENT, None)
    with caplog.at_level(logging.INFO):
        await world.reconciler.reconcile(AGENT)
    assert STATUS in world.api.writes
    assert not [write for write in world.api.writes if write.startswith("EVENT")]
    assert "condition changed" not in caplog.messages


async def test_an_edit_that_arrives_together_with_the_status_is_not_lost(world: World) -> None:
    world.put(agent())
    edited = agent(systemPrompt="Be brief.")
    edited["metadata"]["generation"] = 2
    world.api.before_status = lambda: world.api.put(edited)
    await world.reconciler.reconcile(AGENT)
    assert world.woken == [AGENT], "the watch brings nothing newer than what the answer has brought"
    assert world.hurried == [AGENT], "nor does it say any more that this is an edit"
    assert world.api.objects[AGENT]["status"]["observedGeneration"] == 1
