"""Applies the examples as they are, but for what a test has to change: cluster-wide names, images and upstreams.

The local cluster has neither the internet nor a public registry. So the images of other people are replaced by those of
this repository, and what a server asks in the internet by a stand-in in the same namespace.
"""

from __future__ import annotations

from typing import Any

import yaml

from cluster.layout import REPOSITORY
from e2e_cluster import Json, Workspace, image, kubectl

_EXAMPLES = REPOSITORY / "examples"
_OUR_IMAGES = {"prom/prometheus": "prometheus", "redis": "redis"}
_CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}


def apply_examples(
    space: Workspace, *names: str, env: dict[str, dict[str, str]] | None = None, remote: str | None = None
) -> None:
    """Apply folders of examples, or single files of them such as websearch/mcpserver.yaml.

    `env` gives variables to the pods of MCPServers, by the servers' names; `remote` is the address of a remote server.
    """
    bodies = [_adapted(body, space, env or {}) for name in names for body in _bodies(name)]
    for body in bodies:
        if remote and "remote" in body.get("spec", {}):
            body["spec"]["remote"]["url"] = remote
    space.apply(*bodies)


def delete_cluster_wide(space: Workspace, *names: str) -> None:
    """Delete what the examples have made outside of the namespace."""
    found = [body for name in names for body in _bodies(name) if body["kind"] in _CLUSTER_WIDE]
    kubectl(
        "delete", "--ignore-not-found", *[f"{body['kind']}/{_own(space, body['metadata']['name'])}" for body in found]
    )


def start_stand_in(space: Workspace, name: str) -> None:
    """Run one of the programs in dev/ that stand in for something in the internet, until it answers at http://name:8080."""
    space.apply(*_stand_in(name, 8080))
    space.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")


def _stand_in(name: str, port: int) -> list[Json]:
    labels = {"app": name}
    container = {
        "name": name,
        "image": image(name),
        "imagePullPolicy": "IfNotPresent",
        "readinessProbe": {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"containers": [container], "securityContext": security, "automountServiceAccountToken": False}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"selector": labels, "ports": [{"port": port}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
         "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}},
    ]  # fmt: skip


def _bodies(name: str) -> list[dict[str, Any]]:
    path = _EXAMPLES / name
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    assert files, f"examples/{name} has no YAML"
    return [body for file in files for body in yaml.safe_load_all(file.read_text()) if body]


def _own(space: Workspace, name: str) -> str:
    return f"{space.name}-{name}"


def _adapted(body: dict[str, Any], space: Workspace, env: dict[str, dict[str, str]]) -> Json:
    if body["kind"] in _CLUSTER_WIDE:
        body["metadata"]["name"] = _own(space, body["metadata"]["name"])
    if body["kind"] == "ClusterRoleBinding":
        body["roleRef"]["name"] = _own(space, body["roleRef"]["name"])
        for subject in body["subjects"]:
            subject["namespace"] = space.name
    if body["kind"] == "Deployment":
        for container in body["spec"]["template"]["spec"]["containers"]:
            ours = _OUR_IMAGES.get(container["image"].partition(":")[0])
            container["image"] = image(ours) if ours else container["image"]
    if body["kind"] == "MCPServer" and body["metadata"]["name"] in env:
        variables = [{"name": name, "value": value} for name, value in env[body["metadata"]["name"]].items()]
        body["spec"].setdefault("pod", {})["env"] = variables
    return body
