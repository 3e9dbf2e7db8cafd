"""The chart's own PodMonitors, rules and dashboards on real programs: each pod is found, each panel has figures.

Operator, agent, MCP servers and Prometheus are processes on loopback ports; the API server is real, and pods are told
of as the API server would tell of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from apiserver import ApiServer
from chart_prometheus import chart_prometheus
from cluster.layout import REPOSITORY
from observe import panels
from observe.prometheus import Prometheus
from observe.scrape import Json
from operator_namespace import Namespace
from operator_process import OperatorProcess
from ports import free_port
from ropewalk_operator import names
from waiting import until

_MCP_PYTHON = str(REPOSITORY / ".venv-mcp" / "bin" / "python")


@contextmanager
def running(*command: str, path: str, ready: str, **environment: str) -> Iterator[None]:
    """A program of the repository, until the block ends; `ready` answers 200 when it serves."""
    folders = os.pathsep.join(str(REPOSITORY / each) for each in path.split(":"))
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": folders, **environment}) as process:
        try:
            until(lambda: httpx.get(ready).status_code == 200, f"{' '.join(command[1:3])} serves")
            yield
        finally:
            process.terminate()
            process.wait(60)


def pod(name: str, port: int, labels: dict[str, str], container: str) -> Json:
    """A pod as the API server would tell of it, whose address is a loopback port."""
    namespace = "ropewalk-system" if container == "operator" else "demo"
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": container, "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": "127.0.0.1"},
    }


def labels(kind: str, name: str, **more: str) -> dict[str, str]:
    """The labels that the operator gives to pods."""
    component = names.COMPONENTS[kind]
    return {names.APP_NAME: f"ropewalk-{component}", names.COMPONENT: component,
            names.MANAGED_BY: names.FIELD_MANAGER, names.OWNER_LABELS[kind]: name, **more}  # fmt: skip


class World:
    """The programs and what watches them."""

    def __init__(self, operator: OperatorProcess, server: ApiServer, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._agent = ExitStack()
        self.prometheus: Prometheus
        self._operator = operator
        self._demo = Namespace(server, "demo")
        self._model, self._bridge, self._tools = free_port(), free_port(), free_port()
        self.agent_port, self.prometheus_port = free_port(), free_port()
        self.asked = 0

    def start(self) -> None:
        """Start all of them."""
        enter = self._stack.enter_context
        url = f"http://127.0.0.1:{self.prometheus_port}"
        enter(running(sys.executable, "-m", "demo_model", path="dev/stand_ins", ROPEWALK_PORT=str(self._model),
                      ready=f"http://127.0.0.1:{self._model}/v1/models"))  # fmt: skip
        enter(running(_MCP_PYTHON, "-m", "ropewalk_mcp_stdio", "serve", f"--port={self._bridge}", "--name=math", "--",
                      _MCP_PYTHON, "-m", "ropewalk_mcp_math", "--stdio", path="mcp_images",
                      ready=f"http://127.0.0.1:{self._bridge}/ready"))  # fmt: skip
        enter(running(_MCP_PYTHON, "-m", "ropewalk_mcp_prometheus", f"--port={self._tools}", path="mcp_images",
                      ROPEWALK_PROMETHEUS_URL=url, ready=f"http://127.0.0.1:{self._tools}/health"))  # fmt: skip
        self.start_agent()
        self._demo.apply("MCPServer", "math", {"image": "ropewalk.dev/mcp-math:0.1.0"})
        self._demo.agent("calculator", mcpServers=[{"name": "math"}])
        self.prometheus = enter(chart_prometheus(self._pods, self.prometheus_port))

    def start_agent(self) -> None:
        """Start the agent, or start it anew on the same port."""
        self._agent.close()
        file = self._folder / "agent.json"
        servers = [{"name": "math", "url": f"http://127.0.0.1:{self._bridge}/mcp"},
                   {"name": "prometheus", "url": f"http://127.0.0.1:{self._tools}/mcp"}]  # fmt: skip
        model = {
            "provider": "openai-compatible",
            "id": "ropewalk-demo",
            "baseURL": f"http://127.0.0.1:{self._model}/v1",
        }
        file.write_text(json.dumps({"formatVersion": 1, "name": "calculator", "systemPrompt": "Calculate.",
                                    "model": model, "mcpServers": servers}))  # fmt: skip
        self._agent.enter_context(
            running(sys.executable, "-m", "ropewalk_agent", path="agent_image/src", ROPEWALK_HOST="127.0.0.1",
                    ROPEWALK_PORT=str(self.agent_port), ROPEWALK_CONFIG_FILE=str(file),
                    # Nobody listens there: an agent that traces has exemplars, whoever takes its spans or does not.
                    OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
                    ready=f"http://127.0.0.1:{self.agent_port}/ready")
        )  # fmt: skip

    def stop(self) -> None:
        """End them all."""
        self._agent.close()
        self._stack.close()

    def ask(self, query: str) -> Json:
        """POST /query."""
        answer = httpx.post(f"http://127.0.0.1:{self.agent_port}/query", json={"query": query}, timeout=30)
        self.asked += 1
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def work(self) -> None:
        """Something of everything that the dashboards show."""
        self.ask(f"What is {self.asked} plus 40?")
        self.ask("What is 1 divided by 0?")
        self.ask("How much memory does the API server use?")
        self._demo.agent("calculator", description=f"Number {self.asked}", mcpServers=[{"name": "math"}])

    def value(self, expression: str) -> float:
        """The one number that an expression is."""
        found = list(self.prometheus.instant(expression))
        assert len(found) == 1, f"{expression}: {found}"
        return found[0][1][0]

    def _pods(self) -> list[Json]:
        bridge, tools = (labels("MCPServer", name, **{names.SCRAPED: "true"}) for name in ("math", "prometheus"))
        operator = {**names.OPERATOR_LABELS, names.INSTANCE: "ropewalk"}
        return [
            pod("calculator-agent-1", self.agent_port, labels("Agent", "calculator"), "agent"),
            pod("math-mcp-1", self._bridge, bridge, "mcpserver"),
            pod("prometheus-mcp-1", self._tools, tools, "mcpserver"),
            # An image of somebody else that has no metrics: the model's server answers 404.
            pod("foreign-mcp-1", self._model, labels("MCPServer", "foreign"), "mcpserver"),
            pod("ropewalk-operator-1", self._operator.port, operator, "operator"),
        ]


@pytest.fixture(scope="module")
def world(server: ApiServer, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(operator, server, tmp_path_factory.mktemp("monitoring"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_each_pod_is_scraped_with_the_labels_that_the_dashboards_use(world: World) -> None:
    def found() -> dict[tuple[str, ...], list[float]]:
        wanted = ("job", "namespace", "pod", "agent", "server")
        return {tuple(each.get(label, "") for label in wanted): up for each, up in world.prometheus.instant("up")}

    expected = {
        ("ropewalk-agent", "demo", "calculator-agent-1", "calculator", ""),
        ("ropewalk-mcpserver", "demo", "math-mcp-1", "", "math"),
        ("ropewalk-mcpserver", "demo", "prometheus-mcp-1", "", "prometheus"),
        ("ropewalk-operator", "ropewalk-system", "ropewalk-operator-1", "", ""),
    }
    # And none is down: what has no metrics is left alone.
    until(lambda: found() == {pod: [1.0] for pod in expected}, "all pods are up")


def test_every_panel_of_every_dashboard_has_figures(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing_is_empty() -> bool:
        world.work()
        capsys.readouterr()
        empty = panels.show(f"http://127.0.0.1:{world.prometheus_port}", {}, minutes=15)
        assert empty == []
        return True

    world.work()
    # The boards look at the agent with the most requests, so there has to be one.
    until(lambda: list(world.prometheus.instant("ropewalk_agent_requests_total > 0")), "Prometheus knows of a request")
    until(nothing_is_empty, "each panel has figures")
    assert "NOTHING TO SHOW" not in capsys.readouterr().out


def test_requests_and_tokens_are_counted_one_by_one(world: World) -> None:
    requests = 'sum(ropewalk_agent_requests_total{agent="calculator", endpoint="/query", outcome="ok"})'
    tokens = 'sum(gen_ai_client_inference_usage_input_tokens_total{agent="calculator"})'
    until(lambda: world.value(requests) == world.asked, "all requests are counted")
    before = world.value(tokens)
    answer = world.ask("What is 6 times 7?")
    until(lambda: world.value(tokens) == before + answer["usage"]["input_tokens"], "the tokens are counted")
    until(lambda: world.value(requests) == world.asked, "so is the request, which is over a moment later")


def test_the_cost_is_the_tokens_times_their_price(world: World) -> None:
    [panel] = [each for each in panels.panels(board("fleet")) if each.title == "Cost"]
    values = {"namespace": ".+", "agent": ".+", "__range": "1h"}

    def shown_is_reckoned() -> bool:
        [line] = panels.answered(world.prometheus, panel.queries[0], values, 15)
        used = [
            world.value(f"sum(increase(gen_ai_client_inference_usage_{way}_tokens_total[1h]))")
            for way in ("input", "output")
        ]
        assert line.latest == pytest.approx((used[0] * 0.25 + used[1] * 1.25) / 1e6, rel=0.05)
        return line.latest > 0

    until(shown_is_reckoned, "the panel says what the tokens cost")


def test_a_dot_on_latency_names_the_trace_of_one_request(world: World) -> None:
    [latency] = [each for each in panels.panels(board("agent")) if each.title == "Latency"]
    values = {"namespace": "demo", "agent": "calculator"}
    expression = panels.filled_in(latency.queries[0].expression, values, 15)

    def traces() -> set[str]:
        world.ask("What is 6 times 7?")
        url = f"http://127.0.0.1:{world.prometheus_port}/api/v1/query_exemplars"
        now = time.time()
        data = (
            httpx.get(url, params={"query": expression, "start": now - 900, "end": now})
            .raise_for_status()
            .json()["data"]
        )
        return {exemplar["labels"]["trace_id"] for series in data for exemplar in series["exemplars"]}

    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in until(traces, "exemplars"))


def test_a_container_that_is_started_again_is_a_restart(world: World) -> None:
    restarts = 'sum(changes(process_start_time_seconds{agent="calculator"}[15m]))'
    assert world.value(restarts) == 0
    world.start_agent()
    until(lambda: world.value(restarts) == 1, "the restart is seen")
    world.asked = 0


def board(name: str) -> dict[str, Any]:
    return dict(json.loads((panels.BOARDS / f"{name}.json").read_text()))
