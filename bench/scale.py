"""200 Agents through the operator beside the very same children applied by a bare client, against a real API server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient

from apiserver import ApiServer
from cluster.layout import REPOSITORY
from cluster.processes import wait_until

_AGENTS, _AT_ONCE, _ROUNDS = 200, 32, 2
_KINDS = {
    "ConfigMap": "v1",
    "ServiceAccount": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}
_OTHERS = {"ConfigMap": 1, "ServiceAccount": 1}  # every namespace has kube-root-ca.crt and default
_MANAGED = "app.kubernetes.io/managed-by=ropewalk-operator"
_SERVER_MADE = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences")


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    server = ApiServer().start()
    try:
        for crd in ("agent", "mcpserver"):
            server.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds" / f"{crd}.yaml"))
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        pairs = [asyncio.run(_compare(server, number)) for number in range(_ROUNDS)]
    finally:
        server.stop()
    mine, bare = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    figure = f"{mine:.2f} s against {bare:.2f} s: {mine / bare:.2f} ×"
    return [(f"{_AGENTS} Agents until all children exist, best of {_ROUNDS}", figure, "≤ 1.5 ×")]


async def _compare(server: ApiServer, number: int) -> tuple[float, float]:
    """Seconds that the operator took, and seconds that the bare client took for the same objects."""
    async with client.ApiClient(await _configuration(server)) as api:
        dynamic = await DynamicClient(api)
        through, beside = f"operator-{number}", f"bare-{number}"
        for namespace in (through, beside):
            server.kubectl("create", "namespace", namespace)
            for other in ("serviceaccount/default", "configmap/kube-root-ca.crt"):
                server.kubectl("wait", "-n", namespace, "--for=create", other, "--timeout=30s")
        with _operator(server, through):
            began = time.perf_counter()
            agents = [_agent(f"agent-{index:03}") for index in range(_AGENTS)]
            await _apply_all(dynamic, "ropewalk.dev/v1alpha1", through, agents)
            children = await _all_children(dynamic, through)
            mine = time.perf_counter() - began
        copies = [(version, _copy(child, beside)) for version, child in children]
        began = time.perf_counter()
        places = asyncio.Semaphore(_AT_ONCE)
        resources = {
            kind: await dynamic.resources.get(api_version=version, kind=kind) for kind, version in _KINDS.items()
        }
        await asyncio.gather(*(_apply(resources[copy["kind"]], beside, copy, places) for _, copy in copies))
        bare = time.perf_counter() - began
        for namespace in (through, beside):
            server.kubectl("delete", "namespace", namespace, "--wait=false")
    return mine, bare


async def _configuration(server: ApiServer) -> client.Configuration:
    configuration = client.Configuration()
    await config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
    return configuration


async def _apply_all(dynamic: Any, version: str, namespace: str, objects: list[dict[str, Any]]) -> None:
    places = asyncio.Semaphore(_AT_ONCE)
    resource = await dynamic.resources.get(api_version=version, kind=objects[0]["kind"])
    await asyncio.gather(*(_apply(resource, namespace, each, places) for each in objects))


async def _apply(resource: Any, namespace: str, manifest: dict[str, Any], places: asyncio.Semaphore) -> None:
    async with places:
        await resource.server_side_apply(manifest, namespace=namespace, field_manager="bench", force_conflicts=True)


async def _all_children(dynamic: Any, namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """Wait until every Agent has a child of every kind, counting cheaply, and return them."""
    for kind, version in _KINDS.items():
        resource = await dynamic.resources.get(api_version=version, kind=kind)
        while True:
            # The API server counts what is left only where nothing is selected by label.
            found = await resource.get(namespace=namespace, limit=1)
            if len(found.items) + (found.metadata.remainingItemCount or 0) >= _AGENTS + _OTHERS.get(kind, 0):
                break
            await asyncio.sleep(0.02)
    children = []
    for kind, version in _KINDS.items():
        resource = await dynamic.resources.get(api_version=version, kind=kind)
        found = await resource.get(namespace=namespace, label_selector=_MANAGED)
        children += [(version, each.to_dict() | {"kind": kind, "apiVersion": version}) for each in found.items]
    return children


def _copy(child: dict[str, Any], namespace: str) -> dict[str, Any]:
    metadata = {name: value for name, value in child["metadata"].items() if name not in _SERVER_MADE}
    copy = {name: value for name, value in child.items() if name != "status"} | {"metadata": metadata}
    metadata["namespace"] = namespace
    if copy["kind"] == "Service":
        copy["spec"] = {name: copy["spec"][name] for name in ("ports", "selector", "type") if name in copy["spec"]}
    return copy


def _agent(name: str) -> dict[str, Any]:
    model = {"provider": "openai-compatible", "id": "m", "baseURL": "http://model:8080/v1"}
    spec = {"systemPrompt": "You are a calculator.", "model": model}
    return {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}


@contextmanager
def _operator(server: ApiServer, namespace: str) -> Iterator[None]:
    port = "18099"
    environment = os.environ | {
        "KUBECONFIG": str(server.kubeconfig),
        "PYTHONPATH": str(REPOSITORY / "operator" / "src"),
        "ROPEWALK_AGENT_IMAGE": "ropewalk.dev/agent:bench",
        "ROPEWALK_WATCH_NAMESPACES": namespace,
        "ROPEWALK_PORT": port,
        "ROPEWALK_LOG_LEVEL": "warning",
        "POD_NAME": "bench",
    }
    with subprocess.Popen([sys.executable, "-m", "ropewalk_operator"], env=environment) as operator:
        try:
            wait_until(lambda: _ready(port), "the operator", seconds=60)
            yield
        finally:
            operator.terminate()


def _ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
