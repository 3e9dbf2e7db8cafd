"""What is reported: conditions in the words of pods and servers, Events on transitions, and nothing twice."""

from __future__ import annotations

from typing import Any

from operator_reconciler import AGENT, SERVER, STATUS, TOOLS, World, edited
from operator_world import agent, mcp_server, pod
from ropewalk_operator.kinds import Key


async def test_an_agent_whose_pod_is_ready_is_ready_and_says_so_once(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS, "EVENT Normal Ready"]
    assert world.condition("Ready")["status"] == "True"
    world.api.writes.clear()
    world.now += 100
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_a_pod_that_is_not_ready_is_asked_why_and_quoted(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.settle()
    world.reasons = ["mcp server math: connecting since 10:00 (connection refused)"]
    body = next(body for key, body in world.api.objects.items() if key.kind == "Pod")
    body["status"]["conditions"][1]["status"] = "False"
    world.put(body)
    assert await world.reconciler.reconcile(AGENT) == 1.0
    assert "connection refused" in world.condition("Ready")["message"]
    assert world.condition("Available")["reason"] == "NotReady"


async def test_the_events_of_a_pod_that_hangs_in_creation_are_quoted(world: World) -> None:
    world.put(agent())
    await world.settle()
    deployment = world.api.objects[Key("Deployment", "default", "calc-agent")]
    config_hash = deployment["spec"]["template"]["metadata"]["annotations"]["ropewalk.dev/config-hash"]
    stuck = pod(config_hash=config_hash, state={"waiting": {"reason": "ContainerCreating"}})
    world.put(stuck)
    message = 'MountVolume.SetUp failed for volume "model-key": secret "key" not found'
    about = {"involvedObject": {"uid": stuck["metadata"]["uid"]}, "lastTimestamp": "2026"}
    world.api.events = [{"type": "Warning", "reason": "FailedMount", "message": message, **about}]
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == [], "a pod that has just begun is not asked about"
    world.now += 3
    await world.reconciler.reconcile(AGENT)
    assert world.condition("Available")["reason"] == "SecretNotFound"
    assert 'secret "key" not found' in world.condition("Ready")["message"]


async def test_an_mcp_server_is_ready_once_its_pod_has_listed_its_tools(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "Unknown"
    world.rolled_out(SERVER)
    await world.discovered()
    assert world.asked == ["http://10.0.0.9:8000/mcp"]
    assert world.told == [SERVER]
    assert world.condition("Ready", SERVER)["status"] == "True"
    assert world.api.objects[SERVER]["status"]["tools"] == [{"name": "add", "description": "adds", "hash": "sha256:1"}]
    assert "EVENT Normal ToolsDiscovered" in world.api.writes
    world.api.writes.clear()
    world.now += 100
    await world.reconciler.reconcile(SERVER)
    assert world.api.writes == []


async def test_another_path_of_the_same_pods_is_asked_for_its_tools(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await world.discovered()

    def move(body: dict[str, Any]) -> None:
        body["spec"]["path"] = "/other"
        body["metadata"]["generation"] += 1

    world.change("MCPServer", "math", move)
    await world.reconciler.reconcile(SERVER)
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "Unknown"
    await world.discovered()
    assert world.asked == ["http://10.0.0.9:8000/mcp", "http://10.0.0.9:8000/other"]
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"


async def test_an_invalid_spec_keeps_address_and_selector_of_what_runs(world: World) -> None:
    world.put(agent())
    await world.settle()
    edited(model={"provider": "openai", "id": "m"})(world)
    await world.reconciler.reconcile(AGENT)
    status = world.api.objects[AGENT]["status"]
    assert status["conditions"][0]["reason"] == "InvalidSpec"
    assert status["url"] == "http://calc-agent.default.svc:8080"
    assert status["selector"] == "ropewalk.dev/agent=calc"


async def test_a_rollout_and_a_suspension_are_no_warnings(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.settle()
    edited(systemPrompt="Be brief.")(world)
    await world.reconciler.reconcile(AGENT)
    assert "EVENT Normal Progressing" in world.api.writes
    await world.settle()
    world.rolled_out()
    await world.settle()
    world.now += 100
    edited(suspend=True)(world)
    await world.reconciler.reconcile(AGENT)
    assert "EVENT Normal Suspended" in world.api.writes


async def test_a_restart_lists_the_tools_again_and_writes_nothing(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await world.discovered()
    world.api.writes.clear()
    world.restart()
    world.now += 100
    await world.discovered()
    assert len(world.asked) == 2
    assert world.api.writes == []


async def test_an_mcp_server_that_does_not_list_its_tools_says_why_and_is_asked_again(world: World) -> None:
    world.answer = ConnectionError("connection refused")
    world.put(mcp_server(remote={"url": "https://tools.example.com/mcp"}))
    await world.discovered()
    assert world.condition("ToolsDiscovered", SERVER)["reason"] == "DiscoveryFailed"
    assert "connection refused" in world.condition("Ready", SERVER)["message"]
    world.answer = TOOLS
    world.now += 1
    await world.discovered()
    assert world.condition("Ready", SERVER)["status"] == "True"
    assert not any(key.kind == "Deployment" for key in world.api.objects)


async def test_an_mcp_server_whose_only_pod_goes_away_is_not_ready(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await world.discovered()
    world.lose("Pod", next(key.name for key in world.api.objects if key.kind == "Pod"))
    await world.reconciler.reconcile(SERVER)
    assert world.condition("Ready", SERVER)["status"] == "False"
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"


async def test_agents_are_looked_at_when_the_operator_itself_reports_a_change_of_their_server(world: World) -> None:
    world.put(mcp_server())
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle(SERVER)
    world.woken.clear()
    world.rolled_out(SERVER)
    await world.reconciler.reconcile(SERVER)
    assert AGENT in world.woken
