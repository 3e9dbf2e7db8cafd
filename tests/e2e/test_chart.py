"""Installing, upgrading and removing the chart around agents that run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.layout import REPOSITORY
from e2e_cluster import RELEASE, SYSTEM, Workspace, agent, helm, install_chart, kubectl, mcpserver
from waiting import until

_CRD = "crd/agents.ropewalk.dev"


@pytest.fixture(scope="module", autouse=True)
def calculator(space: Workspace) -> Iterator[None]:
    space.apply(mcpserver(), agent("calculator", "math"))
    space.wait("agent/calculator")
    yield
    install_chart()


def test_helm_test_asks_an_agent_and_cleans_up() -> None:
    said = helm("test", RELEASE, "--namespace", SYSTEM, "--timeout=3m")
    assert "42" in said
    until(
        lambda: "ropewalk-test" not in kubectl("get", "agents,deployments", "-n", SYSTEM, "-o", "name"), "all is gone"
    )


def test_values_switch_on_every_mcp_server_that_ships_and_it_becomes_ready() -> None:
    names = {
        "math": "math",
        "weatherForecast": "weather-forecast",
        "weatherHistorical": "weather-historical",
        "weatherAgricultural": "weather-agricultural",
        "websearch": "websearch",
        "prometheus": "prometheus",
        "kubernetes": "kubernetes",
    }
    values = [f"mcpServers.{key}.enabled=true" for key in names]
    install_chart(f"--set={','.join(values)},mcpServers.prometheus.url=http://prometheus:9090")
    for name in names.values():
        Workspace(SYSTEM).wait(f"mcp/{name}")
    install_chart()
    assert kubectl("get", "mcp", "-n", SYSTEM, "-o", "name") == ""


def test_an_upgrade_applies_a_changed_crd(tmp_path: Path) -> None:
    chart = tmp_path / "ropewalk"
    shutil.copytree(REPOSITORY / "charts" / "ropewalk", chart)
    changed = [file for file in chart.rglob("agent.yaml") if "CustomResourceDefinition" in file.read_text()]
    assert len(changed) == 1
    changed[0].write_text(changed[0].read_text().replace("    - ag\n", "    - ag\n    - agt\n"))
    install_chart(chart=str(chart))
    assert "agt" in kubectl("get", _CRD, "-o", "jsonpath={.spec.names.shortNames}")


def test_uninstalling_keeps_crds_and_agents_and_a_second_install_adopts_them(space: Workspace) -> None:
    pods = {pod["metadata"]["uid"] for pod in space.pods("app.kubernetes.io/managed-by=ropewalk-operator")}
    helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
    assert kubectl("get", _CRD, "-o", "name")
    assert "42" in space.ask("calculator", "What is 40 plus 2?")["response"]
    install_chart()
    space.patch("agent/calculator", {"description": "adopted"})
    space.wait("agent/calculator")
    assert {pod["metadata"]["uid"] for pod in space.pods("ropewalk.dev/mcpserver=math")} <= pods
    assert "42" in space.ask("calculator", "What is 40 plus 2?")["response"]
