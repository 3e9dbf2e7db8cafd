"""Discovery beside a real API server: what MCPServers and Agents say of real MCP servers on loopback, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from agent_mcp import ADD, Asked, Rogue
from apiserver import ApiServer
from operator_namespace import Namespace
from operator_process import OperatorProcess
from threaded import threaded
from waiting import until

AGENT_ADDRESS = "127.77.0.1"
"""A loopback address on which nobody else has the agents' port."""


@pytest.fixture(scope="module")
def operator(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One whose slow timer is not slow."""
    log = tmp_path_factory.mktemp("operator") / "log"
    process = OperatorProcess(server.kubeconfig, log, ROPEWALK_RESYNC_SECONDS="2").start()
    try:
        yield process
    finally:
        process.stop()


def reason(namespace: Namespace, type_: str, name: str = "math", kind: str = "mcpserver") -> str:
    return str(namespace.condition(kind, name, type_).get("reason", ""))


def message(namespace: Namespace, type_: str, name: str = "math", kind: str = "mcpserver") -> str:
    return str(namespace.condition(kind, name, type_).get("message", ""))


def status(namespace: Namespace, name: str = "math") -> dict[str, Any]:
    found: dict[str, Any] = (namespace.get("mcpserver", name) or {}).get("status", {})
    return found


def events(namespace: Namespace, why: str) -> list[str]:
    items = json.loads(namespace.kubectl("get", "events", "-o", "json"))["items"]
    return [item["message"] for item in items if item["reason"] == why]


def math(*names: str) -> MCPServer:
    """A real MCP server with tools of these names."""
    server = MCPServer("math", version="7")
    for name in names:
        server.add_tool(lambda a: a, name=name, description=f"Does {name}.")
    return server


def http_app(server: MCPServer) -> Any:
    return server.streamable_http_app(stateless_http=True, json_response=True, host="127.0.0.1")


def test_the_tools_of_a_remote_server_are_in_its_status_and_a_change_is_told(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    server = math("add", "divide", "secret")
    with threaded(http_app(server)) as base:
        namespace.apply("MCPServer", "math", {"remote": {"url": f"{base}/mcp"}, "tools": {"deny": ["secret"]}})
        until(lambda: reason(namespace, "Ready") == "Ready", "the server is ready")
        found = status(namespace)
        assert [tool["name"] for tool in found["tools"]] == ["add", "divide"]
        assert found["tools"][0]["description"] == "Does add."
        assert (found["toolCount"], found["protocolVersion"]) == (2, "2026-07-28")
        assert found["serverInfo"] == {"name": "math", "version": "7"}
        said = message(namespace, "ToolsDiscovered")
        assert said == "the server listed 3 tools; spec.tools keeps 1 of them from agents"
        assert until(lambda: events(namespace, "ToolsDiscovered"), "it is told") == ["2 tools: add, divide"]
        server.add_tool(lambda a, b: a, name="divide2", description="New.")
        server.remove_tool("add")
        # In one Event, or in two when the operator has looked in between.
        told = "added divide2; removed add"
        until(lambda: "; ".join(sorted(events(namespace, "ToolsChanged"))) == told, "the change is told")
        assert [tool["name"] for tool in status(namespace)["tools"]] == ["divide", "divide2"]
    until(lambda: reason(namespace, "ToolsDiscovered") == "DiscoveryFailed", "the end is noticed")
    until(lambda: "it cannot be reached: Connection refused" in message(namespace, "Ready"), "and what it is")
    assert [tool["name"] for tool in status(namespace)["tools"]] == ["divide", "divide2"], "what was known stays"


def test_of_five_hundred_tools_256_are_in_the_status_and_all_are_counted(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    tools = [{**ADD, "name": f"tool_{number:03}", "description": "d" * 2000} for number in range(500)]
    with threaded(Rogue(*tools)) as base:
        namespace.apply("MCPServer", "math", {"remote": {"url": f"{base}/mcp"}})
        until(lambda: reason(namespace, "Ready") == "Ready", "the server is ready")
        found = status(namespace)
        assert (found["toolCount"], len(found["tools"])) == (500, 256)
        assert "status.tools holds the first 256" in message(namespace, "ToolsDiscovered")
        assert "500" in namespace.kubectl("get", "mcpserver", "math")


def test_a_tool_without_an_object_schema_is_named_and_the_others_are_there(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    with threaded(Rogue(ADD, {"name": "bad", "inputSchema": {"type": "string"}})) as base:
        namespace.apply("MCPServer", "math", {"remote": {"url": f"{base}/mcp"}})
        until(lambda: reason(namespace, "Ready") == "Ready", "the server is ready")
        assert "bad (its inputSchema is not of type object)" in message(namespace, "ToolsDiscovered")
        assert [tool["name"] for tool in status(namespace)["tools"]] == ["add"]


def always(**answer: Any) -> Rogue:
    rogue = Rogue()

    async def before(asked: Asked) -> bool:
        await asked.answer(**answer)
        return True

    rogue.before = before
    return rogue


FAULTS: list[tuple[str, Callable[[], Rogue], str]] = [
    (
        "redirect",
        lambda: always(body=b"", status=307, location="http://169.254.169.254/latest/meta-data?token=s3cret"),
        "it redirects to http://169.254.169.254/latest/meta-data by HTTP 307, which is not followed; "
        "put the final address into spec.remote.url",
    ),
    (
        "unauthorized",
        lambda: always(body=b'{"error": {"message": "who are you?"}}', status=401),
        "it answered HTTP 401 Unauthorized: who are you?",
    ),
    ("page", lambda: always(body=b"<html>", content_type="text/html"), "it answered text/html where JSON"),
    ("large", lambda: always(body=b"x" * 50_000_000), "larger than 10000000 bytes, which is not read"),
]


@pytest.mark.parametrize(("make", "said"), [pytest.param(*fault[1:], id=fault[0]) for fault in FAULTS])
def test_a_fault_is_told_in_the_status(
    operator: OperatorProcess, namespace: Namespace, make: Callable[[], Rogue], said: str
) -> None:
    with threaded(make()) as base:
        namespace.apply("MCPServer", "math", {"remote": {"url": f"{base}/mcp"}})
        # An answer that comes too late is told of as that first.
        until(lambda: said in message(namespace, "ToolsDiscovered"), "it is told")
        until(lambda: said in message(namespace, "Ready"), "in the summary too")
        assert reason(namespace, "ToolsDiscovered") == "DiscoveryFailed"
        assert "s3cret" not in str(status(namespace))


def reporting(state: str, error: str | None) -> Any:
    """An agent pod that says this of the server math."""
    server = {
        "name": "math", "required": True, "state": state, "last_error": error, "protocol_version": "2026-07-28",
        "server_info": {"name": "far", "version": "3"}, "has_session": False, "left_out": [],
        "definitions": [{"name": "add", "description": "Adds.", "hash": "sha256:1"}] if error is None else [],
    }  # fmt: skip
    bodies = {
        "/tools": {"servers": [server]},
        "/ready": {"ready": error is None, "reasons": [f"mcp server math: {error}"]},
    }

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            head = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": json.dumps(bodies[scope["path"]]).encode()})

    return serve


def run(namespace: Namespace, pod: str, *, ready: bool) -> None:
    """Say what a kubelet would say of an agent's pod that runs."""
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
    container = {
        "name": "agent", "ready": ready, "restartCount": 0, "image": "i", "imageID": "",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }  # fmt: skip
    said = {"phase": "Running", "podIP": AGENT_ADDRESS, "conditions": conditions, "containerStatuses": [container]}
    namespace.kubectl("patch", pod, "--subresource=status", "--type=merge", "-p", json.dumps({"status": said}))


def test_a_server_that_wants_a_token_is_known_by_what_its_agents_report(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    asked = Rogue()
    with threaded(asked) as base:
        auth = {"bearerTokenSecretRef": {"name": "token", "key": "token"}}
        namespace.apply("MCPServer", "math", {"remote": {"url": f"{base}/mcp"}, "auth": auth})
        until(lambda: reason(namespace, "ToolsDiscovered") == "NeedsAnAgent", "it waits for an agent")
        assert namespace.condition("mcpserver", "math", "Ready")["status"] == "True"
        namespace.agent(mcpServers=[{"name": "math"}])
        pod = until(lambda: namespace.kubectl("get", "pod", "-o", "name").strip(), "the agent does not wait")
        refused = "connecting since 10:00 (it answered HTTP 403 Forbidden)"
        with threaded(reporting("connecting", refused), host=AGENT_ADDRESS, port=8080):
            run(namespace, pod, ready=False)
            until(lambda: reason(namespace, "ToolsDiscovered") == "DiscoveryFailed", "the failure is told")
            until(lambda: message(namespace, "ToolsDiscovered") == f'agent "calc": {refused}', "in the agent's words")
            until(lambda: "HTTP 403" in message(namespace, "ToolsReady", "calc", "agent"), "the agent says so too")
        with threaded(reporting("connected", None), host=AGENT_ADDRESS, port=8080):
            run(namespace, pod, ready=True)
            until(lambda: reason(namespace, "ToolsDiscovered") == "ToolsListed", "the success is told")
            assert status(namespace)["tools"] == [{"name": "add", "description": "Adds.", "hash": "sha256:1"}]
            assert message(namespace, "ToolsDiscovered") == 'the server listed 1 tool; as agent "calc" reports'
            until(lambda: reason(namespace, "Ready", "calc", "agent") == "Ready", "the agent is ready")
    assert asked.asked == [], "the operator has no token and does not ask"


def test_tools_of_equal_names_are_told_at_the_agent_until_a_prefix_settles_it(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    with threaded(http_app(math("add", "only_here"))) as one, threaded(http_app(math("add"))) as two:
        namespace.apply("MCPServer", "math", {"remote": {"url": f"{one}/mcp"}})
        namespace.apply("MCPServer", "calc2", {"remote": {"url": f"{two}/mcp"}})
        namespace.agent(mcpServers=[{"name": "math"}, {"name": "calc2"}])
        until(lambda: reason(namespace, "ToolsReady", "calc", "agent") == "ToolNamesClash", "the clash is told")
        assert '"add" (math and calc2)' in message(namespace, "ToolsReady", "calc", "agent")
        namespace.agent(mcpServers=[{"name": "math"}, {"name": "calc2", "prefix": "c_"}])
        until(lambda: reason(namespace, "ToolsReady", "calc", "agent") == "ServersReady", "it is settled")
