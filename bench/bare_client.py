"""A client that applies objects and counts them: what a user's program does, without any operator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient

NAMESPACE = "bench"
AT_ONCE = 32
_MANAGED = "app.kubernetes.io%2Fmanaged-by%3Dropewalk-operator"
_PATHS = {
    "Agent": "apis/ropewalk.dev/v1alpha1/namespaces/bench/agents",
    "Model": "apis/ropewalk.dev/v1alpha1/namespaces/bench/models",
    "ConfigMap": "api/v1/namespaces/bench/configmaps",
    "ServiceAccount": "api/v1/namespaces/bench/serviceaccounts",
    "Service": "api/v1/namespaces/bench/services",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/bench/networkpolicies",
    "Deployment": "apis/apps/v1/namespaces/bench/deployments",
}

Object = dict[str, Any]


async def at_once(work: Iterable[Awaitable[Any]]) -> None:
    """Await all of it, 32 at once, in this order."""
    waiting = iter(work)

    async def take() -> None:
        for each in waiting:
            await each

    await asyncio.gather(*(take() for _ in range(AT_ONCE)))


class BareClient:
    """Server-side apply by the Kubernetes client's dynamic interface; everything else by plain requests."""

    def __init__(self, api: client.ApiClient, dynamic: Any) -> None:
        self._api = api
        self._dynamic = dynamic

    @classmethod
    @asynccontextmanager
    async def connected(cls, kubeconfig: Path) -> AsyncIterator[BareClient]:
        """A client whose connections end with the block."""
        configuration = client.Configuration()
        await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        configuration.client_session_kwargs = {"trust_env": False}
        async with client.ApiClient(configuration) as api:
            yield cls(api, await DynamicClient(api))

    async def apply(self, objects: list[Object]) -> None:
        """Apply them all, 32 at once, in this order."""
        versions = {each["kind"]: each["apiVersion"] for each in objects}
        resources = {
            kind: await self._dynamic.resources.get(api_version=version, kind=kind)
            for kind, version in versions.items()
        }
        await at_once(
            resources[each["kind"]].server_side_apply(
                each, namespace=NAMESPACE, field_manager="bench", force_conflicts=True
            )
            for each in objects
        )

    async def merge(self, kind: str, name: str, patch: Object) -> Object:
        """Merge patch; the object as it is then."""
        return await self._request(
            "PATCH", f"{_PATHS[kind]}/{name}", patch, content_type="application/merge-patch+json"
        )

    async def get(self, kind: str, name: str) -> Object:
        """The object."""
        return await self._request("GET", f"{_PATHS[kind]}/{name}")

    async def count(self, kind: str) -> int:
        """How many there are; the API server counts them without reading them."""
        # It counts what is left only where nothing is selected by label.
        found = await self._request("GET", f"{_PATHS[kind]}?limit=1")
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount") or 0)

    async def managed(self, kind: str) -> list[Object]:
        """All that the operator has made of a kind, with what a list leaves out of its items."""
        found = await self._request("GET", f"{_PATHS[kind]}?labelSelector={_MANAGED}")
        return [{**each, "kind": kind, "apiVersion": found["apiVersion"]} for each in found["items"]]

    async def all(self, kind: str) -> list[Object]:
        """Everything of a kind."""
        return list((await self._request("GET", _PATHS[kind]))["items"])

    async def version(self, kind: str) -> str:
        """Where `events` is to begin, to see all that changes from now on."""
        return str((await self._request("GET", f"{_PATHS[kind]}?limit=1"))["metadata"]["resourceVersion"])

    async def events(self, kind: str, version: str) -> AsyncIterator[Object]:
        """What has changed since a version, as watch events."""
        path = f"{_PATHS[kind]}?watch=true&resourceVersion={version}"
        session = self._api.rest_client.pool_manager
        assert session is not None, "the request before has made it"
        address = f"{self._api.configuration.host}/{path}"
        async with session.get(address, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            async for line in answer.content:
                yield json.loads(line)

    async def _request(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        answer = await self._api.rest_client.request(
            method, f"{self._api.configuration.host}/{path}", headers=headers, body=body
        )
        text = await answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        found: Object = json.loads(text)
        return found
