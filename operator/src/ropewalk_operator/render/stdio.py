"""What a pod needs to run a stdio server behind the bridge that serves it over streamable HTTP.

The bridge comes into the user's own image by a volume that a first container fills; a package is installed at start in
the bridge's image. Never knows what the bridge does inside: its options are the contract.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ropewalk_operator import names
from ropewalk_operator.api import MCPServer, Stdio
from ropewalk_operator.manifest import Manifest

PROGRAM = "/ropewalk/bin/ropewalk-mcp-stdio"
INSTALLED_AT = "/ropewalk"
FILLED_AT = "/bridge"

# A Python or a Node of its own beside the bridge, and for a package its installation.
DEFAULT_RESOURCES = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
COPY_RESOURCES = {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}
# The bridge answers /health from its first second on, while its child starts or a package is installed; this leaves
# room for a busy node.
START_SECONDS = 30


@dataclass(frozen=True)
class Parts:
    """What differs between kinds of servers: fields of the container, its variables, volumes, and what runs first."""

    container: Manifest
    environment: dict[str, str] = field(default_factory=dict)
    volumes: tuple[Manifest, ...] = ()
    first: Manifest | None = None


def parts(server: MCPServer, asked: Stdio, bridge_image: str, pull_policy: str) -> Parts:
    """The parts of a pod that runs what was asked for."""
    container: Manifest = {
        "image": asked.image or bridge_image,
        "command": [PROGRAM, "serve", *_options(server, asked), "--", *asked.command, *asked.args],
        "resources": server.pod.resources or DEFAULT_RESOURCES,
        # No startup probe: the kubelet asks for readiness at once when it learns that a container runs, but puts that
        # off until a startup probe has had its turn, which made servers Ready one second later (docs/benchmarks.md).
        "readinessProbe": _probe("/ready", period=1, failures=3),
        "livenessProbe": {"initialDelaySeconds": START_SECONDS, **_probe("/health", period=10, failures=3)},
    }
    if asked.package:
        # What is installed, and the caches of the installers, go where the pod may write.
        return Parts(container, {"HOME": "/tmp"})  # noqa: S108
    container["volumeMounts"] = [{"name": "bridge", "mountPath": INSTALLED_AT, "readOnly": True}]
    first: Manifest = {
        "name": names.BRIDGE_CONTAINER,
        "image": bridge_image,
        "imagePullPolicy": pull_policy,
        "command": [PROGRAM, "install", FILLED_AT],
        "resources": COPY_RESOURCES,
        "volumeMounts": [{"name": "bridge", "mountPath": FILLED_AT}],
    }
    return Parts(container, volumes=({"name": "bridge", "emptyDir": {}},), first=first)


def _options(server: MCPServer, asked: Stdio) -> list[str]:
    package = asked.package
    return [
        f"--name={server.name}",
        f"--port={server.port}",
        f"--path={server.path}",
        f"--session-mode={asked.session_mode}",
        f"--max-sessions={asked.max_sessions}",
        f"--idle-timeout-seconds={asked.idle_timeout_seconds}",
        *([f"--python-package={package.python}"] if package and package.python else []),
        *([f"--node-package={package.node}"] if package and package.node else []),
    ]


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": names.PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
