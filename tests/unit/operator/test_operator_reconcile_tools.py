"""Tools across resources: who is asked and when, who waits for whom, and what reaches Service, status and Events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operator_reconciler import AGENT, SERVER, TOOLS, World
from operator_world import agent, mcp_server, pod
from ropewalk_operator.discovery import ListingError, NotYetKnown
from ropewalk_operator.facts import Discovered, LeftOut, Tool
from ropewalk_operator.kinds import Key

SERVICE = Key("Service", "default", "math-mcp")
AUTH = {"bearerTokenSecretRef": {"name": "tokens", "key": "math"}}
REMOTE = {"url": "https://tools.example.com/mcp"}


def edit(world: World, name: str = "math", **fields: Any) -> None:
    """The user changes fields of the MCPServer's spec."""

    def change(body: dict[str, Any]) -> None:
        body["spec"].update(fields)
        body["metadata"]["generation"] += 1

    world.change("MCPServer", name, change)


def agent_pod(world: World, *, ready: bool) -> dict[str, Any]:
    """The Agent's pod of its current spec, running."""
    deployment = world.api.objects[Key("Deployment", "default", "calc-agent")]
    config_hash = deployment["spec"]["template"]["metadata"]["annotations"]["ropewalk.dev/config-hash"]
    return pod(config_hash=config_hash, ready=ready, state={"running": {}})


# Filters and changes


async def test_status_shows_what_agents_may_see_and_a_changed_filter_asks_nobody_again(world: World) -> None:
    world.answer = replace(TOOLS, tools=(Tool("add", "adds", "1"), Tool("divide", "divides", "2")))
    world.put(mcp_server(remote=REMOTE, tools={"deny": ["divide"]}))
    await world.discovered()
    status = world.api.objects[SERVER]["status"]
    assert ([tool["name"] for tool in status["tools"]], status["toolCount"]) == (["add"], 1)
    assert "spec.tools keeps 1 of them from agents" in world.condition("ToolsDiscovered", SERVER)["message"]
    edit(world, tools={"deny": []})
    await world.reconciler.reconcile(SERVER)
    assert [tool["name"] for tool in world.api.objects[SERVER]["status"]["tools"]] == ["add", "divide"]
    assert len(world.asked) == 1


async def test_a_tool_that_cannot_be_used_is_named_and_the_server_is_ready(world: World) -> None:
    world.answer = replace(TOOLS, left_out=(LeftOut("bad", "its inputSchema is not of type object"),))
    world.put(mcp_server(remote=REMOTE))
    await world.discovered()
    assert "bad (its inputSchema is not of type object)" in world.condition("ToolsDiscovered", SERVER)["message"]
    assert world.condition("Ready", SERVER)["status"] == "True"


async def test_changed_tools_are_told_in_an_event_and_the_agents_that_use_them_are_looked_at(world: World) -> None:
    world.put(mcp_server(remote=REMOTE))
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.discovered()
    world.woken.clear()
    world.answer = replace(TOOLS, tools=(Tool("add", "adds", "sha256:9"), Tool("new", "", "sha256:2")))
    world.now += 601
    await world.discovered()
    assert [write for write in world.api.writes if "Tools" in write] == [
        "EVENT Normal ToolsDiscovered",
        "EVENT Normal ToolsChanged",
    ]
    assert AGENT in world.woken


# Sessions


async def test_the_service_of_a_server_with_sessions_keeps_each_client_at_one_pod(world: World) -> None:
    world.answer = replace(TOOLS, has_session=True)
    world.put(mcp_server())
    await world.settle(SERVER)
    assert world.api.objects[SERVICE]["spec"]["sessionAffinity"] == "None"
    world.rolled_out(SERVER)
    await world.discovered()
    assert world.api.objects[SERVICE]["spec"]["sessionAffinity"] == "ClientIP"


async def test_a_restart_leaves_the_service_as_it_is(world: World) -> None:
    world.answer = replace(TOOLS, has_session=True)
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await world.discovered()
    world.api.writes.clear()
    world.restart()
    await world.discovered()
    assert world.api.writes == []


