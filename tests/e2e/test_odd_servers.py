"""MCP servers that answer tools/list oddly: what the status of the MCPServer, its Agent and the agent's /tools say."""

from __future__ import annotations

import httpx
import pytest

from e2e_cluster import Json, Workspace, agent
from e2e_programs import odd_server, tool
from waiting import until

_METADATA = "http://169.254.169.254/latest/meta-data"
_UNUSABLE = [
    tool("nonsense", inputSchema={"type": "object", "properties": {"a": {"type": "nonsense"}}}),
    tool("an-array", inputSchema={"type": "array"}),
    tool("elsewhere", inputSchema={"type": "object", "properties": {"a": {"$ref": "http://10.0.0.1/schema.json"}}}),
    {"name": "without-schema"},
]


@pytest.fixture(scope="module", autouse=True)
def servers(space: Workspace) -> None:
    """Each odd server with an agent that requires it; they start together."""
    odd = [
        odd_server("leads-away", tool("add"), redirect=_METADATA),
        odd_server("slow", tool("add"), listing_seconds=3),
        odd_server("too-slow", tool("add"), listing_seconds=30),
        odd_server("many", tool("add"), copies=499),
        odd_server("mixed", tool("add"), *_UNUSABLE),
        odd_server("changing", tool("add"), tool("old")),
    ]
    space.apply(*odd, *[agent(f"{each['metadata']['name']}-user", each["metadata"]["name"]) for each in odd])


def seen_by_agent(space: Workspace, server: str) -> Json:
    """What the agent's /tools says about its only server."""
    (pod,) = space.pods(f"ropewalk.dev/agent={server}-user")
    address = pod["status"].get("podIP")
    assert address, "the agent's pod has no address yet"
    servers = httpx.get(f"http://{address}:8080/tools", timeout=5).json()["servers"]
    assert len(servers) == 1, f"the agent is starting: {servers}"
    return dict(servers[0])


def test_a_redirect_to_a_private_address_is_followed_by_nobody(space: Workspace) -> None:
    failed = space.wait("mcpserver/leads-away", "ToolsDiscovered", "False")
    assert failed["reason"] == "DiscoveryFailed"
    assert _METADATA.removesuffix("/latest/meta-data") in failed["message"]
    assert "leads-away" in space.wait("agent/leads-away-user", "ToolsReady", "False")["message"]

    def agent_says_so() -> bool:
        return "redirects to another host" in str(seen_by_agent(space, "leads-away")["last_error"])

    until(agent_says_so, "/tools says where it redirects")
    assert seen_by_agent(space, "leads-away")["state"] != "connected"


def test_a_slow_listing_is_waited_for(space: Workspace) -> None:
    space.wait("agent/slow-user")
    since = seen_by_agent(space, "slow")["since"]
    for number in range(7):
        space.ask("slow-user", f"demo:slow=1 What is {number} plus 1?")
    assert seen_by_agent(space, "slow")["since"] == since


def test_a_listing_that_takes_too_long_is_told_with_its_limit(space: Workspace) -> None:
    failed = space.wait("mcpserver/too-slow", "ToolsDiscovered", "False")
    assert failed["reason"] == "DiscoveryFailed"
    assert "no answer within" in failed["message"]

    def agent_says_so() -> bool:
        return "no answer within" in str(seen_by_agent(space, "too-slow")["last_error"])

    until(agent_says_so, "/tools says that there was no answer")


def test_five_hundred_tools_are_all_offered(space: Workspace) -> None:
    space.wait("agent/many-user")
    assert space.get("mcpserver/many")["status"]["toolCount"] == 500
    assert len(seen_by_agent(space, "many")["tools"]) == 500
    assert space.ask("many-user", "What is 40 plus 2?")["tools_used"] == ["add"]


def test_tools_that_cannot_be_used_cost_the_others_nothing_and_are_named(space: Workspace) -> None:
    space.wait("agent/mixed-user")
    said = seen_by_agent(space, "mixed")
    assert said["tools"] == ["add"]
    assert {each["tool"] for each in said["left_out"]} == {str(each["name"]) for each in _UNUSABLE}
    assert "40 + 2 = 42" in space.ask("mixed-user", "What is 40 plus 2?")["response"]


def test_changed_definitions_are_told_by_an_event_and_reach_the_agent(space: Workspace) -> None:
    space.wait("agent/changing-user")
    hashes = {each["name"]: each["hash"] for each in space.get("mcpserver/changing")["status"]["tools"]}
    others = odd_server("changing", tool("add", "Add two numbers exactly."), tool("new"))["spec"]
    space.patch("mcpserver/changing", {"args": others["args"]})

    def status_has_them() -> bool:
        now = {each["name"]: each["hash"] for each in space.get("mcpserver/changing")["status"]["tools"]}
        return set(now) == {"add", "new"} and now["add"] != hashes["add"]

    until(status_has_them, "the status has the new definitions")

    def is_told() -> bool:
        events = space.get("events", "--field-selector=reason=ToolsChanged,involvedObject.name=changing")["items"]
        return any(all(name in each["message"] for name in ("add", "new", "old")) for each in events)

    until(is_told, "an Event names what was added, removed and changed")
    until(lambda: seen_by_agent(space, "changing")["tools"] == ["add", "new"], "the agent offers the new tools")
