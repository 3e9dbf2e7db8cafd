"""What `make observe` writes is what Prometheus takes, and what it says where it cannot work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chart_helm import render
from cluster.console import Failure
from cluster.layout import Layout
from cluster.processes import Process, stop_all
from observe import stack
from observe.scrape import Json

VALUES = {"podMonitor": {"enabled": True}, "alerts": {"enabled": True}, "prices": {"m": {"input": 1, "output": 2}}}


def test_prometheus_takes_the_configuration_with_the_charts_scrapes_and_rules(tmp_path: Path) -> None:
    stack.write(tmp_path, render("--set-json", f"monitoring={json.dumps(VALUES)}"))
    command: list[str | Path] = [Layout.default().bin / "promtool", "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 2 rule files found" in done.stdout
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert len(config["scrape_configs"]) == 3


def test_a_rule_that_the_chart_makes_no_more_goes_with_the_next_run(tmp_path: Path) -> None:
    stack.write(tmp_path, render("--set-json", f"monitoring={json.dumps(VALUES)}"))
    stack.write(tmp_path, render("--set-json", f"monitoring={json.dumps(VALUES | {'prices': {}})}"))
    assert [file.name for file in (tmp_path / "rules").iterdir()] == ["ropewalk-system-ropewalk-alerts.yml"]


def test_two_releases_of_one_name_keep_their_rules_apart(tmp_path: Path) -> None:
    releases = [render("--namespace", name, "--set=monitoring.alerts.enabled=true") for name in ("one", "two")]
    stack.write(tmp_path, [body for release in releases for body in release])
    rules = {file.name: file.read_text() for file in (tmp_path / "rules").iterdir()}
    assert rules.keys() == {"one-ropewalk-alerts.yml", "two-ropewalk-alerts.yml"}
    told = [
        str(rule["expr"])
        for group in yaml.safe_load(rules["two-ropewalk-alerts.yml"])["groups"]
        for rule in group["rules"]
    ]
    assert any('absent(ropewalk_operator_leader{namespace="two"' in expression for expression in told)


def test_a_release_is_seen_in_its_own_namespaces_with_its_own_thresholds(tmp_path: Path) -> None:
    alerts = {"thresholds": {"slowSeconds": 3}}
    values = stack.seen({"watchNamespaces": ["shop"], "monitoring": {"alerts": alerts}, "workers": 3})
    stack.write(tmp_path, render(*(f"--set-json={key}={json.dumps(value)}" for key, value in values.items())))
    jobs = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert [{"shop"}, {"shop"}, {"ropewalk-system"}] == [namespaces(job) for job in jobs]
    assert "> 3 # thresholds.slowSeconds" in (tmp_path / "rules" / "ropewalk-system-ropewalk-alerts.yml").read_text()


def namespaces(job: Json) -> set[str]:
    """Those whose pods a job keeps."""
    return {
        each["regex"]
        for each in job["relabel_configs"]
        if each.get("action") == "keep" and each["source_labels"] == ["__meta_kubernetes_namespace"]
    }


def test_a_release_without_values_is_seen_with_all_that_there_is() -> None:
    assert stack.seen({}) == {
        "monitoring": {
            "podMonitor": {"enabled": True},
            "alerts": {"enabled": True},
            "prices": {"ropewalk-demo": {"input": 0.25, "output": 1.25}},
        }
    }


def test_without_a_cluster_there_is_nothing_to_observe(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="`make demo` brings one up"):
        stack.up(Layout(tmp_path / "cache", tmp_path / "state"))


def test_ending_it_ends_its_processes_and_ending_it_twice_is_no_error(tmp_path: Path) -> None:
    here = Layout(tmp_path / "cache", tmp_path / "state")
    process = Process("prometheus", here.observe)
    process.start([sys.executable, "-c", "import signal; signal.pause()"])
    assert process.pid is not None
    assert stack.is_up(here)
    stack.down(here)
    assert process.pid is None
    assert not stack.is_up(here)
    stack.down(here)


def test_a_folder_that_does_not_exist_holds_no_processes(tmp_path: Path) -> None:
    stop_all(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
