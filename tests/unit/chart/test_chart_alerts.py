"""Each alert fires when it should, is silent when it should be, and ends when its cause does: told by promtool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_helm import CHART, of_kind, only, render, try_template
from chart_promtool import promtool
from dashboards.queries import FAILED
from ropewalk_agent.errors import STATUS_OF_CODE

RULES = CHART / "files" / "alerts.yaml"
ON = ("--set", "monitoring.alerts.enabled=true")
REQUESTS = 'ropewalk_agent_requests_total{{namespace="n", agent="a", endpoint="/query", outcome="{}"}}'
BATCHES = 'ropewalk_agent_requests_total{{namespace="n", agent="a", endpoint="/batch", outcome="{}"}}'
ITEMS = 'ropewalk_agent_batch_items_total{{namespace="n", agent="a", outcome="{}"}}'
BUCKET = 'ropewalk_agent_request_duration_seconds_bucket{{namespace="n", agent="a", endpoint="{}", le="{}"}}'
COUNT = 'ropewalk_agent_request_duration_seconds_count{{namespace="n", agent="a", endpoint="{}"}}'
CONDITION = 'ropewalk_resource_condition{{kind="{}", namespace="n", name="{}", condition="Ready", pod="{}"}}'
IDLE = 'ropewalk_resource_idle{{kind="{}", namespace="n", name="{}", pod="{}"}}'
UP = 'ropewalk_agent_mcp_server_up{{namespace="n", agent="{}", pod="{}", server="math"}}'
RECONCILES = 'ropewalk_operator_reconcile_total{{namespace="s", pod="{}", kind="Agent", result="{}"}}'
DEPTH = 'ropewalk_operator_workqueue_depth{{namespace="s", pod="{}"}}'
LEADER = 'ropewalk_operator_leader{{namespace="s", pod="{}"}}'
LEFT_OUT = 'ropewalk_operator_namespaces_left_out{{namespace="s", pod="{}"}}'
SILENCE = 'ropewalk_operator_last_watch_event_age_seconds{{namespace="s", pod="p", kind="{}"}}'


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a value a minute, and the minutes at which the alert fires and does not."""

    alert: str
    claim: str
    series: Mapping[str, str]
    fires: Sequence[int] = ()
    silent: Sequence[int] = ()
    only: str = ""
    """A matcher, where one of several rules of the name is meant."""

    def __str__(self) -> str:
        return f"{self.alert}: {self.claim}"


def took(slow: str, fast: str, endpoint: str = "/query") -> dict[str, str]:
    """A histogram of which `slow` requests took 10 to 30 seconds, and `fast` 1 to 10."""
    # Buckets count what is below them: each is the sum of those before.
    added = _plus(slow, fast)
    series = {"1.0": "0x120", "10.0": fast, "30.0": added, "+Inf": added}
    return {BUCKET.format(endpoint, le): values for le, values in series.items()} | {COUNT.format(endpoint): added}


def _plus(left: str, right: str) -> str:
    """The sum of two lines `0+STEPxN`, or of two sequences of them whose parts are equally long."""
    parts = []
    for one, other in zip(left.split(), right.split(), strict=True):
        (a, b, n), (c, d, m) = (map(int, re.split(r"[+x]", part)) for part in (one, other))
        assert n == m
        parts.append(f"{a + c}+{b + d}x{n}")
    return " ".join(parts)


def share(bad: str, ok: str, outcome: str) -> dict[str, str]:
    return {REQUESTS.format("ok"): ok, REQUESTS.format(outcome): bad}


