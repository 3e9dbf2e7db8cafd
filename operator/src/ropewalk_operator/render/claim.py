"""The PersistentVolumeClaim of an Agent whose sessions are files.

Kubernetes refuses to shrink a claim, and to change the size of one that has no volume yet.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import NamedTuple

from ropewalk_operator.api import Agent
from ropewalk_operator.drift import quantity
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render.pod import metadata


class Claimed(NamedTuple):
    """What a live claim asks for, and whether it has its volume."""

    size: str
    is_bound: bool


def claim(agent: Agent, claimed: Claimed | None) -> Manifest:
    """A volume of the cluster's default StorageClass for one node, as large as asked for, or as it is already."""
    size = agent.sessions.file.size
    if claimed is not None and why_kept(size, claimed):
        size = claimed.size
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(agent),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        },
    }


def claimed_of(content: bytes | None, phase: str) -> Claimed | None:
    """What a live claim asks for, of its content in the cache's JSON; None where that is not known."""
    if content is None:
        return None
    requests = (json.loads(content).get("spec") or {}).get("resources", {}).get("requests") or {}
    return Claimed(str(requests["storage"]), phase == "Bound") if "storage" in requests else None


def why_kept(wanted: str, claimed: Claimed) -> str:
    """Why a claim keeps its size although another is wanted; empty where it gets what is wanted."""
    asked, has = quantity(wanted), quantity(claimed.size)
    if not isinstance(asked, Decimal) or not isinstance(has, Decimal) or asked == has:
        return ""
    if has > asked:
        return "it cannot shrink"
    return "" if claimed.is_bound else "it cannot grow before it has its volume"
