"""The examples of single servers become ready and answer with real tool calls, without the internet."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from functools import partial

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.layout import NODE_ADDRESS
from e2e_cluster import Workspace
from e2e_examples import apply_examples, delete_cluster_wide, start_stand_in
from waiting import until

_TOKEN = "a-token-of-this-test"
_SEARCH = {"websearch": {"ROPEWALK_SEARCH_URL": "http://search-stand-in:8080"}}


@pytest.fixture(scope="module")
def remote() -> Iterator[str]:
    """The address of an MCP server on this machine that answers only those who bring the token."""
    server = MCPServer("elsewhere")

    @server.tool()
    def reverse_text(text: str) -> str:
        """Reverse a text."""
        return text[::-1]

    app = _with_token(server.streamable_http_app(stateless_http=True, json_response=True, host=NODE_ADDRESS))
    running = uvicorn.Server(uvicorn.Config(app, host=NODE_ADDRESS, port=0, log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    until(lambda: running.started, "the remote server listens")
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"http://{NODE_ADDRESS}:{port}/mcp"
    running.should_exit = True
    thread.join()


def _with_token(app: ASGIApp) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"authorization", f"Bearer {_TOKEN}".encode()) not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return guarded


def test_agents_share_a_model_and_an_edit_of_it_rolls_each_once(space: Workspace) -> None:
    apply_examples(space, "shared-model")
    agents = {"timekeeper": "current_time", "number-lover": "fibonacci"}
    for agent in agents:
        space.wait(f"agent/{agent}")
    space.kubectl("patch", "model/house", "--type=merge", "-p", '{"spec": {"parameters": {"temperature": 0}}}')
    for agent, tool in agents.items():
        until(partial(is_second, space, agent), f"{agent} rolls")
        space.kubectl("rollout", "status", f"deployment/{agent}-agent", "--timeout=60s")
        space.wait(f"agent/{agent}")
        answer = space.ask(agent, "What is the current time in UTC? And what is fibonacci number 30?")
        assert answer["tools_used"] == [tool]
        assert is_second(space, agent)


def is_second(space: Workspace, agent: str) -> bool:
    """Whether the agent's pods have been rolled once."""
    annotations = space.get(f"deployment/{agent}-agent")["metadata"]["annotations"]
    return bool(annotations["deployment.kubernetes.io/revision"] == "2")


def test_a_server_of_three_pods_answers(space: Workspace) -> None:
    apply_examples(space, "replicated-server")
    space.wait("agent/busy-calculator")
    until(lambda: space.get("mcp/math-replicated")["status"]["readyReplicas"] == 3, "three pods are ready")
    answer = space.ask("busy-calculator", "What is 21.5 plus 20.5?")
    assert "42" in answer["response"]
    assert answer["tools_used"] == ["add"]


@pytest.mark.parametrize(
    ("example", "agent", "question", "tool"),
    [
        (
            "weather-forecast",
            "forecaster",
            "What is the weather forecast for Berlin for the next 3 days?",
            "daily_forecast",
        ),
        ("weather-historical", "climate-historian", "How was the weather in Berlin in May 2024?", "daily_history"),
        ("weather-agricultural", "field-adviser", "What is the frost risk in Berlin?", "frost_risk"),
    ],
)
def test_a_weather_server_knows_berlin(space: Workspace, example: str, agent: str, question: str, tool: str) -> None:
    start_stand_in(space, "open-meteo-stand-in")
    apply_examples(space, example, env={example: {"ROPEWALK_OPEN_METEO_URL": "http://open-meteo-stand-in:8080"}})
    space.wait(f"agent/{agent}")
    answer = space.ask(agent, question)
    assert "Berlin, State of Berlin, Germany" in answer["response"]
    assert answer["tools_used"] == [tool]


def test_the_web_search_finds_pages(space: Workspace) -> None:
    start_stand_in(space, "search-stand-in")
    apply_examples(space, "websearch", env=_SEARCH)
    space.wait("agent/researcher")
    answer = space.ask("researcher", "Search the web for Kubernetes CrashLoopBackOff")
    assert "https://" in answer["response"]
    assert answer["tools_used"] == ["search"]


@pytest.fixture
def prometheus(space: Workspace) -> Iterator[Workspace]:
    apply_examples(space, "prometheus")
    yield space
    delete_cluster_wide(space, "prometheus")


def test_prometheus_is_asked_by_words(prometheus: Workspace) -> None:
    prometheus.wait("agent/metrics-helper")
    question = "How much memory does the API server use?"
    until(
        lambda: 'job="apiserver"' in prometheus.ask("metrics-helper", question)["response"],
        "Prometheus has asked the API server",
    )


def test_a_remote_server_is_used_with_the_token_of_a_secret(space: Workspace, remote: str) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "remote-tools"},
        "data": {"token": base64.b64encode(_TOKEN.encode()).decode()},
    }
    space.apply(secret)
    apply_examples(space, "remote-server", remote=remote)
    space.wait("agent/remote-helper")
    assert "dnarts" in space.ask("remote-helper", 'Reverse the text "strand"')["response"]
    space.wait("mcp/remote-tools")
    assert [tool["name"] for tool in space.get("mcp/remote-tools")["status"]["tools"]] == ["reverse_text"]