READY_AGENT, READY_SERVER = CONDITION.format("Agent", "a", "p"), CONDITION.format("MCPServer", "m", "p")
CASES = [
    Case("RopewalkAgentNotReady", "fires after ten minutes and ends at once",
         {READY_AGENT: "1x4 0x20 1x10"}, fires=[16, 24], silent=[4, 10, 26]),
    Case("RopewalkAgentNotReady", "an agent that is suspended is as it shall be",
         {READY_AGENT: "0x40", IDLE.format("Agent", "a", "p"): "1x40"}, silent=[20, 40]),
    Case("RopewalkAgentNotReady", "one that is not suspended is told of while another one is",
         {READY_AGENT: "0x40", IDLE.format("Agent", "b", "p"): "1x40", IDLE.format("Agent", "a", "p"): "0x40"},
         fires=[20]),
    Case("RopewalkAgentNotReady", "a standby that has not seen it yet makes no alert",
         {READY_AGENT: "1x40", CONDITION.format("Agent", "a", "standby"): "0x40"}, silent=[20]),
    Case("RopewalkAgentNotReady", "an operator that is started anew does not begin the wait anew",
         {READY_AGENT: "0x7 stale", CONDITION.format("Agent", "a", "q"): "_x9 0x20"}, fires=[12], silent=[9]),
    Case("RopewalkAgentSlow", "fires where one request of ten is slow, for ten minutes",
         took("0+2x40 80+0x40", "0+18x40 720+20x40"), fires=[20, 40], silent=[8, 60]),
    Case("RopewalkAgentSlow", "is silent where one of a hundred is slow",
         took("0+1x60", "0+99x60"), silent=[20, 40]),
    Case("RopewalkAgentSlow", "is silent where there are too few requests to tell",
         took("0+1x60", "0+0x60"), silent=[20, 40]),
    Case("RopewalkAgentSlow", "batches may be slow",
         took("0+20x60", "0+0x60", "/batch"), silent=[20, 40]),
    Case("RopewalkErrorBudgetBurn", "fires soon where a fifth of the requests fails, and ends soon after it",
         share("0+20x60 1200+0x60", "0+80x60 4800+100x60", "internal"), fires=[10, 60], silent=[1, 75],
         only='window="1h"'),
    Case("RopewalkErrorBudgetBurn", "fires within half an hour where a tenth fails, and ends half an hour after it",
         share("0+10x60 600+0x60", "0+90x60 5400+100x60", "internal"), fires=[25, 60], silent=[10, 95],
         only='window="6h"'),
    Case("RopewalkErrorBudgetBurn", "is silent at half a percent",
         share("0+1x180", "0+199x180", "timeout"), silent=[10, 90, 180]),
    Case("RopewalkErrorBudgetBurn", "is silent where there are too few requests to tell",
         share("0+1x60", "0+0x60", "internal"), silent=[10, 19]),
    Case("RopewalkErrorBudgetBurn", "what clients do wrong, or give up, costs nothing of it",
         {**share("0+50x120", "0+50x120", "invalid_request"), **share("0+50x120", "0+50x120", "cancelled")},
         silent=[10, 90]),
    Case("RopewalkErrorBudgetBurn", "what a limit ended costs nothing of it",
         share("0+50x120", "0+50x120", "limit_turns"), silent=[10, 90]),
    Case("RopewalkErrorBudgetBurn", "each item of a batch counts, though the batch is answered",
         {ITEMS.format("timeout"): "0+50x60 3000+0x60", ITEMS.format("ok"): "0+50x60 3000+100x60",
          BATCHES.format("ok"): "0+1x120"}, fires=[10, 60], silent=[1, 75], only='window="1h"'),
    Case("RopewalkErrorBudgetBurn", "a batch that is answered is no request beside its items",
         {ITEMS.format("internal"): "0+20x60", BATCHES.format("ok"): "0+1000x60"}, fires=[10, 60]),
    Case("RopewalkErrorBudgetBurn", "a batch that is refused as a whole is a request",
         {BATCHES.format("not_ready"): "0+20x60", BATCHES.format("ok"): "0+1x60"}, fires=[10, 60]),
    Case("RopewalkErrorBudgetBurn", "fires in the long run where four percent fail",
         share("0+4x400", "0+96x400", "model_error"), fires=[150, 400], silent=[60]),
    Case("RopewalkErrorBudgetBurn", "that of a day is the last to end",
         share("0+10x200 2000+0x200", "0+90x200 18000+100x200", "internal"), fires=[100, 250], silent=[50, 330],
         only='window="1d"'),
    Case("RopewalkModelErrors", "fires where a tenth ends with model_error, and ends after it",
         share("0+2x30 60+0x60", "0+18x30 540+20x60", "model_error"), fires=[10, 30], silent=[1, 50]),
    Case("RopewalkModelErrors", "an agent that is asked in batches only is told of",
         {ITEMS.format("model_error"): "0+20x60", BATCHES.format("ok"): "0+1x60"}, fires=[10, 30], silent=[1]),
    Case("RopewalkModelErrors", "is silent at one percent",
         share("0+1x60", "0+99x60", "model_error"), silent=[10, 60]),
    Case("RopewalkModelErrors", "is silent where there are too few requests to tell",
         share("0+1x60", "0+0x60", "model_error"), silent=[10, 60]),
    Case("RopewalkModelErrors", "is silent about other failures",
         share("0+10x60", "0+10x60", "timeout"), silent=[10, 60]),
    Case("RopewalkQueueFull", "fires where a tenth is refused, and ends after it",
         share("0+10x30 300+0x60", "0+90x30 2700+90x60", "queue_full"), fires=[10, 30], silent=[3, 45]),
    Case("RopewalkQueueFull", "is silent where there are too few requests to tell",
         share("0+1x60", "0+1x60", "queue_full"), silent=[10, 60]),
    Case("RopewalkMCPServerDown", "fires after five minutes and ends with the next connection",
         {UP.format("a", "p1"): "1x4 0x20 1x10"}, fires=[11, 24], silent=[4, 8, 26]),
    Case("RopewalkMCPServerDown", "is silent while another pod of the agent is connected",
         {UP.format("a", "p1"): "0x40", UP.format("a", "p2"): "1x40"}, silent=[20, 40]),
    Case("RopewalkMCPServerDown", "fires where one of two agents has no connection",
         {UP.format("a", "p1"): "0x40", UP.format("b", "p2"): "1x40"}, fires=[20, 40]),
    Case("RopewalkMCPServerDown", "one that was scaled to nothing is as it shall be",
         {UP.format("a", "p1"): "0x40", IDLE.format("MCPServer", "math", "p"): "0x10 1x20 0x10"},
         fires=[8, 40], silent=[20, 30]),
    Case("RopewalkMCPServerNotReady", "fires after ten minutes and ends at once",
         {READY_SERVER: "1x4 0x20 1x10"}, fires=[16, 24], silent=[4, 10, 26]),
    Case("RopewalkMCPServerNotReady", "one that was scaled to nothing is as it shall be",
         {READY_SERVER: "0x40", IDLE.format("MCPServer", "m", "p"): "1x40"}, silent=[20, 40]),
    Case("RopewalkNoLeader", "fires where no pod leads, and ends with a leader",
         {LEADER.format("p"): "1x5 0x10 1x5", LEADER.format("q"): "0x20"}, fires=[9, 14], silent=[4, 7, 18]),
    Case("RopewalkNoLeader", "fires for one of two in a namespace", {LEADER.format("ropewalk-operator-5d9c-a"): "1x20",
         LEADER.format("x-ropewalk-operator-5d9c-b"): "1x4 0x10 1x5"}, fires=[9], silent=[4, 17]),
    Case("RopewalkNoLeader", "fires where no operator is scraped", {'up{job="x"}': "1x20"}, fires=[5, 20], silent=[1]),
    Case("RopewalkNoLeader", "is silent while the Lease passes on",
         {LEADER.format("p"): "1x5 0x15", LEADER.format("q"): "0x6 1x14"}, silent=[6, 7, 8, 20]),
    Case("RopewalkOperatorNotReconciling", "fires where resources wait and nothing is done, and ends when it is",
         {DEPTH.format("p"): "3x40 0x20", LEADER.format("p"): "1x60", RECONCILES.format("p", "ok"): "7x40 7+1x20"},
         fires=[25, 40], silent=[9, 50]),
    Case("RopewalkOperatorNotReconciling", "fires where every reconcile fails, though nothing waits",
         {DEPTH.format("p"): "0x40", RECONCILES.format("p", "error"): "0+3x40"}, fires=[25, 40]),
    # As the work queue paces it: 11 tries in the first two minutes, and then one each minute.
    Case("RopewalkOperatorNotReconciling", "is silent where two resources fail for ever and nothing else is to do",
         {DEPTH.format("p"): "0x40", RECONCILES.format("p", "error"): "0 18 22+2x60"},
         silent=[5, 12, 15, 20, 30, 60]),
    Case("RopewalkOperatorNotReconciling", "is silent where some fail and others succeed",
         {RECONCILES.format("p", "error"): "0+9x40", RECONCILES.format("p", "ok"): "0+1x40"}, silent=[25, 40]),
    Case("RopewalkOperatorNotReconciling", "is silent where there is nothing to do",
         {DEPTH.format("p"): "0x40", RECONCILES.format("p", "ok"): "9x40"}, silent=[25, 40]),
    Case("RopewalkOperatorNotReconciling", "fires for one of two in a namespace, while the other one works",
         {RECONCILES.format("ropewalk-operator-5d9c-a", "error"): "0+3x40",
          RECONCILES.format("x-ropewalk-operator-5d9c-b", "ok"): "0+3x40"}, fires=[25, 40],
         only='operator="ropewalk-operator"'),
    Case("RopewalkOperatorNotReconciling", "is silent while one pod works of a queue that another one left",
         {RECONCILES.format("ropewalk-operator-5d9c-a", "error"): "0+3x10 30x30",
          DEPTH.format("ropewalk-operator-5d9c-b"): "3x40",
          RECONCILES.format("ropewalk-operator-5d9c-b", "ok"): "0+3x40"}, silent=[25, 40]),
    Case("RopewalkNamespaceLeftOut", "fires for an operator of two pods, and ends when all are served",
         {LEFT_OUT.format("ropewalk-operator-5d9c-a"): "0x4 1x20 0x10",
          LEFT_OUT.format("ropewalk-operator-5d9c-b"): "0x4 1x20 0x10"}, fires=[16, 24], silent=[13, 27],
         only='operator="ropewalk-operator"'),
    Case("RopewalkNamespaceLeftOut", "is silent about one that is soon back", {LEFT_OUT.format("p-5-a"): "1x8 0x20"},
         silent=[8, 12, 20]),
    Case("RopewalkWatchStale", "fires after six minutes of silence, and ends with an event",
         {SILENCE.format("Agent"): "0+60x12 0x10"}, fires=[9, 12], silent=[5, 14]),
    Case("RopewalkWatchStale", "is silent about watches that begin anew in time",
         {SILENCE.format("Agent"): "0+60x4 0+60x4 0+60x4 0+60x4"}, silent=[4, 9, 14, 19]),
]  # fmt: skip


