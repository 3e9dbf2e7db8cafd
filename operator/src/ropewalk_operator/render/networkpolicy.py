"""Who may speak to whom: NetworkPolicies. Every default that the API server would fill in is written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ropewalk_operator import names
from ropewalk_operator.api import Agent, MCPServer
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render.pod import metadata

DNS_PORT = 53
HTTPS_PORT = 443
REDIS_PORT = 6379
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def agent_policy(agent: Agent, servers: Mapping[str, MCPServer]) -> Manifest:
    """In: anyone of the cluster to the HTTP port. Out: DNS, the agent's MCP servers, its models and its Redis.

    The address of the Redis is in a Secret, which the operator cannot read: so it is anyone at Redis' own port.
    """
    egress: list[Manifest] = [{"ports": [_port(DNS_PORT, "UDP"), _port(DNS_PORT)]}]
    for ref in agent.mcp_servers:
        server = servers[ref.name]
        if server.remote:
            egress += _egress_to_url(server.remote.url)
        else:
            egress.append(
                {"to": [{"podSelector": {"matchLabels": names.selector(server)}}], "ports": [_port(server.port)]}
            )
    for model in (agent.model, *agent.model.fallbacks):
        egress += _egress_to_url(model.base_url) if model.base_url else [{"ports": [_port(HTTPS_PORT)]}]
    if agent.sessions.redis:
        egress.append({"ports": [_port(REDIS_PORT)]})
    return _policy(
        agent,
        {
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [_port(names.AGENT_PORT)]}],
            "egress": [rule for i, rule in enumerate(egress) if rule not in egress[:i]],
            "policyTypes": ["Ingress", "Egress"],
        },
    )


def mcp_policy(server: MCPServer) -> Manifest:
    """In: the agents of the namespace, and the operator that asks for the tools. Out: anywhere."""
    peers = [
        {"podSelector": {"matchLabels": {names.COMPONENT: names.COMPONENTS["Agent"]}}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": names.OPERATOR_LABELS}},
    ]
    return _policy(server, {"ingress": [{"from": peers, "ports": [_port(server.port)]}], "policyTypes": ["Ingress"]})


def _policy(owner: names.Owner, rules: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(owner),
        "spec": {"podSelector": {"matchLabels": names.selector(owner)}, **rules},
    }


def _egress_to_url(url: str) -> list[Manifest]:
    parts = urlsplit(url)
    anyone = {"ports": [_port(parts.port or (HTTPS_PORT if parts.scheme == "https" else 80))]}
    host = parts.hostname or ""
    if ":" in host:
        # An IPv6 address.
        return [anyone]
    # The pods of a Service may listen on another port than it does, so none is named.
    labels = host.split(".")
    if len(labels) == 1:
        return [{"to": [{"podSelector": {}}]}]
    namespace = {"to": [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: labels[1]}}}]}
    if len(labels) == 2:
        # A Service and its namespace, or a name like example.com: nothing tells them apart.
        return [namespace, anyone]
    return [namespace] if labels[2] == "svc" else [anyone]


def _port(number: int, protocol: str = "TCP") -> Manifest:
    return {"port": number, "protocol": protocol}
