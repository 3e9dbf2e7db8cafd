"""What is told of a cluster, as data and as text. Pure: no client, no clock."""

from typing import Any

from pydantic import BaseModel, Field

Json = dict[str, Any]


class Node(BaseModel):
    """A node: whether it takes pods, and what it has."""

    name: str
    ready: bool
    schedulable: bool
    roles: list[str]
    kubelet_version: str
    os_image: str
    architecture: str
    capacity: dict[str, str]
    allocatable: dict[str, str]
    problems: list[str] = Field(description="Conditions that are wrong, such as DiskPressure")


class ClusterInfo(BaseModel):
    """A cluster at a glance."""

    version: str
    nodes: list[Node] | None = None
    node_count: int | None = None
    namespaces: list[str] | None = Field(default=None, description="At most 100 names")
    namespace_count: int | None = None
    pod_count: int | None = None
    notes: list[str] | None = Field(default=None, description="What could not be shown, and why")


_RESOURCES = ("cpu", "memory", "pods", "ephemeral-storage")
_ROLE = "node-role.kubernetes.io/"


def total(listed: Json) -> int:
    """Return how many items there are, also beyond the limit of the list."""
    return len(listed.get("items", [])) + int(listed.get("metadata", {}).get("remainingItemCount") or 0)


def node(item: Json) -> Node:
    """Return what is told of a node."""
    status, info = item.get("status", {}), item.get("status", {}).get("nodeInfo", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    wrong = [
        f"{kind}: {condition.get('reason') or condition['status']}"
        for kind, condition in conditions.items()
        if condition["status"] != ("True" if kind == "Ready" else "False")
    ]
    return Node(
        name=item["metadata"]["name"],
        ready=conditions.get("Ready", {}).get("status") == "True",
        schedulable=not item.get("spec", {}).get("unschedulable", False),
        roles=sorted(key.removeprefix(_ROLE) for key in item["metadata"].get("labels", {}) if key.startswith(_ROLE)),
        kubelet_version=info.get("kubeletVersion", ""),
        os_image=info.get("osImage", ""),
        architecture=info.get("architecture", ""),
        capacity={key: value for key, value in status.get("capacity", {}).items() if key in _RESOURCES},
        allocatable={key: value for key, value in status.get("allocatable", {}).items() if key in _RESOURCES},
        problems=wrong,
    )


def text(cluster: ClusterInfo) -> str:
    """Return the cluster as lines."""
    lines = [f"Kubernetes {cluster.version}"]
    if cluster.nodes is not None:
        ready = sum(item.ready for item in cluster.nodes)
        lines.append(f"Nodes: {cluster.node_count}, ready: {ready}" + _shown(len(cluster.nodes), cluster.node_count))
        for item in cluster.nodes:
            state = ("Ready" if item.ready else "NotReady") + ("" if item.schedulable else ", unschedulable")
            resources = " ".join(f"{key}={value}" for key, value in item.allocatable.items())
            problems = f"; problems: {', '.join(item.problems)}" if item.problems else ""
            lines.append(f"  {item.name}: {state}, kubelet {item.kubelet_version}, allocatable {resources}{problems}")
    if cluster.namespaces is not None:
        shown = _shown(len(cluster.namespaces), cluster.namespace_count)
        lines.append(f"Namespaces: {cluster.namespace_count} ({', '.join(cluster.namespaces)}){shown}")
    if cluster.pod_count is not None:
        lines.append(f"Pods: {cluster.pod_count}")
    return "\n".join(lines + [f"Note: {note}" for note in cluster.notes or []])


def _shown(shown: int, of: int | None) -> str:
    return "" if shown == of else f", the first {shown} shown"