def groups() -> list[dict[str, Any]]:
    return list(yaml.safe_load(RULES.read_text())["groups"])


def alerts() -> Iterator[dict[str, Any]]:
    return (rule for group in groups() for rule in group["rules"] if "alert" in rule)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert(case: Case, tmp_path: Path) -> None:
    tell(case, RULES, tmp_path)


def test_a_pod_whose_watches_are_silent_is_told_of_once_with_the_kinds(tmp_path: Path) -> None:
    [rule] = [each for each in alerts() if each["alert"] == "RopewalkWatchStale"]
    about = "operator s/p has had no sign of life from its watches of Agent, Pod, so changes may be missed."
    told = {
        "exp_labels": {"namespace": "s", "pod": "p", "severity": "warning"},
        "exp_annotations": {
            "summary": "Watches of operator s/p are silent",
            "description": f"For up to 9m 0s {about}",
            "runbook_url": rule["annotations"]["runbook_url"],
        },
    }
    silences = {"Pod": "0+60x12", "Agent": "0+60x12", "Model": "0x12"}
    test = {
        "interval": "1m",
        "input_series": [{"series": SILENCE.format(kind), "values": line} for kind, line in silences.items()],
        "alert_rule_test": [{"eval_time": "9m", "alertname": rule["alert"], "exp_alerts": [told]}],
    }
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    promtool("test", "rules", tmp_path / "test.yaml")


