"""Bodies of managed objects -> what the operator keeps of them. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.kinds import AUTOSCALER, CLAIM, DEPLOYMENT, Key

Body = Mapping[str, Any]

JUDGED_COUNTS = ("observedGeneration", "replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
"""Of a Deployment's status; see facts.workload."""


@dataclass(frozen=True, slots=True)
class Child:
    """A managed object. There are thousands: what they have in common is kept once, and the rest is small."""

    key: Key
    uid: str
    version: int
    owner_uid: str
    owner: Key | None
    deleting: bool
    desired_hash: str
    labelled_for: Key | None
    """Whose child its labels say that it is, where they are the operator's."""
    packed: bytes | None
    generation: int
    status: Mapping[str, Any] = field(default_factory=dict)
    """Of a Deployment what is judged, of a claim the phase, of an autoscaler why it does nothing."""

    @property
    def content(self) -> bytes | None:
        """Everything but status and bookkeeping, as JSON; None when only its metadata was seen."""
        return zlib.decompress(self.packed) if self.packed else None

    @property
    def replicas(self) -> int | None:
        """Of a Deployment, the pods that its spec asks for, whoever has set that; None where it is not known."""
        spec = json.loads(self.content or b"{}").get("spec")
        return spec.get("replicas") if spec else None


def version_of(body: Body) -> int:
    """The resourceVersion as a number: versions of one kind grow."""
    try:
        return int(body["metadata"].get("resourceVersion", 0))
    except ValueError:
        return 0


def child(kind: str, body: Body) -> Child:
    """The child in `body`."""
    metadata = body["metadata"]
    controller: Mapping[str, Any] = next(
        (ref for ref in metadata.get("ownerReferences") or () if ref.get("controller")), {}
    )
    namespace, owner = intern(metadata["namespace"]), None
    if controller.get("kind") in names.OWNER_LABELS:
        owner = Key(intern(controller["kind"]), namespace, intern(controller["name"]))
    labelled_for = _labelled_for(metadata)
    return Child(
        key=Key(kind, namespace, intern(metadata["name"])),
        uid=metadata["uid"],
        version=version_of(body),
        owner_uid=intern(controller.get("uid", "")),
        owner=owner,
        deleting="deletionTimestamp" in metadata,
        desired_hash=intern((metadata.get("annotations") or {}).get(names.DESIRED_HASH, "")),
        labelled_for=owner if labelled_for == owner else labelled_for,
        packed=_packed(body),
        generation=metadata.get("generation", 0),
        status=_status(kind, body),
    )


def _status(kind: str, body: Body) -> Body:
    status = body.get("status") or {}
    if kind == CLAIM.name:
        return {"phase": status.get("phase", "")}
    if kind == AUTOSCALER.name:
        return {"idle": _idle(status.get("conditions") or ())}
    if kind != DEPLOYMENT.name:
        return {}
    conditions = [
        # What the others say, and when, changes all the time and is not judged.
        {"type": intern(c["type"]), **{name: c[name] for name in ("status", "reason", "message") if name in c}}
        for c in status.get("conditions") or ()
        if c["type"] == "ReplicaFailure" or c.get("reason") == "ProgressDeadlineExceeded"
    ]
    counts = {name: status[name] for name in JUDGED_COUNTS if name in status}
    return {**counts, "conditions": conditions} if conditions else counts


def _idle(conditions: Iterable[Body]) -> str:
    """Why an autoscaler does nothing, in its own words; of one that was scaled to 0 by hand the Deployment tells."""
    troubles = (
        str(condition.get("message", ""))
        for condition in conditions
        if condition.get("type") in ("AbleToScale", "ScalingActive")
        and condition.get("status") == "False"
        and condition.get("reason") != "ScalingDisabled"
    )
    return next(troubles, "")


def _labelled_for(metadata: Body) -> Key | None:
    labels = metadata.get("labels") or {}
    if labels.get(names.MANAGED_BY) != names.FIELD_MANAGER:
        return None
    named = [(kind, labels[label]) for kind, label in names.OWNER_LABELS.items() if label in labels]
    return Key(named[0][0], metadata["namespace"], named[0][1]) if len(named) == 1 else None


def _packed(body: Body) -> bytes | None:
    if body.get("kind") == "PartialObjectMetadata":
        return None
    metadata = body["metadata"]
    kept = {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata}
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    text = json.dumps({"metadata": kept, **rest}, sort_keys=True, separators=(",", ":"))
    return zlib.compress(text.encode(), level=1)