async def test_a_process_for_each_session_needs_the_same_pod_before_anybody_has_asked(world: World) -> None:
    body = mcp_server(stdio={"image": "i", "command": ["serve"], "sessionMode": "perSession"})
    body["spec"].pop("image", None)
    world.put(body)
    await world.settle(SERVER)
    assert world.api.objects[SERVICE]["spec"]["sessionAffinity"] == "ClientIP"


# Servers that only agents can ask


@pytest.mark.parametrize(
    "spec",
    [
        {"remote": REMOTE, "auth": AUTH},
        {
            "remote": {
                **REMOTE,
                "headers": [{"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            }
        },
    ],
)
async def test_a_server_that_wants_credentials_is_ready_and_waits_for_an_agent_that_waits_for_nobody(
    world: World, spec: dict[str, Any]
) -> None:
    world.put(mcp_server(**spec))
    assert await world.reconciler.reconcile(SERVER) is None
    assert world.asked == [], "the operator has no credentials"
    assert world.condition("Ready", SERVER)["status"] == "True"
    assert world.condition("ToolsDiscovered", SERVER)["reason"] == "NeedsAnAgent"
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle()
    assert Key("Deployment", "default", "calc-agent") in world.api.objects
    assert world.condition("ToolsReady")["status"] == "Unknown"


async def with_agent(world: World, *, ready: bool) -> None:
    """A server that wants credentials, and an Agent that uses it and whose pod runs."""
    world.put(mcp_server(remote=REMOTE, auth=AUTH))
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle(SERVER)
    await world.settle()
    world.woken.clear()
    if ready:
        world.rolled_out()
    else:
        world.put(agent_pod(world, ready=False))
    await world.reconciler.reconcile(AGENT)


async def test_a_running_pod_of_an_agent_is_asked_and_both_become_ready(world: World) -> None:
    await with_agent(world, ready=True)
    assert world.woken == [SERVER], "nothing else tells the server's own reconciliation that there is a pod"
    await world.discovered()
    assert world.asked == ["calc"]
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"
    assert world.condition("Ready", SERVER)["reason"] == "Ready"
    await world.reconciler.reconcile(AGENT)
    assert world.condition("Ready")["status"] == "True"
    world.woken.clear()
    world.api.writes.clear()
    await world.reconciler.reconcile(AGENT)
    await world.reconciler.reconcile(SERVER)
    assert (world.woken, world.api.writes) == ([], []), "nobody goes on waking anybody"


async def test_an_agent_that_is_refused_is_asked_although_its_pod_never_gets_ready(world: World) -> None:
    world.answer = ListingError('agent "calc": it answered HTTP 403 Forbidden')
    world.reasons = ["mcp server math: connecting since 10:00 (it answered HTTP 403 Forbidden)"]
    await with_agent(world, ready=False)
    await world.discovered()
    assert world.condition("ToolsDiscovered", SERVER)["message"] == 'agent "calc": it answered HTTP 403 Forbidden'
    assert world.condition("Ready", SERVER)["status"] == "False"
    assert world.condition("ToolsReady")["reason"] == "McpServerNotReady"
    assert "HTTP 403" in world.condition("ToolsReady")["message"]


async def test_an_agent_that_reaches_the_server_is_ready_although_another_does_not(world: World) -> None:
    world.answer = ListingError('agent "other": it answered HTTP 403 Forbidden')
    await with_agent(world, ready=True)
    await world.discovered()
    assert world.condition("Ready", SERVER)["status"] == "False"
    await world.reconciler.reconcile(AGENT)
    assert world.condition("ToolsReady")["status"] == "True"


async def test_a_restart_keeps_what_was_wrong_until_somebody_has_answered(world: World) -> None:
    world.answer = ListingError('agent "calc": it answered HTTP 401 Unauthorized')
    await with_agent(world, ready=False)
    await world.discovered()
    world.api.writes.clear()
    world.restart()
    await world.discovered()
    assert world.asked == ["calc", "calc"]
    assert world.api.writes == []


async def test_scaling_the_server_asks_no_agent_again(world: World) -> None:
    world.put(mcp_server(auth=AUTH))
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await world.settle()
    world.rolled_out()
    await world.reconciler.reconcile(AGENT)
    await world.discovered()
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"
    edit(world, replicas=2)
    await world.discovered()
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"
    assert world.asked == ["calc"]


async def test_when_the_last_agent_is_gone_its_failure_goes_with_it(world: World) -> None:
    world.answer = ListingError('agent "calc": it answered HTTP 401 Unauthorized')
    await with_agent(world, ready=False)
    await world.discovered()
    world.woken.clear()
    world.lose("Pod", "calc-" + agent_pod(world, ready=False)["metadata"]["annotations"]["ropewalk.dev/config-hash"])
    world.lose("Agent", "calc")
    await world.reconciler.reconcile(AGENT)
    assert world.woken == [SERVER]
    await world.reconciler.reconcile(SERVER)
    assert world.condition("ToolsDiscovered", SERVER)["reason"] == "NeedsAnAgent"
    assert world.condition("Ready", SERVER)["status"] == "True"


async def test_what_an_agent_has_reported_stays_when_it_is_gone(world: World) -> None:
    await with_agent(world, ready=True)
    await world.discovered()
    for key in [key for key in world.api.objects if key.kind in ("Pod", "Agent")]:
        world.lose(key.kind, key.name)
    await world.reconciler.reconcile(SERVER)
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"


async def test_while_an_agent_is_still_connecting_it_is_asked_again_soon(world: World) -> None:
    world.answer = NotYetKnown()
    await with_agent(world, ready=False)
    await world.discovered()
    said = world.condition("ToolsDiscovered", SERVER)
    assert said["reason"] == "NeedsAnAgent"
    assert said["message"].endswith('nothing was heard yet of "calc"'), "or one would look for an Agent to make"
    again = await world.reconciler.reconcile(SERVER)
    assert again is not None
    assert again <= 1


async def test_pods_of_an_agents_former_spec_are_not_asked(world: World) -> None:
    await with_agent(world, ready=True)
    await world.discovered()
    world.put(pod(config_hash="old", ready=True))
    world.lose("Pod", agent_pod(world, ready=True)["metadata"]["name"])
    await world.reconciler.reconcile(AGENT)
    world.now += 1000
    await world.discovered()
    assert world.asked == ["calc"], "it may use another address, or other credentials"


# Names that clash


def listed(*names: str) -> Discovered:
    return replace(TOOLS, tools=tuple(Tool(name, "", "h") for name in names))


async def two_servers(world: World, **second: Any) -> None:
    """An Agent of two servers that both offer add."""
    for name in ("math", "calc2"):
        world.answer = listed("add", name)
        world.put(mcp_server(name, remote=REMOTE))
        await world.discovered(Key("MCPServer", "default", name))
    world.put(agent(mcpServers=[{"name": "math"}, {"name": "calc2", **second}]))
    await world.settle()
    world.rolled_out()
    await world.reconciler.reconcile(AGENT)


async def test_tools_of_equal_names_are_named_with_their_servers_and_the_way_out(world: World) -> None:
    await two_servers(world)
    said = world.condition("ToolsReady")
    assert (said["status"], said["reason"]) == ("False", "ToolNamesClash")
    assert '"add" (math and calc2)' in said["message"]
    assert "spec.mcpServers[].prefix" in said["message"]


@pytest.mark.parametrize("second", [{"prefix": "c_"}, {"tools": {"deny": ["add"]}}, {"tools": {"allow": ["calc2"]}}])
async def test_a_prefix_and_a_filter_settle_it(world: World, second: dict[str, Any]) -> None:
    await two_servers(world, **second)
    assert world.condition("ToolsReady")["status"] == "True"


async def test_a_restart_knows_of_the_clash_by_what_the_servers_said_before(world: World) -> None:
    await two_servers(world)
    world.api.writes.clear()
    world.restart()
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_a_local_tool_of_the_same_name_is_a_clash_too(world: World) -> None:
    world.answer = listed("fibonacci")
    world.put(mcp_server(remote=REMOTE))
    await world.discovered()
    world.put(agent(mcpServers=[{"name": "math"}], localTools=["fibonacci"]))
    await world.settle()
    assert '"fibonacci" (local tools and math)' in world.condition("ToolsReady")["message"]