def tell(case: Case, rules: Path, tmp_path: Path) -> None:
    """Let promtool evaluate the rules on the case's series, and look for the alert."""
    states = [(minute, 1) for minute in case.fires] + [(minute, 0) for minute in case.silent]
    assert states
    firing = f'clamp_max(count(ALERTS{{alertname="{case.alert}", alertstate="firing", {case.only}}}), 1) or vector(0)'
    document = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": value}]}
                    for minute, value in states
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", tmp_path / "test.yaml")


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    names = {rule["alert"] for rule in alerts()}
    assert {case.alert for case in CASES if case.fires} == names
    assert {case.alert for case in CASES if case.silent} == names


def test_alerts_about_rates_have_a_guard_of_traffic() -> None:
    about_shares = {rule["alert"] for rule in alerts() if re.search("ropewalk[:_]agent_.*requ", rule["expr"])}
    assert about_shares == {
        "RopewalkAgentSlow", "RopewalkErrorBudgetBurn", "RopewalkModelErrors", "RopewalkQueueFull"
    }  # fmt: skip
    for rule in alerts():
        assert ("# thresholds.minimumRequests" in rule["expr"]) is (rule["alert"] in about_shares), rule["alert"]


def test_each_code_of_an_answer_is_a_failure_of_the_service_or_none_knowingly() -> None:
    [failures] = re.findall(r'outcome=~"([^"]+)"', RULES.read_text())
    assert f'outcome=~"{failures}"' == FAILED, "the dashboards and the alerts count the same"
    by_the_client = ("invalid_request", "not_found", "method_not_allowed", "cancelled", "session_busy")
    assert sorted([*failures.split("|"), *by_the_client]) == sorted(STATUS_OF_CODE)


