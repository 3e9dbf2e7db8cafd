"""MCP servers that come as a package: installed at the start of a real pod, from an index that spec.pod.env names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.layout import NODE_ADDRESS
from e2e_cluster import Workspace, agent, mcpserver
from mcp_stdio_index import package_index
from waiting import until


@pytest.fixture(scope="module")
def env() -> Iterator[list[dict[str, str]]]:
    """Variables for the pod that name an index of ours."""
    with package_index(NODE_ADDRESS) as url:
        yield [
            {"name": "UV_DEFAULT_INDEX", "value": f"{url}/simple"},
            {"name": "NPM_CONFIG_REGISTRY", "value": f"{url}/npm/"},
        ]


def test_a_python_package_is_installed_in_the_pod_and_its_tools_are_discovered(
    space: Workspace, env: list[dict[str, str]]
) -> None:
    space.apply(mcpserver("tiny", stdio={"package": {"python": "tiny-mcp==1.0"}}, pod={"env": env}))
    space.wait("mcpserver/tiny")
    assert "echo" in [tool["name"] for tool in space.get("mcpserver/tiny")["status"]["tools"]]


def test_a_node_package_is_installed_in_the_pod_and_an_agent_uses_it(
    space: Workspace, env: list[dict[str, str]]
) -> None:
    stdio = {"package": {"node": "@tiny/node-mcp@1.0.0"}, "args": ["--flag", "value"]}
    space.apply(mcpserver("node", stdio=stdio, pod={"env": env}), agent("noder", "node"))
    space.wait("agent/noder")
    answer = space.ask("noder", "Which arguments were you given? Use the tool arguments.")
    assert '["--flag","value"]' in answer["response"]


def test_a_package_that_the_index_lacks_is_told_in_the_log_and_the_server_is_not_ready(
    space: Workspace, env: list[dict[str, str]]
) -> None:
    space.apply(mcpserver("absent", stdio={"package": {"python": "tiny-mcp==9.9"}}, pod={"env": env}))
    space.wait("mcpserver/absent", "Available", "False")
    until(
        lambda: "the index does not have it" in space.kubectl("logs", "deployment/absent-mcp"),
        "the log names the cause",
    )
    (pod,) = space.pods("app.kubernetes.io/instance=absent")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
