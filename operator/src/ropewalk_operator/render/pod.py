"""The parts that agents and MCP servers have in common: metadata, restricted pods, Deployment, Service, ServiceAccount.

Never knows what runs inside the container.
"""

from __future__ import annotations

from ropewalk_operator import names
from ropewalk_operator.api import API_VERSION
from ropewalk_operator.manifest import Manifest, digest

USER_ID = 65532
REVISION_HISTORY = 2
PROGRESS_DEADLINE_SECONDS = 120
PRE_STOP_SECONDS = 3


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


def service(owner: names.Owner, port: int) -> Manifest:
    """One port, the same inside and outside."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner),
        "spec": {
            "type": "ClusterIP",
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
    volumes: list[Manifest] | None = None,
) -> Manifest:
    """A pod that the restricted pod security standard takes: no root, no privileges, a read-only root and an empty
    /tmp.
    """
    spec: Manifest = {
        "serviceAccountName": names.service_account(owner),
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                **container,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *container.get("volumeMounts", [])],  # noqa: S108
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *(volumes or [])],
    }
    if owner.pod.node_selector:
        spec["nodeSelector"] = owner.pod.node_selector
    if owner.pod.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret.name} for secret in owner.pod.image_pull_secrets]
    return spec


ONE_BY_ONE: Manifest = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""New before old."""
OLD_FIRST: Manifest = {"type": "Recreate"}
"""Never two pods at once, for what only one may write."""


def deployment(owner: names.Owner, spec: Manifest, config: str = "", strategy: Manifest = ONE_BY_ONE) -> Manifest:
    """A Deployment that replaces its pods by the strategy.

    The template carries a hash of itself and of `config`, so that a change of either rolls the pods and a pod says
    which template it came from.
    """
    template: Manifest = {
        "metadata": {"labels": {**owner.pod.labels, **names.labels(owner)}, "annotations": dict(owner.pod.annotations)},
        "spec": spec,
    }
    template["metadata"]["annotations"][names.CONFIG_HASH] = digest({"template": template, "config": config})[:16]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner),
        "spec": {
            "replicas": owner.wanted_replicas,
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