def test_a_plain_prometheus_takes_the_file_as_it_is() -> None:
    promtool("check", "rules", RULES)


def rendered(*arguments: str) -> dict[str, Any]:
    return only(render(*ON, *arguments), "PrometheusRule", "ropewalk-alerts")


def test_the_chart_makes_the_very_rules_of_the_file_but_for_the_name_of_its_operator() -> None:
    text, absent = RULES.read_text(), "absent(ropewalk_operator_leader)"
    assert text.count(absent) == 1
    own = absent.replace(")", '{namespace="ropewalk-system", pod=~"ropewalk-operator-.+"})')
    named = f'label_replace({own}, "operator", "ropewalk-operator", "", "")'
    assert rendered()["spec"]["groups"] == yaml.safe_load(text.replace(absent, named))["groups"]


def test_an_installation_that_is_gone_as_a_whole_is_told_of_while_another_one_leads(tmp_path: Path) -> None:
    leads = 'ropewalk_operator_leader{namespace="other", pod="ropewalk-operator-5d9c-b"}'
    # In the file `stale` is a pod that is scraped no more. That the labels stay keeps the wait from beginning anew.
    series = {
        leads: "1x20",
        LEADER.format("ropewalk-operator-7f6d-c").replace('"s"', '"ropewalk-system"'): "1x4 0x1 stale",
    }
    case = Case("RopewalkNoLeader", "", series, fires=[8, 20], silent=[6],
                only='namespace="ropewalk-system", operator="ropewalk-operator"')  # fmt: skip
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rendered()["spec"]))
    tell(case, tmp_path / "rules.yaml", tmp_path)


def test_prometheus_takes_what_the_chart_makes_of_other_values(tmp_path: Path) -> None:
    values = {"alerts": {"enabled": True, "thresholds": {"slowSeconds": 2.5, "minimumRequests": 3_000_000}}}
    values["prices"] = {"vendor/model:7": {"input": 0.25, "output": 10}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"monitoring": values}))
    made = of_kind(render("--values", str(tmp_path / "values.yaml")), "PrometheusRule")
    assert [each["metadata"]["name"] for each in made] == ["ropewalk-alerts", "ropewalk-prices"]
    for each in made:
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(each["spec"]))
        promtool("check", "rules", tmp_path / "rules.yaml")
    assert made[1]["spec"]["groups"][0]["rules"] == [
        {
            "record": "ropewalk:model_price_per_million_tokens",
            "expr": f"vector({price})",
            "labels": {"direction": direction, "gen_ai_request_model": "vendor/model:7"},
        }
        for direction, price in (("input", "0.25"), ("output", "10"))
    ]


