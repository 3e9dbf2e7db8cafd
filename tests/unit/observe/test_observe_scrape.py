"""What Prometheus is told to scrape is what the chart's PodMonitors say."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from chart_helm import of_kind, render
from cluster.console import Failure
from observe import discovery
from observe.scrape import Json, configuration, targets

POD: Json = {
    "metadata": {"namespace": "demo", "name": "calc-1", "labels": {"ropewalk.dev/agent": "calc", "a-b": "c"}},
    "spec": {
        "containers": [{"name": "agent", "ports": [{"name": "http", "containerPort": 8080}]}, {"name": "sidecar"}]
    },
    "status": {"phase": "Running", "podIP": "10.0.0.7"},
}


def jobs(*arguments: str) -> dict[str, Json]:
    monitors = of_kind(render("--set", "monitoring.podMonitor.enabled=true", *arguments), "PodMonitor")
    made = configuration(monitors, pods_url="http://pods", alertmanager="am:1", rules=["rules/*.yml"])
    return {job["job_name"].split("/")[2]: job for job in made["scrape_configs"]}


def kept(job: Json) -> dict[str, str]:
    return {each["source_labels"][0].removeprefix("__meta_kubernetes_"): each["regex"]
            for each in job["relabel_configs"] if each.get("action") == "keep"}  # fmt: skip


def test_a_port_of_a_running_pod_is_a_target_with_the_labels_of_prometheus_own_discovery() -> None:
    assert targets([POD]) == [
        {
            "targets": ["10.0.0.7:8080"],
            "labels": {
                "__meta_kubernetes_namespace": "demo",
                "__meta_kubernetes_pod_name": "calc-1",
                "__meta_kubernetes_pod_container_name": "agent",
                "__meta_kubernetes_pod_container_port_name": "http",
                "__meta_kubernetes_pod_label_ropewalk_dev_agent": "calc",
                "__meta_kubernetes_pod_label_a_b": "c",
            },
        }
    ]


@pytest.mark.parametrize("status", [{"phase": "Pending"}, {"phase": "Succeeded", "podIP": "10.0.0.7"}])
def test_a_pod_that_does_not_run_is_no_target(status: Json) -> None:
    assert targets([{**POD, "status": status}]) == []


def test_each_pod_monitor_is_a_job_that_keeps_the_pods_it_selects() -> None:
    made = jobs()
    assert set(made) == {"ropewalk-agents", "ropewalk-mcp-servers", "ropewalk-operator"}
    assert kept(made["ropewalk-agents"]) == {
        "pod_label_app_kubernetes_io_component": "agent",
        "pod_label_app_kubernetes_io_managed_by": "ropewalk-operator",
        "pod_container_port_name": "http",
    }
    assert kept(made["ropewalk-mcp-servers"])["pod_label_monitoring_ropewalk_dev_scrape"] == "true"
    assert [job["http_sd_configs"][0]["url"] for job in made.values()] == ["http://pods"] * 3


def test_the_relabelings_of_the_monitor_come_last_in_prometheus_words() -> None:
    assert jobs()["ropewalk-agents"]["relabel_configs"][-3] == {
        "source_labels": ["__meta_kubernetes_pod_label_ropewalk_dev_agent"],
        "target_label": "agent",
    }


def test_a_monitor_looks_in_its_own_namespace_unless_it_names_others() -> None:
    assert kept(jobs()["ropewalk-operator"])["namespace"] == "ropewalk-system"
    assert kept(jobs("--set", "watchNamespaces={a,b}")["ropewalk-agents"])["namespace"] == "a|b"


def test_only_the_operators_labels_are_honoured() -> None:
    assert {name for name, job in jobs().items() if job["honor_labels"]} == {"ropewalk-operator"}


def told(pods: Any) -> tuple[int, Any]:
    """What the discovery answers while `pods` is what asks the cluster."""
    server = discovery.server(0, pods)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{discovery.PATH}") as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_discovery_answers_with_the_pods_of_the_moment() -> None:
    assert told(lambda: [POD]) == (200, targets([POD]))


def test_while_the_cluster_does_not_answer_prometheus_is_told_so_and_keeps_what_it_knows() -> None:
    def away() -> list[Json]:
        raise Failure("the API server is away")

    assert told(away) == (502, {"error": "the API server is away"})
