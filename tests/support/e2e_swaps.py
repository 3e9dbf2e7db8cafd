"""MCP servers of each kind that a swap may hurt, and what shows that a swap is over and that an agent outlived it."""

from __future__ import annotations

from e2e_cluster import Json, Workspace, image, mcpserver
from e2e_programs import odd_server, tool
from waiting import until

KINDS = ("math", "unsafe", "sessions", "stdio")


def servers_of_each_kind() -> list[Json]:
    """One MCPServer for each of KINDS."""
    math = image("mcp-math")
    return [
        mcpserver("math", image=math),
        # Calls that take their time and may not be made twice: whoever cuts one has lost it.
        odd_server("unsafe", tool("add"), call_seconds=0.1),
        odd_server("sessions", tool("add"), call_seconds=0.1, sessions=True),
        mcpserver("stdio", stdio={"image": math, "command": ["/opt/ropewalk/bin/ropewalk-mcp"], "args": ["--stdio"]}),
    ]


def life(space: Workspace, name: str) -> tuple[object, ...]:
    """What changes when an agent's only pod, its container or its process is another."""
    (pod,) = space.pods(f"ropewalk.dev/agent={name}")
    container = pod["status"]["containerStatuses"][0]
    return pod["metadata"]["uid"], container["restartCount"], container["state"]["running"]["startedAt"]


def pod_url(space: Workspace, name: str) -> str:
    """The agent's pod itself: its Service leads to nobody while it is not ready."""
    (pod,) = space.pods(f"ropewalk.dev/agent={name}")
    return f"http://{pod['status']['podIP']}:8080"


def settle(space: Workspace, server: str) -> None:
    """Wait until all pods of a server are of its current spec and ready, and the former ones are gone."""

    def only_new_pods() -> bool:
        deployment = space.get(f"deployment/{server}-mcp")
        status, replicas = deployment["status"], deployment["spec"]["replicas"]
        pods = space.get("pods", "-l", f"ropewalk.dev/mcpserver={server}")["items"]
        assert status.get("observedGeneration") == deployment["metadata"]["generation"]
        return {len(pods), status.get("updatedReplicas", 0), status.get("readyReplicas", 0)} == {replicas}

    space.wait(f"mcpserver/{server}")
    until(only_new_pods, f"only new pods of {server} are left", seconds=90)