@pytest.mark.parametrize(
    ("name", "value", "is_now"),
    [
        ("slowSeconds", 3, "> 3 # thresholds.slowSeconds"),
        ("errorBudget", 0.05, "> 14.4 * 0.05 # thresholds.errorBudget"),
        ("modelErrorShare", 0.5, "> 0.5 # thresholds.modelErrorShare"),
        ("refusedShare", 0.2, "> 0.2 # thresholds.refusedShare"),
        ("minimumRequests", 7, ">= 7 # thresholds.minimumRequests"),
        ("watchSilenceSeconds", 500, "> 500 # thresholds.watchSilenceSeconds"),
    ],
)
def test_a_threshold_is_a_value(name: str, value: float, is_now: str) -> None:
    rules = [rule for group in rendered("--set-json", f"monitoring.alerts.thresholds.{name}={value}")["spec"]["groups"]
             for rule in group["rules"]]  # fmt: skip
    changed = [rule["expr"] for rule in rules if f"# thresholds.{name}" in rule["expr"]]
    assert changed
    assert any(is_now in expression for expression in changed)
    default = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["alerts"]["thresholds"][name]
    assert all(f" {default} # thresholds.{name}" not in expression for expression in changed)


def test_every_threshold_of_the_file_is_a_value_with_the_same_default() -> None:
    found = set(re.findall(r"([0-9.]+) # thresholds\.(\w+)", RULES.read_text()))
    values = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["alerts"]["thresholds"]
    assert {(name, float(number)) for number, name in found} == {(name, float(each)) for name, each in values.items()}


def test_alerts_can_be_left_out_labelled_and_led_to_pages_elsewhere() -> None:
    left_out = "RopewalkMCPServerDown,RopewalkMCPServerNotReady"
    rule = rendered(
        "--set", f"monitoring.alerts.disabled={{{left_out}}},monitoring.alerts.alertLabels.team=ai",
        "--set", "monitoring.alerts.labels.release=mine,monitoring.alerts.runbookBaseURL=https://example.com/",
    )  # fmt: skip
    assert rule["metadata"]["labels"]["release"] == "mine"
    made = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    assert {each["alert"] for each in made} == {each["alert"] for each in alerts()} - set(left_out.split(","))
    assert "ropewalk-mcp-servers" not in [group["name"] for group in rule["spec"]["groups"]]
    assert {each["labels"]["team"] for each in made} == {"ai"}
    assert {each["labels"]["severity"] for each in made} == {"warning", "critical"}
    assert made[0]["annotations"]["runbook_url"] == "https://example.com/docs/runbooks/RopewalkAgentNotReady.md"


def test_without_being_asked_there_are_no_rules() -> None:
    assert of_kind(render(), "PrometheusRule") == []


@pytest.mark.parametrize(
    "wrong",
    [
        "monitoring.alerts.disabled={RopewalkNothing}",
        "monitoring.alerts.alertLabels.severity=page",
        "monitoring.alerts.alertLabels.namespace=mine",
        "monitoring.alerts.thresholds.slow=1",
        "monitoring.prices.m.input=1",
        "monitoring.alerts.runbookBaseURL=example.com",
    ],
)
def test_what_would_do_nothing_is_refused(wrong: str) -> None:
    assert try_template(*ON, "--set", wrong).returncode != 0


def test_no_label_of_an_alerts_own_can_be_replaced() -> None:
    # As soon as two series of a rule had one label for all, Prometheus would refuse them as the same.
    schema = json.loads((CHART / "values.schema.json").read_text())
    refused = schema["definitions"]["alertLabels"]["propertyNames"]["not"]["enum"]
    told = {label for rule in alerts() for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))}
    assert set(refused) == {"alertname", *told}.union(*(rule["labels"] for rule in alerts()))


@pytest.mark.parametrize(
    ("name", "value"), [("slowSeconds", 900), ("errorBudget", 0.0695), ("watchSilenceSeconds", 560)]
)
def test_a_threshold_that_nothing_can_pass_is_refused(name: str, value: float) -> None:
    # The last bucket of the histogram; 14.4 times it is more than everything; the operator ends before.
    done = try_template(*ON, "--set-json", f"monitoring.alerts.thresholds.{name}={value}")
    assert done.returncode != 0
    assert name in done.stderr
