"""An MCP server that goes away and comes back, while the agent that uses it stays."""

from __future__ import annotations

import httpx
import pytest

from e2e_cluster import Workspace, agent, mcpserver
from waiting import until


@pytest.fixture(scope="module", autouse=True)
def agents(space: Workspace) -> None:
    space.apply(
        mcpserver(), mcpserver("extra"), agent("strict", "math"), agent("relaxed", {"name": "extra", "required": False})
    )
    space.wait("agent/strict")
    space.wait("agent/relaxed")


def the_pod(space: Workspace, name: str) -> dict[str, str]:
    (pod,) = space.pods(f"ropewalk.dev/agent={name}")
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    return {"name": pod["metadata"]["name"], "ip": pod["status"]["podIP"], "restarts": restarts}


def tools_work_again(space: Workspace) -> None:
    def answers() -> bool:
        return "42" in space.ask("strict", "What is 40 plus 2?")["response"]

    until(answers, "the tools work again")


def test_tools_work_again_soon_after_the_servers_pod_was_deleted(space: Workspace) -> None:
    before = the_pod(space, "strict")
    space.kubectl("delete", "pod", "-l", "ropewalk.dev/mcpserver=math", "--grace-period=0", "--force")
    space.kubectl("rollout", "status", "deployment/math-mcp", "--timeout=60s")

    tools_work_again(space)
    assert the_pod(space, "strict") == before


def test_a_required_server_that_is_down_is_named_by_ready_and_by_the_conditions(space: Workspace) -> None:
    before = the_pod(space, "strict")
    space.kubectl("scale", "mcpserver/math", "--replicas=0")

    def ready_names_it() -> bool:
        answer = httpx.get(f"http://{before['ip']}:8080/ready", timeout=5)
        return answer.status_code == 503 and "math" in answer.text

    until(ready_names_it, "/ready names the server")
    assert "math" in space.wait("agent/strict", "ToolsReady", "False")["message"]
    assert "math" in space.wait("agent/strict", "Ready", "False")["message"]
    space.kubectl("scale", "mcpserver/math", "--replicas=1")
    space.wait("mcpserver/math")
    tools_work_again(space)
    space.wait("agent/strict")
    assert the_pod(space, "strict") == before


def test_an_optional_server_that_is_down_leaves_the_agent_ready(space: Workspace) -> None:
    space.kubectl("scale", "mcpserver/extra", "--replicas=0")

    def server_is_down() -> bool:
        (server,) = httpx.get(f"{space.url('relaxed-agent')}/tools", timeout=5).json()["servers"]
        return bool(server["state"] != "connected")

    until(server_is_down, "/tools says that the server is down")
    assert space.condition("agent/relaxed", "Ready")["status"] == "True"
    assert httpx.get(f"{space.url('relaxed-agent')}/ready", timeout=5).status_code == 200
    assert space.ask("relaxed", "Hello")["response"]
