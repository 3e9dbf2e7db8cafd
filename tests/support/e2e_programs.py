"""Small servers for the local cluster that are no image: a program of tests/support, run by an image's own Python."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from e2e_cluster import Json, Workspace, image, mcpserver

_PYTHON = "/opt/ropewalk/bin/python"
_COUNTERS = (
    "ropewalk_mcp_tool_calls_total{",
    'ropewalk_mcp_stdio_requests_total{method="tools/call"',
)
_NUMBERS = {"type": "object", "properties": {name: {"type": "number"} for name in "ab"}, "required": ["a", "b"]}


def tool(name: str, description: str = "Add two numbers.", **fields: object) -> Json:
    """The definition of a tool that takes a and b, and promises nothing about being called twice."""
    return {"name": name, "description": description, "inputSchema": _NUMBERS, **fields}


def odd_server(name: str, *tools: Json, in_image: str = "mcp-math", spec: Json | None = None, **told: object) -> Json:
    """An MCPServer that runs e2e_odd_server.py; `told` is how it behaves, `spec` what else the resource says."""
    program, argument = _source("e2e_odd_server"), json.dumps({"tools": tools, **told})
    body = {"image": image(in_image), "command": [_PYTHON, "-c", program], "args": [argument]}
    return mcpserver(name, **body, **(spec or {}))


def stubborn_model(space: Workspace) -> Json:
    """Start e2e_stubborn_model.py; the model for an Agent that asks it."""
    labels = {"app.kubernetes.io/name": "stubborn-model"}
    container = {
        "name": "model",
        "image": image("mcp-math"),
        "command": [_PYTHON, "-c", _source("e2e_stubborn_model")],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    meta = {"name": "stubborn-model", "labels": labels}
    selector = {"matchLabels": labels}
    space.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
         "spec": {"selector": selector, "template": template}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta,
         "spec": {"selector": labels, "ports": [{"port": 8080}]}},
    )  # fmt: skip
    space.kubectl("rollout", "status", "deployment/stubborn-model", "--timeout=60s")
    return {"provider": "openai-compatible", "id": "stubborn", "baseURL": "http://stubborn-model:8080/v1"}


def calls_by_replica(space: Workspace, server: str, *, of: str = "") -> dict[str, int]:
    """How many tool calls each pod of an MCPServer has served by its own count; `of`: those of this tool only.

    A server that ships counts its tools' calls, the stdio bridge the requests of its clients.
    """
    counts = {}
    for pod in space.pods(f"ropewalk.dev/mcpserver={server}"):
        lines = httpx.get(f"http://{pod['status']['podIP']}:8000/metrics", timeout=5).text.splitlines()
        counted = [line for line in lines if line.startswith(_COUNTERS) and of in line]
        counts[str(pod["metadata"]["name"])] = int(sum(float(line.rpartition(" ")[2]) for line in counted))
    return counts


def _source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.py").read_text()
