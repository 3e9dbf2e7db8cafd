"""Whom to ask for an MCP server's tools, and what of the answer its agents may see. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ropewalk_operator import api, names
from ropewalk_operator.discovery import AgentPod, Target
from ropewalk_operator.facts import Discovered, Facts
from ropewalk_operator.pods import Pod


def server_target(server: api.MCPServer, facts: Facts) -> Target | None:
    """The server itself: a ready pod at its own address, or the remote one. None while no pod is ready."""
    if server.remote:
        asked = f"{server.remote.url} {server.remote.ca_bundle}"
        return Target(server.name, asked, asked, server.remote.url, server.remote.ca_bundle)
    ready = [pod for pod in facts.fresh_pods if pod.ready and pod.ip]
    if not ready:
        return None
    host = f"[{ready[0].ip}]" if ":" in str(ready[0].ip) else ready[0].ip
    # Service names resolve inside the cluster only, and lag behind: a ready pod is asked at its own address.
    url = f"http://{host}:{server.port}{server.path}"
    pods = ",".join(sorted(f"{pod.uid}/{pod.restarts}" for pod in ready))
    # Another path is another server in the same pods: nothing rolls them.
    config = f"{facts.config_hash} {facts.url}"
    return Target(server.name, f"{pods} {facts.url}", config, url, final_address="spec.path")


def agents_target(server: api.MCPServer, pods_of_agents: Iterable[Sequence[Pod]]) -> Target | None:
    """One pod of each Agent that uses the server, the newest first: ready or not, a running one says how it fares.

    None while there is no such pod.
    """
    running = [[pod for pod in pods if pod.running and pod.ip and not pod.deleting] for pods in pods_of_agents]
    chosen = sorted(
        (max(pods, key=lambda pod: (pod.ready, pod.created, pod.name)) for pods in running if pods),
        key=lambda pod: (pod.created, pod.name),
        reverse=True,
    )
    if not chosen:
        return None
    # Of how the server runs an agent sees nothing.
    reached = f"{names.mcp_url(server)} {server.remote!r} {server.auth!r}"
    pods = ",".join(f"{pod.uid}/{pod.restarts}/{pod.ready}" for pod in chosen)
    return Target(
        server.name,
        f"{pods} {reached}",
        reached,
        agents=tuple(AgentPod(pod.owner_name, str(pod.ip)) for pod in chosen),
    )


def admitted(found: Discovered, allowed: api.ToolFilter) -> Discovered:
    """What `spec.tools` lets agents see of it; the rest is counted."""
    listed = {tool.name for tool in found.tools}
    tools = tuple(tool for tool in found.tools if allowed.admits(tool.name))
    return replace(
        found,
        tools=tools,
        hidden=len(found.tools) - len(tools),
        unknown=tuple(name for name in allowed.allow or () if name not in listed),
    )
