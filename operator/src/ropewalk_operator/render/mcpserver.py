"""An MCPServer -> its children: ServiceAccount, Deployment, Service, NetworkPolicy; none for a remote server."""

from __future__ import annotations

from ropewalk_operator import names
from ropewalk_operator.api import MCPServer
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render import pod
from ropewalk_operator.render.networkpolicy import mcp_policy

DEFAULT_RESOURCES = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
GRACE_SECONDS = 30


def mcp_children(server: MCPServer, *, pull_policy: str) -> list[Manifest]:
    """All children that the server shall have. The Deployment comes last: its pods need the others."""
    if server.remote:
        return []
    return [
        *([] if server.pod.service_account_name else [pod.service_account(server)]),
        pod.service(server, server.port),
        mcp_policy(server),
        pod.deployment(server, _pod_spec(server, pull_policy)),
    ]


def _pod_spec(server: MCPServer, pull_policy: str) -> Manifest:
    container: Manifest = {
        "name": names.MCP_CONTAINER,
        "image": server.image,
        "imagePullPolicy": pull_policy,
        "ports": [{"name": names.PORT_NAME, "containerPort": server.port, "protocol": "TCP"}],
        "resources": server.pod.resources or DEFAULT_RESOURCES,
        "startupProbe": _probe(period=1, failures=120),
        "readinessProbe": _probe(period=2, failures=2),
    }
    if server.args:
        container["args"] = list(server.args)
    if server.pod.env:
        container["env"] = list(server.pod.env)
    # A token is mounted only where the user named the account, and so knows what rights the server gets.
    token = server.pod.service_account_name is not None
    return pod.pod_spec(server, container, token=token, grace_seconds=GRACE_SECONDS)


def _probe(*, period: int, failures: int) -> Manifest:
    return {"tcpSocket": {"port": names.PORT_NAME}, "periodSeconds": period, "failureThreshold": failures}
