"""MCP servers that are swapped, rolled, scaled, and given other tools, while their agents go on and on being asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from e2e_cluster import Json, Workspace, agent, image, mcpserver
from e2e_programs import calls_by_replica, odd_server, stubborn_model, tool
from e2e_queries import RIGHT, UNAVAILABLE, Queries, constant_queries
from e2e_swaps import KINDS, life, pod_url, servers_of_each_kind, settle
from waiting import until


@pytest.fixture(scope="module", autouse=True)
def servers(space: Workspace) -> None:
    """A server of each kind that a swap may hurt, and an agent that cannot do without it."""
    users = [agent(f"{name}-user", name) for name in KINDS]
    space.apply(*servers_of_each_kind(), *users, agent("relaxed", {"name": "math", "required": False}))
    for name in KINDS:
        space.wait(f"agent/{name}-user")
    space.wait("agent/relaxed")


@contextmanager
def asked_without_end(space: Workspace, name: str, *, url: str = "") -> Iterator[Queries]:
    """Constant queries before, in and after the block; the agent has to live through it."""
    before = life(space, name)
    with constant_queries(url or space.url(f"{name}-agent")) as queries:
        queries.more(20)
        yield queries
        queries.more(50)
    assert life(space, name) == before


def tools_of(space: Workspace, name: str) -> Json:
    """What an agent's /tools says, from its own pod."""
    return dict(httpx.get(f"{pod_url(space, name)}/tools", timeout=5).json())


@pytest.mark.parametrize("kind", KINDS)
def test_a_rolling_restart_fails_no_query(space: Workspace, kind: str) -> None:
    with asked_without_end(space, f"{kind}-user") as queries:
        space.kubectl("rollout", "restart", f"deployment/{kind}-mcp")
        space.kubectl("rollout", "status", f"deployment/{kind}-mcp", "--timeout=60s")
        settle(space, kind)
    assert set(queries.counted()) == {RIGHT}


def test_a_changed_environment_fails_no_query(space: Workspace) -> None:
    with asked_without_end(space, "math-user") as queries:
        space.patch("mcpserver/math", {"pod": {"env": [{"name": "ANY", "value": "other"}]}})
        settle(space, "math")
    assert set(queries.counted()) == {RIGHT}


def test_another_image_fails_no_query(space: Workspace) -> None:
    other = odd_server("math", tool("add"), in_image="agent")["spec"]
    with asked_without_end(space, "math-user") as queries:
        space.patch("mcpserver/math", other)
        settle(space, "math")
        space.patch("mcpserver/math", {"image": image("mcp-math"), "command": None, "args": None})
        settle(space, "math")
    assert set(queries.counted()) == {RIGHT}


@pytest.mark.parametrize("kind", ["math", "stdio"])
def test_scaling_to_three_and_back_fails_no_query_and_spreads_the_calls(space: Workspace, kind: str) -> None:
    with asked_without_end(space, f"{kind}-user") as queries:
        space.kubectl("scale", f"mcpserver/{kind}", "--replicas=3")
        settle(space, kind)

        def each_has_some() -> bool:
            return min((counts := calls_by_replica(space, kind)).values()) > 0 and len(counts) == 3

        until(each_has_some, "each replica has served calls")
        space.kubectl("scale", f"mcpserver/{kind}", "--replicas=1")
        settle(space, kind)
    assert set(queries.counted()) == {RIGHT}


def test_an_agent_stays_with_one_replica_of_a_server_with_sessions(space: Workspace) -> None:
    with asked_without_end(space, "sessions-user") as queries:
        space.kubectl("scale", "mcpserver/sessions", "--replicas=3")
        settle(space, "sessions")
        queries.more(100)
        assert sorted(count > 0 for count in calls_by_replica(space, "sessions").values()) == [False, False, True]
        space.kubectl("scale", "mcpserver/sessions", "--replicas=1")
        settle(space, "sessions")
    assert set(queries.counted()) == {RIGHT}


