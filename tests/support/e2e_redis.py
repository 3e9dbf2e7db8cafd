"""A Redis in the local cluster, and the settings of an Agent that keeps its sessions in it."""

from __future__ import annotations

import base64

from e2e_cluster import Json, image

_LABELS = {"app": "redis"}


def redis() -> list[Json]:
    """Its Secret, Service and Deployment; all three are named redis."""
    named = {"name": "redis"}
    container = {
        "name": "redis",
        "image": image("redis"),
        # Without a share of its own it starves on a busy node, and agents say that their sessions are away.
        "resources": {"requests": {"cpu": "50m"}},
        "args": ["--protected-mode", "no", "--save", "", "--dir", "/tmp"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    template = {"metadata": {"labels": _LABELS}, "spec": pod}
    url = base64.b64encode(b"redis://redis:6379/0").decode()
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": named, "data": {"url": url}},
        {"apiVersion": "v1", "kind": "Service", "metadata": named,
         "spec": {"selector": _LABELS, "ports": [{"port": 6379}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named,
         "spec": {"selector": {"matchLabels": _LABELS}, "template": template}},
    ]  # fmt: skip


def redis_sessions() -> Json:
    """`spec.sessions` for it."""
    return {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}
