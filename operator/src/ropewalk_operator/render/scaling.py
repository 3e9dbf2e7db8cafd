"""How many pods there are at a time: HorizontalPodAutoscaler and PodDisruptionBudget. Never a number of replicas."""

from __future__ import annotations

from ropewalk_operator import names
from ropewalk_operator.api import Autoscaling
from ropewalk_operator.kinds import DEPLOYMENT
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render.pod import metadata


def scaling(owner: names.Owner) -> list[Manifest]:
    """The autoscaler that is asked for, and a budget wherever more than one pod may run."""
    asked = owner.autoscaling if owner.is_autoscaled else None
    most = asked.max_replicas if asked else owner.wanted_replicas
    return [
        *([_autoscaler(owner, asked)] if asked else []),
        *([_disruption_budget(owner)] if most > 1 else []),
    ]


def _autoscaler(owner: names.Owner, asked: Autoscaling) -> Manifest:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(owner),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": DEPLOYMENT.name, "name": names.child(owner)},
            "minReplicas": asked.min_replicas,
            "maxReplicas": asked.max_replicas,
            "metrics": [
                _use_of("cpu", asked.target_cpu_percent),
                _use_of("memory", asked.target_memory_percent),
                *([_waiting(asked.target_queue_depth)] if asked.target_queue_depth else []),
            ],
        },
    }


def _use_of(resource: str, percent: int) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": resource, "target": target}}


def _waiting(requests: int) -> Manifest:
    target = {"type": "AverageValue", "averageValue": str(requests)}
    return {"type": "Pods", "pods": {"metric": {"name": names.QUEUE_METRIC}, "target": target}}


def _disruption_budget(owner: names.Owner) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner),
        "spec": {
            "maxUnavailable": 1,
            # Pods that are broken anyway must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(owner)},
        },
    }
