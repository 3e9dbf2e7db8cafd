"""An MCPServer -> its children: ServiceAccount, Service, NetworkPolicy, what scales it, and the Deployment; none for a
remote server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.api import MCPServer
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render import pod, stdio
from ropewalk_operator.render.networkpolicy import mcp_policy
from ropewalk_operator.render.scaling import scaling

DEFAULT_RESOURCES = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
GRACE_SECONDS = 30


def mcp_children(
    server: MCPServer,
    *,
    stdio_image: str,
    pull_policy: str,
    sticky: bool = False,
    scrapers: Mapping[str, Any] | None = None,
    fixed_user: bool = True,
) -> list[Manifest]:
    """All children that the server shall have. The Deployment comes last: its pods need the others.

    `sticky`: whether a client has to meet the same pod every time. `scrapers`: the peer of a NetworkPolicy that reads
    the metrics. `fixed_user`: whether the pods name their user, or the cluster chooses it.
    """
    if server.remote:
        return []
    return [
        *([] if server.pod.service_account_name else [pod.service_account(server)]),
        pod.service(server, server.port, sticky=sticky),
        *([mcp_policy(server, scrapers)] if server.network_policy.enabled else []),
        *scaling(server),
        # The bridge has metrics; what an image has, only its user knows.
        pod.deployment(
            server,
            _pod_spec(server, stdio_image, pull_policy, fixed_user=fixed_user),
            labels={names.SCRAPED: "true"} if server.stdio else None,
        ),
    ]


def _pod_spec(server: MCPServer, stdio_image: str, pull_policy: str, *, fixed_user: bool) -> Manifest:
    # A token is mounted only where the user named the account, and so knows what rights the server gets.
    token = server.pod.service_account_name is not None
    asked = server.stdio
    own = stdio.parts(server, asked, stdio_image, pull_policy) if asked else stdio.Parts(_container(server))
    container: Manifest = {
        "name": names.MCP_CONTAINER,
        **own.container,
        "imagePullPolicy": pull_policy,
        "ports": [{"name": names.PORT_NAME, "containerPort": server.port, "protocol": "TCP"}],
        "env": _environment(server, own.environment),
    }
    return pod.pod_spec(
        server,
        container,
        token=token,
        grace_seconds=GRACE_SECONDS,
        volumes=own.volumes,
        first=own.first,
        fixed_user=fixed_user,
    )


def _container(server: MCPServer) -> Manifest:
    return {
        "image": server.image,
        **({"command": list(server.command)} if server.command else {}),
        **({"args": list(server.args)} if server.args else {}),
        "resources": server.pod.resources or DEFAULT_RESOURCES,
        "startupProbe": _probe(period=1, failures=120),
        "readinessProbe": _probe(period=2, failures=2),
    }


def _environment(server: MCPServer, own: dict[str, str]) -> list[Manifest]:
    """By the first two a server knows which Host headers are its own; the user's may replace the others."""
    users = {entry["name"] for entry in server.pod.env}
    return [
        {"name": "ROPEWALK_MCP_ALLOWED_HOSTS", "value": ",".join(names.service_hosts(server))},
        {"name": "ROPEWALK_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        *({"name": name, "value": value} for name, value in own.items() if name not in users),
        *server.pod.env,
    ]


def _probe(*, period: int, failures: int) -> Manifest:
    return {"tcpSocket": {"port": names.PORT_NAME}, "periodSeconds": period, "failureThreshold": failures}
