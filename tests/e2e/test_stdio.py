"""Stdio servers in real pods: in an image without a libc, in an image of ours, and what a crash does."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from cluster.node import PAUSE_IMAGE
from e2e_cluster import Workspace, image, mcpserver
from waiting import until

# Run by the bridge's own interpreter in an image that has one static program and nothing else: no libc, no shell.
SERVER = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    method, params = request["method"], request.get("params") or {}
    answers = {
        "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "bare"}},
        "tools/list": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("pid", "crash")]},
        "tools/call": {"content": [{"type": "text", "text": json.dumps([os.getpid(), os.listdir("/")])}]},
    }
    if params.get("name") == "crash":
        os._exit(9)
    result = answers.get(method)
    answer = {"result": result} if result else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)
"""
BARE = {"image": PAUSE_IMAGE, "command": ["/catatonit", "--", "/ropewalk/bin/python", "-c"], "args": [SERVER]}


class Client:
    """A client of the older era."""

    def __init__(self, url: str) -> None:
        headers = {"accept": "application/json, text/event-stream", "host": "localhost"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=30)
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
        answer = self.post("initialize", params)
        assert answer.status_code == 200, answer.text
        self.server = answer.json()["result"]["serverInfo"]["name"]
        self.http.headers["mcp-session-id"] = answer.headers["mcp-session-id"]

    def post(self, method: str, params: Any = None) -> httpx.Response:
        return self.http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})

    def text(self, tool: str, **arguments: Any) -> str:
        answer = self.post("tools/call", {"name": tool, "arguments": arguments})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["result"]["content"][0]["text"])

    def call(self, tool: str) -> Any:
        return json.loads(self.text(tool))


@pytest.fixture(scope="module")
def bare(space: Workspace) -> str:
    space.apply(
        mcpserver("bare", stdio=BARE), mcpserver("own", stdio=BARE | {"sessionMode": "perSession", "maxSessions": 2})
    )
    space.wait("mcpserver/bare")
    space.wait("mcpserver/own")
    return space.url("bare-mcp")


def test_a_stdio_server_runs_in_an_image_without_libc_and_its_tools_are_discovered(space: Workspace, bare: str) -> None:
    status = space.get("mcpserver/bare")["status"]
    assert sorted(tool["name"] for tool in status["tools"]) == ["crash", "pid"]
    client = Client(bare)
    assert client.server == "bare"
    _, root = client.call("pid")
    # Nothing but what Kubernetes, the runtime and the bridge have put there.
    assert "catatonit" in root
    assert not {"lib", "lib64", "usr", "bin"} & set(root)


def test_a_crash_is_told_and_mended_without_a_restart_of_the_pod(space: Workspace, bare: str) -> None:
    client = Client(bare)
    before, _ = client.call("pid")
    crashed = client.post("tools/call", {"name": "crash"})
    assert crashed.status_code == 503
    assert "exited with code 9" in crashed.json()["error"]["message"]
    after, _ = until(lambda: client.call("pid"), "the next process")
    assert after != before
    (pod,) = space.pods("app.kubernetes.io/instance=bare")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    metrics = httpx.get(f"{bare}/metrics").text
    assert 'ropewalk_mcp_stdio_child_restarts_total{reason="crashed"} 1.0' in metrics


def test_each_session_has_its_own_process_and_the_third_is_told_to_wait(space: Workspace, bare: str) -> None:
    url = space.url("own-mcp")
    one, two = Client(url), Client(url)
    assert one.call("pid")[0] != two.call("pid")[0]
    with pytest.raises(AssertionError, match="2 sessions, which is the most"):
        Client(url)
    one.http.delete("/mcp")
    until(lambda: Client(url), "a place")


def test_a_server_that_ships_runs_over_stdio_in_its_own_image(space: Workspace) -> None:
    command = {"image": image("mcp-math"), "command": ["/opt/ropewalk/bin/ropewalk-mcp"], "args": ["--stdio"]}
    space.apply(mcpserver("math", stdio=command))
    space.wait("mcpserver/math")
    client = Client(space.url("math-mcp"))
    assert client.text("add", a=2, b=40) == "2 + 40 = 42"
    log = space.kubectl("logs", "deployment/math-mcp")
    assert all(json.loads(line) for line in log.splitlines())


def test_a_command_that_is_not_in_the_image_is_named_in_the_status(space: Workspace) -> None:
    space.apply(mcpserver("absent", stdio={"image": PAUSE_IMAGE, "command": ["/no/such/program"]}))
    condition = space.wait("mcpserver/absent", "Available", "False")
    assert condition["reason"]
    until(lambda: "there is no program '/no/such/program'" in space.kubectl("logs", "deployment/absent-mcp"), "its log")
