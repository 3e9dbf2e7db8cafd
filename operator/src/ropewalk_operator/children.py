"""Bodies of managed objects -> what the operator keeps of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.kinds import CLAIM, DEPLOYMENT, Key

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Child:
    """A managed object.

    `content` is everything but status and bookkeeping, as JSON; None when only its metadata was seen.
    """

    key: Key
    uid: str
    version: int
    owner_uid: str
    owner: Key | None
    deleting: bool
    desired_hash: str
    labelled_for: Key | None
    """Whose child its labels say that it is, where they are the operator's."""
    content: bytes | None
    generation: int
    status: Mapping[str, Any] = field(default_factory=dict)
    """Of a Deployment all, of a claim the phase, of other kinds nothing."""

    @property
    def replicas(self) -> int | None:
        """Of a Deployment, the pods that its spec asks for, whoever has set that; None where it is not known."""
        spec = json.loads(self.content).get("spec") if self.content else None
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
    is_ours = controller.get("kind") in names.OWNER_LABELS
    return Child(
        key=Key(kind, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=version_of(body),
        owner_uid=controller.get("uid", ""),
        owner=Key(controller["kind"], metadata["namespace"], controller["name"]) if is_ours else None,
        deleting="deletionTimestamp" in metadata,
        desired_hash=(metadata.get("annotations") or {}).get(names.DESIRED_HASH, ""),
        labelled_for=_labelled_for(metadata),
        content=_content(body),
        generation=metadata.get("generation", 0),
        status=_status(kind, body),
    )


def _status(kind: str, body: Body) -> Body:
    status = body.get("status") or {}
    if kind == CLAIM.name:
        return {"phase": status.get("phase", "")}
    return status if kind == DEPLOYMENT.name else {}


def _labelled_for(metadata: Body) -> Key | None:
    labels = metadata.get("labels") or {}
    if labels.get(names.MANAGED_BY) != names.FIELD_MANAGER:
        return None
    named = [(kind, labels[label]) for kind, label in names.OWNER_LABELS.items() if label in labels]
    return Key(named[0][0], metadata["namespace"], named[0][1]) if len(named) == 1 else None


def _content(body: Body) -> bytes | None:
    if body.get("kind") == "PartialObjectMetadata":
        return None
    metadata = body["metadata"]
    kept = {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata}
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return json.dumps({"metadata": kept, **rest}, sort_keys=True, separators=(",", ":")).encode()