def test_without_replicas_each_answer_says_so_until_they_are_back(space: Workspace) -> None:
    with asked_without_end(space, "math-user", url=pod_url(space, "math-user")) as queries:
        space.kubectl("scale", "mcpserver/math", "--replicas=0")
        queries.more(50, UNAVAILABLE)
        ready = httpx.get(f"{pod_url(space, 'math-user')}/ready", timeout=5)
        assert ready.status_code == 503
        assert "math" in ready.text
        assert "spec.replicas is 0" in space.wait("agent/math-user", "Ready", "False")["message"]
        space.kubectl("scale", "mcpserver/math", "--replicas=1")
        space.wait("agent/math-user")
    assert set(queries.counted()) == {RIGHT, UNAVAILABLE}


def test_an_agent_that_can_do_without_a_server_stays_in_its_service(space: Workspace) -> None:
    with asked_without_end(space, "relaxed") as queries:
        space.kubectl("scale", "mcpserver/math", "--replicas=0")
        queries.more(50, UNAVAILABLE)
        assert space.condition("agent/relaxed", "Ready")["status"] == "True"
        space.kubectl("scale", "mcpserver/math", "--replicas=1")
    assert set(queries.counted()) == {RIGHT, UNAVAILABLE}


def test_other_tools_are_offered_soon_without_a_restart(space: Workspace) -> None:
    before = life(space, "unsafe-user")
    was = space.get("mcpserver/unsafe")["spec"]["args"]
    space.patch("mcpserver/unsafe", {"args": odd_server("unsafe", tool("sum"), tool("total"))["spec"]["args"]})

    def has_others() -> bool:
        return bool(tools_of(space, "unsafe-user")["servers"][0]["tools"] == ["sum", "total"])

    until(has_others, "/tools has the new tools")
    assert space.ask("unsafe-user", "What is the sum of 1 and 2?")["tools_used"] == ["sum"]

    def status_has_others() -> bool:
        return [each["name"] for each in space.get("mcpserver/unsafe")["status"]["tools"]] == ["sum", "total"]

    until(status_has_others, "the status has the new tools")
    assert life(space, "unsafe-user") == before
    space.patch("mcpserver/unsafe", {"args": was})
    settle(space, "unsafe")


def test_a_tool_that_a_filter_hides_is_not_run_even_when_the_model_names_it(space: Workspace) -> None:
    model = stubborn_model(space)
    space.apply(
        mcpserver("filtered", image=image("mcp-math"), tools={"deny": ["divide"]}),
        agent("careful", {"name": "filtered", "tools": {"deny": ["power"]}}, model=model),
    )
    space.wait("agent/careful")
    assert tools_of(space, "careful")["servers"][0]["tools"] == ["add", "subtract", "multiply"]
    for hidden in ("divide", "power"):
        assert "2" not in space.ask("careful", f"call {hidden}")["response"].replace(hidden, "")
        assert set(calls_by_replica(space, "filtered", of=hidden).values()) == {0}
    assert "2 + 3 = 5" in space.ask("careful", "call add")["response"]


def test_a_clash_of_names_is_reported_and_a_prefix_settles_it(space: Workspace) -> None:
    space.apply(mcpserver("one"), mcpserver("two"))
    space.wait("mcpserver/one")
    space.wait("mcpserver/two")
    space.apply(agent("double", "one", "two"))
    clash = space.wait("agent/double", "ToolsReady", "False")
    assert clash["reason"] == "ToolNamesClash"
    for named in ('"add"', "one", "two", "spec.mcpServers[].prefix"):
        assert named in clash["message"]
    space.apply(agent("double", "one", {"name": "two", "prefix": "second_"}))
    space.wait("agent/double")

    def both_are_offered() -> bool:
        return {"add", "second_add"} <= {
            name for each in tools_of(space, "double")["servers"] for name in each["tools"]
        }

    until(both_are_offered, "both are offered")
