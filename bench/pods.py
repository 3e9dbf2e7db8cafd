"""In real pods of the local cluster: from `kubectl apply` to Ready, and the memory of an idle agent."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from kubernetes import client, config, watch

from cluster.layout import REPOSITORY, Layout
from e2e_cluster import Workspace, agent, eventually, install_chart, kubectl, mcpserver

_AGENTS = 20


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    install_chart()
    with namespace("ropewalk-bench") as space:
        space.apply(mcpserver(), agent("warm", "math"))
        space.wait("agent/warm")
        times = []
        for number in range(_AGENTS):
            times.append(_apply_to_ready(space, f"bench-{number}"))
            space.kubectl("delete", f"agent/bench-{number}", "--wait")
            name = f"bench-{number}"
            eventually(lambda name=name: not _pod_names(space, name), "the pod is gone")  # type: ignore[misc]
        pss = _idle_pss(space, "warm")
    times.sort()
    p50, p95 = statistics.median(times), times[round(0.95 * (len(times) - 1))]
    return [
        (f"apply → Ready of an Agent with an MCP server, p50 of {_AGENTS}", f"{p50:.2f} s", "2.0 s"),
        (f"the same, p95 (minimum {times[0]:.2f} s, maximum {times[-1]:.2f} s)", f"{p95:.2f} s", "3.0 s"),
        ("memory of an idle agent pod (PSS), one MCP server", f"{pss:.0f} MiB", "≤ 90 MiB"),
    ]


def _apply_to_ready(space: Workspace, name: str) -> float:
    """Seconds from sending the Agent to the API server until a watch, open since before, sees Ready=True."""
    api = client.CustomObjectsApi(config.new_client_from_config(str(Layout.default().kubeconfig)))
    where = ("ropewalk.dev", "v1alpha1", space.name, "agents")
    listed = cast(dict[str, Any], api.list_namespaced_custom_object(*where))
    version = listed["metadata"]["resourceVersion"]
    began = time.perf_counter()
    api.create_namespaced_custom_object(*where, agent(name, "math"))
    events = watch.Watch().stream(
        api.list_namespaced_custom_object, *where, resource_version=version, timeout_seconds=60,
        field_selector=f"metadata.name={name}",
    )  # fmt: skip
    for event in cast(Iterator[dict[str, Any]], events):
        conditions = event["object"].get("status", {}).get("conditions", [])
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            return time.perf_counter() - began
    raise RuntimeError(f"{name} was not Ready within a minute")


def _pod_names(space: Workspace, name: str) -> list[str]:
    return space.kubectl("get", "pods", "-l", f"ropewalk.dev/agent={name}", "-o", "name").split()


def _idle_pss(space: Workspace, name: str) -> float:
    """Proportional set size in MiB (proc(5), smaps_rollup) of the agent's process, read on the node."""
    (pod,) = space.pods(f"ropewalk.dev/agent={name}")
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    for process in Path("/proc").glob("[0-9]*"):
        if container in _read(process / "cgroup"):
            return int(re.findall(r"^Pss:\s+(\d+) kB", _read(process / "smaps_rollup"), re.M)[0]) / 1024
    raise RuntimeError(f"no process of container {container}")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextmanager
def namespace(name: str) -> Iterator[Workspace]:
    """A namespace of that name with the demo model in it, which ends with the block."""
    space = Workspace(name)
    kubectl("create", "namespace", name)
    try:
        space.kubectl("apply", "-f", str(REPOSITORY / "examples" / "demo-model"))
        space.kubectl("rollout", "status", "deployment/demo-model", "--timeout=60s")
        yield space
    finally:
        kubectl("delete", "namespace", name)
