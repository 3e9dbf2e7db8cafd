"""Hands the replicas of a Deployment over to its autoscaler, and never scales it down on the way.

A field that its only manager no longer applies gets its default back, which for replicas is 1. So another manager holds
the number first; it loses the field as soon as the autoscaler sets another number. Every step can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ropewalk_operator.kinds import DEPLOYMENT, Key, Kind
from ropewalk_operator.kube import ApiError
from ropewalk_operator.names import FIELD_MANAGER, REPLICAS_MANAGER

ATTEMPTS = 5


class Writer(Protocol):
    """What is needed of the connection."""

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """The object or None."""

    async def apply(
        self, kind: Kind, namespace: str, name: str, manifest: Mapping[str, Any], *, manager: str
    ) -> dict[str, Any]:
        """Server-side apply in the name of `manager`."""


async def hand_over_replicas(writer: Writer, key: Key, least: int) -> None:
    """Let the Deployment keep its replicas, or `least` where it has fewer, when the operator applies none any more.

    Raises ApiError 409 where it changes all the time.
    """
    for attempt in range(ATTEMPTS):
        found = await writer.get(DEPLOYMENT, key.namespace, key.name)
        if found is None or not is_owner_of_replicas(found):
            return
        metadata = found["metadata"]
        held = {
            "apiVersion": "apps/v1",
            "kind": DEPLOYMENT.name,
            # With its version: an autoscaler that scales it just now must not be overruled by the number before.
            "metadata": {field: metadata[field] for field in ("name", "namespace", "uid", "resourceVersion")},
            "spec": {"replicas": max(found["spec"].get("replicas", 1), least)},
        }
        try:
            await writer.apply(DEPLOYMENT, key.namespace, key.name, held, manager=REPLICAS_MANAGER)
        except ApiError as error:
            # Its controller writes the status of a new one again and again.
            if error.status != 409 or attempt == ATTEMPTS - 1:
                raise
        else:
            return


def is_owner_of_replicas(body: Mapping[str, Any]) -> bool:
    """Whether the operator's applies own spec.replicas, so that an apply without it would set it to 1."""
    return any(
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in body["metadata"].get("managedFields") or ()
    )
