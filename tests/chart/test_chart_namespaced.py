"""The chart in the hands of somebody who has rights in one namespace only: it makes nothing outside, and works.

A cluster's administrator has applied the CRDs and what docs/reference/chart.md says of installers, and no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer, serving_crds
from chart_helm import CHART, REPOSITORY, helm, run_helm
from operator_namespace import Namespace
from operator_process import OperatorProcess
from waiting import until

VALUES = "crds.enabled=false,watchNamespaces={team},mcpServers.math.enabled=true,mcpServers.kubernetes.enabled=true"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serving_crds() as started:
        yield started


@pytest.fixture(scope="module")
def team(server: ApiServer) -> Namespace:
    """A namespace, and in it the account `installer` with the documented rights."""
    namespace = Namespace(server, "team")
    namespace.kubectl("create", "serviceaccount", "installer")
    page = (REPOSITORY / "docs" / "reference" / "chart.md").read_text()
    (role,) = re.findall(r"```yaml\n(# What an installer.*?)```", page, re.DOTALL)
    namespace.kubectl("apply", "-f", "-", stdin=role)
    return namespace


def outside(server: ApiServer) -> set[str]:
    """All that there is outside of the namespace and could be the chart's."""
    cluster = server.kubectl("get", "clusterrole,clusterrolebinding,namespace,crd", "-o", "name")
    roles = server.kubectl("get", "role,rolebinding", "-A", "--field-selector=metadata.namespace!=team", "-o", "name")
    return {*cluster.split(), *roles.split()}


def test_an_installer_with_rights_in_one_namespace_installs_upgrades_and_uninstalls(
    server: ApiServer, team: Namespace
) -> None:
    installer = server.kubeconfig_of("team", "installer")
    before = outside(server)
    helm("install", "ropewalk", str(CHART), "-n", "team", "--set", VALUES, kubeconfig=installer)
    assert outside(server) == before
    assert team.kubectl("get", "mcp", "-o", "name").split() == [
        "mcpserver.ropewalk.dev/kubernetes",
        "mcpserver.ropewalk.dev/math",
    ]
    helm(
        "upgrade", "ropewalk", str(CHART), "-n", "team", "--set", f"{VALUES},operator.networkPolicy.enabled=true",
        kubeconfig=installer,
    )  # fmt: skip
    assert team.get("networkpolicy", "ropewalk-operator")
    helm("uninstall", "ropewalk", "-n", "team", kubeconfig=installer)
    assert team.get("deployment", "ropewalk-operator") is None


def test_the_installer_cannot_install_for_the_whole_cluster(server: ApiServer, team: Namespace) -> None:
    installer = server.kubeconfig_of("team", "installer")
    done = run_helm("install", "all", str(CHART), "-n", "team", "--set", "crds.enabled=false", kubeconfig=installer)
    assert done.returncode != 0
    assert "clusterroles" in done.stderr


def test_the_operator_works_there_and_may_do_nothing_elsewhere(
    server: ApiServer, team: Namespace, tmp_path: Path
) -> None:
    installer = server.kubeconfig_of("team", "installer")
    helm("install", "ropewalk", str(CHART), "-n", "team", "--set", VALUES, kubeconfig=installer)
    kubeconfig = server.kubeconfig_of("team", "ropewalk-operator")
    settings = {"ROPEWALK_WATCH_NAMESPACES": "team", "ROPEWALK_LEASE_NAMESPACE": "team"}
    process = OperatorProcess(kubeconfig, tmp_path / "log", **settings).start()
    try:
        team.agent()
        until(lambda: team.get("deployment", "calc-agent"), "the Agent gets its children")
        until(lambda: team.condition("agent", "calc", "Ready"), "the Agent's status is written")
        until(lambda: team.get("deployment", "math-mcp"), "the MCPServer of the chart gets its children")
    finally:
        process.stop()
    account = "--as=system:serviceaccount:team:ropewalk-operator"
    review = {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"namespace": "default"},
    }
    elsewhere = json.loads(
        server.kubectl("create", "--validate=false", "-o", "json", "-f", "-", account, input=json.dumps(review))
    )
    # Everybody may ask what they may do.
    assert {group for rule in elsewhere["status"]["resourceRules"] for group in rule["apiGroups"]} == {
        "authorization.k8s.io", "authentication.k8s.io",
    }  # fmt: skip
