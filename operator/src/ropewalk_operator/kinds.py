"""The kinds that the operator watches or writes, and their addresses at the API server. Never knows what is in them."""

from __future__ import annotations

from typing import NamedTuple

from ropewalk_operator.api import GROUP, VERSION


class Kind(NamedTuple):
    """Where a kind lives."""

    name: str
    group: str
    version: str
    plural: str
    managed_only: bool
    """True: only objects that carry the operator's managed-by label are watched."""

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The address of a collection, an object or a subresource; without a namespace, of all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{place}/{self.plural}", name, subresource) if part)


AGENT = Kind("Agent", GROUP, VERSION, "agents", False)
MCP_SERVER = Kind("MCPServer", GROUP, VERSION, "mcpservers", False)
MODEL = Kind("Model", GROUP, VERSION, "models", False)
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps", False)
SERVICE_ACCOUNT = Kind("ServiceAccount", "", "v1", "serviceaccounts", True)
SERVICE = Kind("Service", "", "v1", "services", True)
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", True)
CLAIM = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", True)
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", True)
AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers", True)
DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", True)
POD = Kind("Pod", "", "v1", "pods", True)
EVENT = Kind("Event", "", "v1", "events", False)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases", False)

OWNERS = (AGENT, MCP_SERVER)
RESOURCES = (*OWNERS, MODEL)
"""What users write; a Model has no children."""
CHILDREN = (CONFIG_MAP, SERVICE_ACCOUNT, SERVICE, CLAIM, DEPLOYMENT, NETWORK_POLICY, AUTOSCALER, DISRUPTION_BUDGET)
KEPT = frozenset({CLAIM.name})
"""Children that hold a user's data: they go with their owner, and never because a spec no longer asks for them."""
WATCHED = (*RESOURCES, *CHILDREN, POD)

BY_NAME = {kind.name: kind for kind in (*WATCHED, EVENT)}
BY_PLURAL = {kind.plural: kind for kind in WATCHED}


class Key(NamedTuple):
    """One Agent, MCPServer or Model, or one object of any other kind."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def collection(path: str) -> tuple[Kind, str] | None:
    """The watched kind and the namespace ("" for all) that an address speaks of."""
    parts = path.strip("/").split("/")
    kind = BY_PLURAL.get(parts[-1])
    if kind is None:
        return None
    if path.endswith(kind.path(None)):
        return kind, ""
    namespace = parts[-2]
    return (kind, namespace) if path.endswith(kind.path(namespace)) else None
