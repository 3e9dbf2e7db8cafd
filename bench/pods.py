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
from e2e_cluster import Workspace, agent, image, install_chart, kubectl, mcpserver
from waiting import until

_AGENTS = 20
_STDIO_SERVERS = 10
_STDIO = {"command": ["/opt/ropewalk/bin/ropewalk-mcp"], "args": ["--stdio"]}


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    install_chart()
    with namespace("ropewalk-bench") as space:
        space.apply(mcpserver(), agent("warm", "math"))
        space.wait("agent/warm")
        times = sorted(_apply_to_ready(space, agent(f"bench-{number}", "math")) for number in range(_AGENTS))
        stdio = {"stdio": {"image": image("mcp-math"), **_STDIO}}
        servers = sorted(
            _apply_to_ready(space, mcpserver(f"bench-{number}", **stdio)) for number in range(_STDIO_SERVERS)
        )
        pss = _idle_pss(space, "warm")
    p50, p95 = statistics.median(times), times[round(0.95 * (len(times) - 1))]
    return [
        (f"apply → Ready of an Agent with an MCP server, p50 of {_AGENTS}", f"{p50:.2f} s", "2.0 s"),
        (f"the same, p95 (minimum {times[0]:.2f} s, maximum {times[-1]:.2f} s)", f"{p95:.2f} s", "3.0 s"),
        (
            f"apply → Ready of a stdio MCPServer, p50 of {_STDIO_SERVERS} "
            f"(minimum {servers[0]:.2f} s, maximum {servers[-1]:.2f} s)",
            f"{statistics.median(servers):.2f} s",
            "3.0 s",
        ),
        ("memory of an idle agent pod (PSS), one MCP server", f"{pss:.0f} MiB", "≤ 90 MiB"),
    ]


def _apply_to_ready(space: Workspace, resource: dict[str, Any]) -> float:
    """Seconds from sending a resource to the API server until a watch, open since before, sees Ready=True.

    It is deleted again; this returns when its pods are gone.
    """
    api = client.CustomObjectsApi(config.new_client_from_config(str(Layout.default().kubeconfig)))
    kind, name = resource["kind"].lower(), resource["metadata"]["name"]
    where = ("ropewalk.dev", "v1alpha1", space.name, f"{kind}s")
    listed = cast(dict[str, Any], api.list_namespaced_custom_object(*where))
    version = listed["metadata"]["resourceVersion"]
    began = time.perf_counter()
    api.create_namespaced_custom_object(*where, resource)
    events = watch.Watch().stream(
        api.list_namespaced_custom_object, *where, resource_version=version, timeout_seconds=60,
        field_selector=f"metadata.name={name}",
    )  # fmt: skip
    for event in cast(Iterator[dict[str, Any]], events):
        conditions = event["object"].get("status", {}).get("conditions", [])
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            seconds = time.perf_counter() - began
            space.kubectl("delete", f"{kind}/{name}", "--wait")
            until(lambda: not _pod_names(space, kind, name), "the pods are gone")
            return seconds
    raise RuntimeError(f"{name} was not Ready within a minute")


def _pod_names(space: Workspace, kind: str, name: str) -> list[str]:
    return space.kubectl("get", "pods", "-l", f"ropewalk.dev/{kind}={name}", "-o", "name").split()


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
        kubectl("delete", "namespace", name, "--timeout=5m")
