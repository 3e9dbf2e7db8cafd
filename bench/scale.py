"""200 Agents through the operator beside the very same children applied by a bare client, against a real API server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient

from apiserver import ApiServer
from bench.serving import until_ready
from cluster.layout import REPOSITORY

_AGENTS, _AT_ONCE, _ROUNDS = 200, 32, 2
_KINDS = {
    "ConfigMap": "v1",
    "ServiceAccount": "v1",
    "Service": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Deployment": "apps/v1",
}
_OTHERS = {"ConfigMap": 1, "ServiceAccount": 1}
"""Every namespace has kube-root-ca.crt and default, where controllers run."""
_MANAGED = "app.kubernetes.io/managed-by=ropewalk-operator"
_SERVER_MADE = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences")
_NAMESPACE = "bench"


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    return [_row(controllers=True), _row(controllers=False)]


def _row(*, controllers: bool) -> tuple[str, str, str]:
    mine, bare = zip(*(asyncio.run(_compare(controllers)) for _ in range(_ROUNDS)), strict=True)
    figure = f"{min(mine):.2f} s against {min(bare):.2f} s: {min(mine) / min(bare):.2f} ×"
    where = "Kubernetes' controllers react meanwhile" if controllers else "nothing else runs"
    return f"{_AGENTS} Agents until all children exist, {where}, best of {_ROUNDS}", figure, "≤ 1.5 ×"


async def _compare(controllers: bool) -> tuple[float, float]:
    """Seconds that the operator took, and seconds that the bare client took for the same objects."""
    # An API server for each, so that neither pays for what the other has left to do.
    async with _api_server(controllers) as (server, dynamic):
        for crd in ("agent", "mcpserver"):
            server.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds" / f"{crd}.yaml"))
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        with _operator(server):
            agents = [("ropewalk.dev/v1alpha1", _agent(f"agent-{index:03}")) for index in range(_AGENTS)]
            began = time.perf_counter()
            await _apply_all(dynamic, agents)
            await _until_all_exist(dynamic, _OTHERS if controllers else {})
            mine = time.perf_counter() - began
        children = await _children(dynamic)
    async with _api_server(controllers) as (server, dynamic):
        copies = [(version, _copy(child)) for version, child in children]
        began = time.perf_counter()
        await _apply_all(dynamic, copies)
        bare = time.perf_counter() - began
    return mine, bare


@asynccontextmanager
async def _api_server(controllers: bool) -> AsyncIterator[tuple[ApiServer, Any]]:
    server = ApiServer().start(controllers=controllers)
    try:
        server.kubectl("create", "namespace", _NAMESPACE)
        for other in ("serviceaccount/default", "configmap/kube-root-ca.crt") if controllers else ():
            server.kubectl("wait", "-n", _NAMESPACE, "--for=create", other, "--timeout=30s")
        async with client.ApiClient(await _configuration(server)) as api:
            yield server, await DynamicClient(api)
    finally:
        server.stop()


async def _configuration(server: ApiServer) -> client.Configuration:
    configuration = client.Configuration()
    await config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
    return configuration


async def _apply_all(dynamic: Any, objects: list[tuple[str, dict[str, Any]]]) -> None:
    places = asyncio.Semaphore(_AT_ONCE)
    resources = {
        kind: await dynamic.resources.get(api_version=version, kind=kind)
        for kind, version in {each["kind"]: version for version, each in objects}.items()
    }

    async def apply(manifest: dict[str, Any]) -> None:
        async with places:
            await resources[manifest["kind"]].server_side_apply(
                manifest, namespace=_NAMESPACE, field_manager="bench", force_conflicts=True
            )

    await asyncio.gather(*(apply(each) for _, each in objects))


async def _until_all_exist(dynamic: Any, others: dict[str, int]) -> None:
    """Wait until every Agent has a child of every kind, counting cheaply and seldom: it is the operator's time."""
    for kind, version in reversed(_KINDS.items()):  # the Deployments first: when they exist, so does all else
        resource = await dynamic.resources.get(api_version=version, kind=kind)
        while True:
            # The API server counts what is left only where nothing is selected by label.
            found = await resource.get(namespace=_NAMESPACE, limit=1)
            if len(found.items) + (found.metadata.remainingItemCount or 0) >= _AGENTS + others.get(kind, 0):
                break
            await asyncio.sleep(0.05)


async def _children(dynamic: Any) -> list[tuple[str, dict[str, Any]]]:
    """All children with their API versions, in the order in which they were made."""
    children = []
    for kind, version in _KINDS.items():
        resource = await dynamic.resources.get(api_version=version, kind=kind)
        found = await resource.get(namespace=_NAMESPACE, label_selector=_MANAGED)
        children += [(version, each.to_dict() | {"kind": kind, "apiVersion": version}) for each in found.items]
    # Agent by Agent, each Deployment after its settings. Kind by kind would spare the bare client the controllers,
    # which begin with the first Deployment.
    return sorted(children, key=lambda each: (each[1]["metadata"]["name"], each[1]["kind"] == "Deployment"))


def _copy(child: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in child["metadata"].items() if name not in _SERVER_MADE}
    copy = {name: value for name, value in child.items() if name != "status"} | {"metadata": metadata}
    if copy["kind"] == "Service":
        copy["spec"] = {name: copy["spec"][name] for name in ("ports", "selector", "type") if name in copy["spec"]}
    return copy


def _agent(name: str) -> dict[str, Any]:
    model = {"provider": "openai-compatible", "id": "m", "baseURL": "http://model:8080/v1"}
    spec = {"systemPrompt": "You are a calculator.", "model": model}
    return {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}


@contextmanager
def _operator(server: ApiServer) -> Iterator[None]:
    port = "18099"
    environment = os.environ | {
        "KUBECONFIG": str(server.kubeconfig),
        "PYTHONPATH": str(REPOSITORY / "operator" / "src"),
        "ROPEWALK_AGENT_IMAGE": "ropewalk.dev/agent:bench",
        "ROPEWALK_WATCH_NAMESPACES": _NAMESPACE,
        "ROPEWALK_PORT": port,
        "ROPEWALK_LOG_LEVEL": "warning",
        "POD_NAME": "bench",
    }
    with subprocess.Popen([sys.executable, "-m", "ropewalk_operator"], env=environment) as operator:
        try:
            until_ready(int(port), operator)
            yield
        finally:
            operator.terminate()
