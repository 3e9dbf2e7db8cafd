"""The assistants of the examples: one question, several MCP servers at once, and figures that others confirm."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from e2e_cluster import Json, Workspace, kubectl
from e2e_examples import apply_examples, delete_cluster_wide, start_stand_in
from waiting import until

_DEVOPS = ("devops-assistant", "prometheus/prometheus.yaml", "prometheus/rbac.yaml", "prometheus/mcpserver.yaml",
           "cluster-helper/mcpserver.yaml", "cluster-helper/rbac.yaml", "websearch/mcpserver.yaml")  # fmt: skip
_WEATHER = ("weather-forecast", "weather-historical", "weather-agricultural")
_MEMORY = 'process_resident_memory_bytes{job="apiserver"}'


@pytest.fixture(scope="module")
def devops(space: Workspace) -> Iterator[Workspace]:
    start_stand_in(space, "search-stand-in")
    apply_examples(space, *_DEVOPS, env={"websearch": {"ROPEWALK_SEARCH_URL": "http://search-stand-in:8080"}})
    space.wait("agent/devops-assistant")
    until(lambda: samples(space, _MEMORY), "Prometheus has asked the API server")
    yield space
    delete_cluster_wide(space, *_DEVOPS)


@pytest.fixture(scope="module")
def weather(space: Workspace) -> Workspace:
    start_stand_in(space, "open-meteo-stand-in")
    env = {name: {"ROPEWALK_OPEN_METEO_URL": "http://open-meteo-stand-in:8080"} for name in _WEATHER}
    apply_examples(space, "weather-assistant", *[f"{name}/mcpserver.yaml" for name in _WEATHER], env=env)
    space.wait("agent/weather-assistant")
    return space


def samples(space: Workspace, expression: str) -> list[Json]:
    """What Prometheus itself says of an expression."""
    answer = httpx.get(f"{space.url('prometheus')}/api/v1/query", params={"query": expression}).json()
    return list(answer["data"]["result"])


def test_one_question_about_the_cluster_is_answered_by_kubernetes_and_prometheus(devops: Workspace) -> None:
    question = "Is anything wrong in kube-system, and how much memory does the API server use?"
    answer = devops.ask("devops-assistant", question)
    assert set(answer["tools_used"]) == {"pod_management", "query"}

    pods = kubectl("get", "pods", "-n", "kube-system", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert pods
    assert all(pod in answer["response"] for pod in pods)

    (series,) = samples(devops, f"{_MEMORY}[5m]")
    known = {value for _, value in series["values"]}
    said = set(re.findall(r"\b\d{7,}\b", answer["response"]))
    assert said & known, f"{said} is not among Prometheus' own figures {known}"

    metrics = kubectl("get", "--raw", "/metrics")
    own = re.search(r"^process_resident_memory_bytes (\S+)$", metrics, re.MULTILINE)
    assert own
    assert float(min(said & known)) == pytest.approx(float(own[1]), rel=0.5)


def test_the_web_is_searched_too(devops: Workspace) -> None:
    answer = devops.ask("devops-assistant", "Search the web for Kubernetes CrashLoopBackOff")
    assert answer["tools_used"] == ["search"]
    assert "https://" in answer["response"]


def test_prometheus_sees_the_assistants_own_metrics(devops: Workspace) -> None:
    devops.ask("devops-assistant", "Which pods run in kube-system?")
    counted = 'sum(ropewalk_agent_tool_calls_total{job="agents", tool="pod_management", outcome="ok"}) > 0'
    until(lambda: samples(devops, counted), "the agents' metrics are scraped")


def test_prometheus_may_read_metrics_and_nothing_else(devops: Workspace) -> None:
    account = f"--as=system:serviceaccount:{devops.name}:prometheus"
    assert kubectl("auth", "can-i", "get", "/metrics", account).strip() == "yes"
    for refused in (("list", "pods"), ("get", "secrets"), ("get", "/logs")):
        with pytest.raises(AssertionError):
            kubectl("auth", "can-i", *refused, account)


def test_one_question_about_the_weather_is_answered_by_three_servers(weather: Workspace) -> None:
    answer = weather.ask(
        "weather-assistant",
        "What is the weather forecast for Berlin for the next 3 days, how was the weather in Berlin in May 2024, "
        "and is there a frost risk in Berlin?",
    )
    assert set(answer["tools_used"]) == {"daily_forecast", "daily_history", "frost_risk"}
    asked = "latitude=52.52437&longitude=13.41053&timezone=Europe/Berlin&daily=temperature_2m_max"
    days = "start_date=2024-05-01&end_date=2024-05-31"
    daily = httpx.get(f"{weather.url('open-meteo-stand-in')}/v1/archive?{asked}&{days}").json()["daily"]
    assert len(daily["time"]) == 31
    lines = answer["response"].splitlines()
    for day, highest in zip(daily["time"], daily["temperature_2m_max"], strict=True):
        assert any(day in line and f" {highest:g}°C" in line for line in lines), f"{highest} °C on {day}"


def test_the_weather_of_three_servers_is_one_list_of_tools(weather: Workspace) -> None:
    servers = httpx.get(f"{weather.url('weather-assistant-agent')}/tools").json()["servers"]
    assert {server["name"]: server["state"] for server in servers} == dict.fromkeys(_WEATHER, "connected")
