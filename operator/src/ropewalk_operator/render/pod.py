"""The parts that agents and MCP servers have in common: metadata, restricted pods, Deployment, Service, ServiceAccount.

Never knows what runs inside the container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ropewalk_operator import names
from ropewalk_operator.api import API_VERSION
from ropewalk_operator.manifest import Manifest, digest

USER_ID = 65532
REVISION_HISTORY = 2
PROGRESS_DEADLINE_SECONDS = 120
PRE_STOP_SECONDS = 5
"""How long a pod that ends still serves: on a node with twenty processes for two cores, kube-proxy sent it new
connections for longer than three."""


def metadata(owner: names.Owner) -> Manifest:
    """Name, labels and the controlling owner.

    Nothing blocks the owner's deletion: that would need the right to finalize.
    """
    return {
        "name": names.child(owner),
        "namespace": owner.namespace,
        "labels": names.labels(owner),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def service_account(owner: names.Owner) -> Manifest:
    """An account without a token and without rights, so that the pods are not the namespace's `default`."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(owner),
        "automountServiceAccountToken": False,
    }


def service(owner: names.Owner, port: int, *, sticky: bool = False) -> Manifest:
    """One port, the same inside and outside; `sticky` leads each client to the same pod every time."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner),
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "ClientIP" if sticky else "None",
            "selector": names.selector(owner),
            "ports": [{"name": names.PORT_NAME, "port": port, "targetPort": names.PORT_NAME, "protocol": "TCP"}],
        },
    }


def pod_spec(
    owner: names.Owner,
    container: Manifest,
    *,
    token: bool,
    grace_seconds: int,
    volumes: Sequence[Manifest] = (),
    first: Manifest | None = None,
    fixed_user: bool,
) -> Manifest:
    """A pod that the restricted pod security standard takes: no root, no privileges, a read-only root and an empty
    /tmp. What the user adds comes after what Ropewalk needs; `first` is a container that runs and ends before the
    other. Without a `fixed_user` the cluster chooses one, or else the image does.
    """
    users = owner.pod
    spec: Manifest = {
        "serviceAccountName": names.service_account(owner),
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            **({"runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID} if fixed_user else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"initContainers": [_confined(first)]} if first else {}),
        "containers": [
            {
                **_confined(container),
                "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                    *container.get("volumeMounts", []),
                    # The API server leaves false out, and would seem to have changed what was asked for.
                    *({k: v for k, v in mount.items() if v is not False} for mount in users.volume_mounts),
                ],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes, *users.volumes],
    }
    if users.env_from:
        sources = [source.model_dump(by_alias=True, exclude_none=True) for source in users.env_from]
        spec["containers"][0]["envFrom"] = sources
    return spec | _scheduling(owner)


def _confined(container: Manifest) -> Manifest:
    return {
        **container,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _scheduling(owner: names.Owner) -> Manifest:
    """Where the pods may run, and with what they are pulled; what the user left out is left out."""
    users = owner.pod
    # Without a selector Kubernetes would count no pods at all.
    own = {"labelSelector": {"matchLabels": names.selector(owner)}}
    chosen = {
        "nodeSelector": users.node_selector,
        "tolerations": list(users.tolerations),
        "affinity": users.affinity,
        "topologySpreadConstraints": [{**own, **constraint} for constraint in users.topology_spread_constraints],
        "priorityClassName": users.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in users.image_pull_secrets],
    }
    return {field: value for field, value in chosen.items() if value}


ONE_BY_ONE: Manifest = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""New before old."""
OLD_FIRST: Manifest = {"type": "Recreate"}
"""Never two pods at once, for what only one may write."""


def deployment(
    owner: names.Owner,
    spec: Manifest,
    config: str = "",
    strategy: Manifest = ONE_BY_ONE,
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    """A Deployment that replaces its pods by the strategy. The user may give other values to `labels` of the pods.

    The template carries a hash of itself and of `config`, so that a change of either rolls the pods and a pod says
    which template it came from. Without replicas where an autoscaler sets them.
    """
    template: Manifest = {
        "metadata": {
            "labels": {**(labels or {}), **owner.pod.labels, **names.labels(owner)},
            "annotations": dict(owner.pod.annotations),
        },
        "spec": spec,
    }
    template["metadata"]["annotations"][names.CONFIG_HASH] = digest({"template": template, "config": config})[:16]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner),
        "spec": {
            **({} if owner.is_autoscaled else {"replicas": owner.wanted_replicas}),
            "revisionHistoryLimit": REVISION_HISTORY,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "strategy": strategy,
            "selector": {"matchLabels": names.selector(owner)},
            "template": template,
        },
    }


def config_hash(manifests: list[Manifest]) -> str | None:
    """The hash that pods of the rendered Deployment carry; None where no Deployment is rendered."""
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            return str(manifest["spec"]["template"]["metadata"]["annotations"][names.CONFIG_HASH])
    return None
