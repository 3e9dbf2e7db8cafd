"""The examples, applied as they are, answer with real tool calls."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from e2e_cluster import Workspace, kubectl
from e2e_examples import apply_examples, delete_cluster_wide


@pytest.fixture(scope="module")
def examples(space: Workspace) -> Iterator[Workspace]:
    apply_examples(space, "calculator", "cluster-helper")
    space.wait("agent/calculator")
    space.wait("agent/cluster-helper")
    yield space
    delete_cluster_wide(space, "cluster-helper")


def test_the_calculator_adds_with_its_tool(examples: Workspace) -> None:
    answer = examples.ask("calculator", "What is 21.5 plus 20.5?")
    assert "42" in answer["response"]
    assert answer["tools_used"] == ["add"]
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["output_tokens"] > 0


def test_the_cluster_helper_names_the_pods_that_kubectl_names(examples: Workspace) -> None:
    pods = kubectl("get", "pods", "-n", "kube-system", "-o", "jsonpath={.items[*].metadata.name}").split()
    answer = examples.ask("cluster-helper", "Which pods run in the namespace kube-system?")
    assert pods
    assert all(pod in answer["response"] for pod in pods)
    assert "pod_management" in answer["tools_used"]


def test_a_streamed_answer_shows_text_and_tools_as_they_come(examples: Workspace) -> None:
    events: list[tuple[str, dict[str, object]]] = []
    name = ""
    with httpx.stream(
        "POST",
        f"{examples.url('calculator-agent')}/query",
        json={"query": "What is 3 times 4?"},
        headers={"Accept": "text/event-stream"},
        timeout=30,
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    names = [name for name, _ in events]
    assert names.index("tool_start") < names.index("tool_end") < names.index("text")
    assert names[-1] == "result"
    assert "12" in str(events[-1][1]["response"])


def test_a_session_remembers_the_turn_before(examples: Workspace) -> None:
    first = examples.ask("calculator", "What is 2 plus 3?", session_id="memory")
    second = examples.ask("calculator", "What did I ask before?", session_id="memory")
    assert first["session_id"] == second["session_id"] == "memory"
    assert "2 plus 3" in second["response"]


def test_the_agent_lists_its_servers_and_tools(examples: Workspace) -> None:
    servers = httpx.get(f"{examples.url('calculator-agent')}/tools").json()["servers"]
    assert [server["state"] for server in servers] == ["connected"]
    names = {tool if isinstance(tool, str) else tool["name"] for tool in servers[0]["tools"]}
    assert names == {"add", "subtract", "multiply", "divide", "power"}


def test_kubectl_shows_agents_and_servers_in_one_list(examples: Workspace) -> None:
    shown = examples.kubectl("get", "ropewalk")
    assert "agent.ropewalk.dev/calculator" in shown
    assert "mcpserver.ropewalk.dev/math" in shown


def test_discovered_tools_stand_in_the_status(examples: Workspace) -> None:
    status = examples.get("mcpserver/math")["status"]
    assert status["toolCount"] == 5
    assert {tool["name"] for tool in status["tools"]} == {"add", "subtract", "multiply", "divide", "power"}
    assert all(tool["hash"] for tool in status["tools"])
