"""Who may speak to whom: NetworkPolicies. Every default that the API server would fill in is written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ropewalk_operator import names
from ropewalk_operator.api import Agent, MCPServer, ModelSpec
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render.pod import metadata

DNS: Manifest = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
HTTPS_PORT = 443
REDIS_PORT = 6379
WEB_PORTS = (80, HTTPS_PORT)
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
AGENTS = {names.COMPONENT: names.COMPONENTS["Agent"], names.MANAGED_BY: names.FIELD_MANAGER}
"""The component alone is a label that agents of other makers carry as well."""

NOT_PUBLIC = {
    "0.0.0.0/0": [
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and some clouds' metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's metadata for its machines, at a public address
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    ],
    "::/0": [
        "::/127",  # unspecified and loopback
        "64:ff9b:1::/48",  # NAT64 into private networks
        "2002::/16",  # 6to4, which has an IPv4 address inside
        "fc00::/7",  # private, and some clouds' metadata
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
    ],
}
"""What is no part of the public internet: the IANA registries of special-purpose addresses (RFC 6890)."""


def agent_policy(agent: Agent, model: ModelSpec, servers: Mapping[str, MCPServer]) -> Manifest:
    """In: anyone of the cluster to the HTTP port. Out: DNS, the agent's MCP servers and where it gets tokens for them,
    its models, its Redis, and what the user adds.

    The address of the Redis is in a Secret, which the operator cannot read: so it is anyone at Redis' own port.
    """
    egress = [DNS]
    for ref in agent.mcp_servers:
        server = servers[ref.name]
        if server.remote:
            egress += _egress_to_url(server.remote.url)
        else:
            egress.append(
                {"to": [{"podSelector": {"matchLabels": names.selector(server)}}], "ports": [_port(server.port)]}
            )
        if server.auth and server.auth.client_credentials:
            egress += _egress_to_url(server.auth.client_credentials.token_url)
    for asked in (model, *model.fallbacks):
        egress += _egress_to_url(asked.base_url) if asked.base_url else [{"ports": [_port(HTTPS_PORT)]}]
    if agent.sessions.redis:
        egress.append({"ports": [_port(REDIS_PORT)]})
    egress += _extra(agent)
    return _policy(
        agent,
        {
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [_port(names.AGENT_PORT)]}],
            "egress": [rule for i, rule in enumerate(egress) if rule not in egress[:i]],
            "policyTypes": ["Ingress", "Egress"],
        },
    )


def mcp_policy(server: MCPServer, scrapers: Mapping[str, Any] | None = None) -> Manifest:
    """In: the agents of the namespace, the operator that asks for the tools, and who reads the metrics, where there is
    such a peer. Out: DNS, the web on the public internet, and what the user adds. Nothing inside the cluster, and no
    cloud's metadata.
    """
    peers = [
        {"podSelector": {"matchLabels": AGENTS}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": names.OPERATOR_LABELS}},
        *([_without_nothing(scrapers)] if scrapers else []),
    ]
    web: Manifest = {
        "to": [{"ipBlock": {"cidr": cidr, "except": left_out}} for cidr, left_out in NOT_PUBLIC.items()],
        "ports": [_port(port) for port in WEB_PORTS],
    }
    return _policy(
        server,
        {
            "ingress": [{"from": peers, "ports": [_port(server.port)]}],
            "egress": [DNS, web, *_extra(server)],
            "policyTypes": ["Ingress", "Egress"],
        },
    )


def _extra(owner: names.Owner) -> list[Manifest]:
    """The user's rules as the API server will give them back: without what is empty, with every default."""
    rules: list[Manifest] = [_without_nothing(rule) for rule in owner.network_policy.extra_egress]
    for rule in rules:
        if "ports" in rule:
            rule["ports"] = [{"protocol": "TCP", **port} for port in rule["ports"]]
    return rules


def _without_nothing(value: Any) -> Any:
    """Without null, empty lists and empty matchLabels, which the API server leaves out; an empty selector stays."""
    if isinstance(value, Mapping):
        kept = {key: _without_nothing(inner) for key, inner in value.items()}
        return {
            key: inner for key, inner in kept.items() if inner not in (None, []) and (key, inner) != ("matchLabels", {})
        }
    return [_without_nothing(inner) for inner in value] if isinstance(value, list) else value


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
