"""The operator of a few namespaces, with its Roles alone: one of them is lost, and the others do not notice.

No pod ever runs here (there is no kubelet).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer
from chart_helm import CHART, helm
from operator_installed import installed
from operator_namespace import Namespace
from operator_process import OperatorProcess
from waiting import until

HOME = "team"
NOTICED_SECONDS = 60
"""15 s of refusals, which come ever more slowly, and then 30 s until the rights are looked at again."""


def give_rights(server: ApiServer, other: Namespace) -> None:
    values = f"crds.enabled=false,watchNamespaces={{{HOME},{other.name}}}"
    helm("upgrade", "--install", "ropewalk", str(CHART), "-n", HOME, "--set", values, kubeconfig=server.kubeconfig)


@pytest.fixture
def home(server: ApiServer) -> Namespace:
    return Namespace(server, HOME)


@pytest.fixture
def other(namespace: Namespace) -> Namespace:
    """Another one than the release's."""
    return namespace


@pytest.fixture
def operator(server: ApiServer, home: Namespace, other: Namespace, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Works in both namespaces, and asks every two seconds for new watches, which is when it learns of its rights."""
    give_rights(server, other)
    process = installed(server, HOME, tmp_path / "log", ROPEWALK_WATCH_SILENCE_SECONDS="2").start()
    try:
        yield process
    finally:
        process.stop()


def says(namespace: Namespace, prompt: str) -> bool:
    return prompt in str(namespace.get("configmap", "calc-agent"))


def leaves_out(operator: OperatorProcess, count: int) -> None:
    until(
        lambda: operator.metric("ropewalk_operator_namespaces_left_out") == count,
        f"it leaves out {count} namespaces",
        NOTICED_SECONDS,
    )


def said(operator: OperatorProcess, message: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in operator.log().splitlines()]
    return [line for line in lines if line["message"] == message]


@pytest.mark.timeout(300)
def test_a_namespace_that_is_deleted_is_left_out_until_it_is_back(
    server: ApiServer, operator: OperatorProcess, home: Namespace, other: Namespace
) -> None:
    for namespace in (home, other):
        namespace.agent()
        until(lambda namespace=namespace: says(namespace, "calculator"), "its children are made")  # type: ignore[misc]
    server.kubectl("delete", "namespace", other.name)
    leaves_out(operator, 1)
    (line,) = said(operator, "a namespace is left out")
    assert line["namespace"] == other.name
    assert "forbidden" in line["error"]

    home.agent(systemPrompt="Go on.")
    until(lambda: says(home, "Go on."), "the other namespace is served")
    assert f'namespace="{HOME}"' in operator.metrics()
    assert f'namespace="{other.name}"' not in operator.metrics()

    assert operator.stop() == 0
    operator.start()
    assert operator.metric("ropewalk_operator_namespaces_left_out") == 1
    home.agent(systemPrompt="Go on after a restart.")
    until(lambda: says(home, "Go on after a restart."), "the other namespace is served by the next process")

    Namespace(server, other.name).agent(systemPrompt="Here again.")
    give_rights(server, other)
    leaves_out(operator, 0)
    until(lambda: says(other, "Here again."), "the namespace is served again")
    assert len(said(operator, "a namespace is left out")) == 2, "once by each process"
    assert len(said(operator, "a namespace is taken up again")) == 1


@pytest.mark.timeout(300)
def test_where_one_kind_is_forbidden_nothing_is_written_until_it_is_not(
    server: ApiServer, operator: OperatorProcess, other: Namespace
) -> None:
    other.agent(systemPrompt="Be brief.")
    until(lambda: says(other, "Be brief."), "its children are made")
    before = other.at_rest()
    role = other.get("role", "ropewalk-operator")
    assert role is not None
    rules = [rule for rule in role["rules"] if "networkpolicies" not in rule["resources"]]
    assert len(rules) < len(role["rules"])
    other.kubectl("patch", "role", "ropewalk-operator", "--type=merge", "-p", json.dumps({"rules": rules}))
    leaves_out(operator, 1)
    assert "networkpolicies" in said(operator, "a namespace is left out")[0]["error"]
    assert other.at_rest() == before, "what is seen no more is not made anew"

    other.kubectl("delete", "service", "calc-agent")
    other.kubectl("patch", "role", "ropewalk-operator", "--type=merge", "-p", json.dumps({"rules": role["rules"]}))
    leaves_out(operator, 0)
    until(lambda: other.get("service", "calc-agent"), "what was lost meanwhile is made anew")
    after = other.at_rest()
    assert {name for name in before if after[name] != before[name]} == {"Service/calc-agent"}
