"""The PersistentVolumeClaim of an Agent whose sessions are files. A claim never shrinks: Kubernetes refuses that."""

from __future__ import annotations

import json
from decimal import Decimal

from ropewalk_operator.api import Agent
from ropewalk_operator.drift import quantity
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render.pod import metadata


def claim(agent: Agent, claimed: str | None) -> Manifest:
    """A volume of the cluster's default StorageClass for one node, as large as asked for, or as it is already."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(agent),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": larger(agent.sessions.file.size, claimed)}},
        },
    }


def claimed_size(content: bytes | None) -> str | None:
    """The size that the content of a live claim asks for, in the cache's JSON; None where that is not known."""
    if content is None:
        return None
    requests = (json.loads(content).get("spec") or {}).get("resources", {}).get("requests") or {}
    return str(requests["storage"]) if "storage" in requests else None


def larger(wanted: str, claimed: str | None) -> str:
    """The larger of two quantities; where they are equal, as it is wanted."""
    asked, has = quantity(wanted), quantity(claimed)
    return claimed if claimed and isinstance(asked, Decimal) and isinstance(has, Decimal) and has > asked else wanted
