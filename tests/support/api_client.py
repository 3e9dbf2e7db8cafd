"""Talks to a test's API server as its administrator, over one kept connection: kubectl takes a tenth of a second."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any

import httpx
import yaml

GROUPS = {
    "configmaps": "/api/v1", "serviceaccounts": "/api/v1", "services": "/api/v1", "events": "/api/v1",
    "persistentvolumeclaims": "/api/v1", "pods": "/api/v1", "deployments": "/apis/apps/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1", "poddisruptionbudgets": "/apis/policy/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2", "agents": "/apis/ropewalk.dev/v1alpha1",
    "mcpservers": "/apis/ropewalk.dev/v1alpha1",
}  # fmt: skip

Json = dict[str, Any]


def admin_tls(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """The server's address, and what it takes to be its administrator."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile("wb") as file:
        for part in ("client-certificate-data", "client-key-data"):
            file.write(base64.b64decode(user[part]))
        file.flush()
        context.load_cert_chain(file.name)
    return cluster["server"], context


class ApiClient:
    """Objects of one namespace, by plural and name."""

    def __init__(self, kubeconfig: Path, namespace: str = "default") -> None:
        server, tls = admin_tls(kubeconfig)
        self._namespace = namespace
        self._http = httpx.Client(base_url=server, verify=tls, timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def apply(self, plural: str, body: Json) -> Json:
        """Server-side apply, as a user does it."""
        path = f"{self._path(plural)}/{body['metadata']['name']}?fieldManager=user&force=true"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self._json(self._http.patch(path, content=json.dumps(body), headers=headers))

    def merge(self, plural: str, name: str, patch: Json) -> Json:
        """Merge patch; `name` may name a subresource, as NAME/status."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._json(self._http.patch(f"{self._path(plural)}/{name}", content=json.dumps(patch), headers=headers))

    def create(self, plural: str, body: Json) -> Json:
        """Create an object."""
        return self._json(self._http.post(self._path(plural), json=body))

    def delete(self, plural: str, name: str) -> None:
        """Delete an object in the background."""
        self._json(self._http.delete(f"{self._path(plural)}/{name}"))

    def get(self, plural: str, name: str) -> Json | None:
        """The object or None."""
        answer = self._http.get(f"{self._path(plural)}/{name}")
        return None if answer.status_code == 404 else self._json(answer)

    def items(self, plural: str, selector: str = "") -> list[Json]:
        """All objects with these labels."""
        answer = self._json(self._http.get(self._path(plural), params={"labelSelector": selector}))
        return list(answer["items"])

    def _path(self, plural: str) -> str:
        return f"{GROUPS[plural]}/namespaces/{self._namespace}/{plural}"

    @staticmethod
    def _json(answer: httpx.Response) -> Json:
        assert answer.status_code < 300, f"{answer.request.method} {answer.request.url}: {answer.text}"
        body: Json = answer.json()
        return body
