"""The chart's life in a real API server: install, upgrade of a CRD, uninstall, and an install that finds what was left.

There is no kubelet here: what the pods do is not tested. Helm 3 does it all; in `make test-chart` Helm 4 does too.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from chart_helm import CHART, REPOSITORY, helm, run_helm
from waiting import until

RELEASE = ("ropewalk", "--namespace", "ropewalk-system")
CRD_NAMES = ("agents.ropewalk.dev", "mcpservers.ropewalk.dev", "models.ropewalk.dev")


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    server = ApiServer().start()
    yield server
    server.stop()


@pytest.fixture
def empty(api: ApiServer) -> Iterator[ApiServer]:
    """An API server that knows nothing of Ropewalk."""
    yield api
    run_helm("uninstall", *RELEASE, "--ignore-not-found", kubeconfig=api.kubeconfig)
    # A CRD whose resources were never asked for has no storage yet, and Kubernetes 1.34 may then never come to its end
    # ("could not list instances: storage is (re)initializing"), so they are asked for. kubectl's own wait has no bound.
    until(lambda: api.kubectl("get", ",".join(CRD_NAMES), "-A", "-o", "json"), "all resources can be listed")
    api.kubectl("delete", "crd", *CRD_NAMES, "--ignore-not-found", "--wait=false")
    until(lambda: no_crd_is_left(api), "no CRD is left")


def no_crd_is_left(api: ApiServer) -> bool:
    left = api.kubectl("get", "crd", *CRD_NAMES, "--ignore-not-found", "-o", "yaml")
    assert not left, left
    return True


def install(api: ApiServer, *arguments: str, chart: Path = CHART) -> str:
    name, *rest = RELEASE
    return helm(
        "upgrade", "--install", name, str(chart), *rest, "--create-namespace", *arguments, kubeconfig=api.kubeconfig
    )


def crd(api: ApiServer, name: str = "agents.ropewalk.dev") -> dict[str, Any]:
    found = json.loads(api.kubectl("get", "crd", name, "-o", "json"))
    assert isinstance(found, dict)
    return found


def make_agent(api: ApiServer) -> str:
    """Apply the calculator example and return the Agent's uid."""
    api.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    api.kubectl("apply", "-f", str(REPOSITORY / "examples" / "calculator"))
    return agent_uid(api)


def agent_uid(api: ApiServer) -> str:
    return api.kubectl("get", "agent", "calculator", "-o", "jsonpath={.metadata.uid}")


def test_the_api_server_takes_everything_that_the_chart_makes(empty: ApiServer) -> None:
    notes = install(
        empty, "--set", "monitoring.dashboards.enabled=true,operator.priorityClassName=system-cluster-critical"
    )
    assert "kubectl get ropewalk" in notes
    assert "kubectl apply -f examples/calculator" in notes
    made = empty.kubectl("get", "deployment,serviceaccount,configmap", "-n", "ropewalk-system", "-o", "name").split()
    assert "deployment.apps/ropewalk-operator" in made
    assert "serviceaccount/ropewalk-operator" in made
    boards = {each.removeprefix("configmap/ropewalk-dashboard-") for each in made if "-dashboard-" in each}
    assert boards == {"fleet", "agent", "mcp-servers", "operator"}


def test_the_api_server_takes_what_helm_test_makes(empty: ApiServer) -> None:
    install(empty)
    empty.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    hooks = helm("get", "hooks", *RELEASE, kubeconfig=empty.kubeconfig)
    said = empty.kubectl("create", "--dry-run=server", "-f", "-", input=hooks)
    assert said.count("created") == 5


def test_a_release_takes_another_name_once_the_operator_of_the_old_one_has_ended(empty: ApiServer) -> None:
    install(empty)
    name, *rest = RELEASE
    renamed = ("upgrade", name, str(CHART), *rest, "--set", "fullnameOverride=rope")
    refused = run_helm(*renamed, kubeconfig=empty.kubeconfig)
    assert refused.returncode != 0
    (command,) = re.findall(r"end the old one first: kubectl (\S.*=0)", refused.stderr)
    assert operators(empty) == ["deployment.apps/ropewalk-operator"]
    empty.kubectl(*command.split())
    helm(*renamed, kubeconfig=empty.kubeconfig)
    assert operators(empty) == ["deployment.apps/rope-operator"]


def operators(api: ApiServer) -> list[str]:
    return api.kubectl("get", "deployment", "-n", "ropewalk-system", "-o", "name").split()


def mcp_servers(api: ApiServer) -> list[str]:
    return api.kubectl("get", "mcp", "-A", "-o", "name").split()


def test_a_first_install_says_that_its_mcp_servers_come_with_the_next_and_they_do(empty: ApiServer) -> None:
    values = ("--set", "mcpServers.math.enabled=true,mcpServers.kubernetes.enabled=true")
    notes = install(empty, *values)
    assert "(kubernetes, math) ARE NOT MADE YET" in notes
    empty.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    assert mcp_servers(empty) == []
    (flag,) = re.findall(r"helm upgrade ropewalk CHART -n ropewalk-system (\S+)", notes)
    notes = install(empty, flag)
    assert "can use the MCP servers kubernetes, math" in notes
    assert mcp_servers(empty) == ["mcpserver.ropewalk.dev/kubernetes", "mcpserver.ropewalk.dev/math"]


def test_the_api_server_takes_every_mcp_server_that_values_switch_on(empty: ApiServer) -> None:
    install(empty)
    empty.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    keys = (
        "math",
        "weatherForecast",
        "weatherHistorical",
        "weatherAgricultural",
        "websearch",
        "prometheus",
        "kubernetes",
    )
    values = [f"mcpServers.{key}.enabled=true,mcpServers.{key}.pod.resources.limits.memory=1Gi" for key in keys]
    values.append("mcpServers.prometheus.url=http://prometheus.monitoring.svc:9090")
    values.append("mcpServers.prometheus.tokenSecret.name=metrics")
    install(empty, "--set", ",".join(values))
    assert len(mcp_servers(empty)) == len(keys)
    account = ("--as", "system:serviceaccount:ropewalk-system:ropewalk-kubernetes-tools")
    assert empty.kubectl("auth", "can-i", "list", "pods", "-n", "ropewalk-system", *account).strip() == "yes"
    for refused in (
        ("list", "pods", "-n", "default"),
        ("delete", "pods", "-n", "ropewalk-system"),
        ("list", "secrets"),
    ):
        with pytest.raises(AssertionError):
            empty.kubectl("auth", "can-i", *refused, *account)


def test_a_release_of_an_older_chart_gets_mcp_servers_by_the_documented_command(
    empty: ApiServer, tmp_path: Path
) -> None:
    older = tmp_path / "ropewalk"
    shutil.copytree(CHART, older, ignore=shutil.ignore_patterns("operator", "rbac", "mcpservers", "tests", "NOTES.txt"))
    (older / "values.schema.json").unlink()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # What a chart may lack that came before the MCP servers.
    del values["stdio"], values["mcpServers"]
    (older / "values.yaml").write_text(yaml.safe_dump(values))
    install(empty, "--set", "operator.logLevel=debug", chart=older)
    empty.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    page = (REPOSITORY / "docs/reference/chart.md").read_text()
    (flag,) = set(re.findall(r"helm upgrade ropewalk .* (\S+) \\\n", page))
    install(empty, flag, "--set", "mcpServers.math.enabled=true")
    assert mcp_servers(empty) == ["mcpserver.ropewalk.dev/math"]
    levels = "jsonpath={..env[?(@.name=='ROPEWALK_LOG_LEVEL')].value}"
    assert empty.kubectl("get", "deployment", "ropewalk-operator", "-n", "ropewalk-system", "-o", levels) == "debug"


def test_an_mcp_server_goes_when_it_is_switched_off_and_with_the_release(empty: ApiServer) -> None:
    install(empty)
    empty.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    install(empty, "--set", "mcpServers.math.enabled=true,mcpServers.websearch.enabled=true")
    install(empty, "--reuse-values", "--set", "mcpServers.math.enabled=false")
    assert mcp_servers(empty) == ["mcpserver.ropewalk.dev/websearch"]
    helm("uninstall", *RELEASE, kubeconfig=empty.kubeconfig)
    assert mcp_servers(empty) == []


def test_a_namespace_for_restricted_pods_takes_the_charts_pods(empty: ApiServer) -> None:
    install(empty)
    empty.kubectl(
        "label", "namespace", "ropewalk-system", "pod-security.kubernetes.io/enforce=restricted", "--overwrite"
    )
    empty.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRD_NAMES))
    hooks = helm("get", "hooks", *RELEASE, kubeconfig=empty.kubeconfig)
    deployment = json.loads(
        empty.kubectl("get", "deployment", "ropewalk-operator", "-n", "ropewalk-system", "-o", "json")
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "namespace": "ropewalk-system"},
        "spec": deployment["spec"]["template"]["spec"],
    }
    empty.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))
    empty.kubectl("create", "--dry-run=server", "-f", "-", input=hooks)


def test_the_operators_account_has_no_wildcard_and_no_secret(empty: ApiServer) -> None:
    install(empty)
    account = ("--as", "system:serviceaccount:ropewalk-system:ropewalk-operator")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "ropewalk-system"},
    }
    found = json.loads(
        empty.kubectl("create", "--validate=false", "-o", "json", "-f", "-", *account, input=json.dumps(review))
    )
    rules = found["status"]["resourceRules"]
    assert {"deployments", "agents"} <= {resource for rule in rules for resource in rule["resources"]}
    for rule in rules:
        named = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not {"*", "secrets"} & named, rule
    with pytest.raises(AssertionError):
        empty.kubectl("auth", "can-i", "get", "secrets", *account)


def test_an_upgrade_upgrades_the_crds(empty: ApiServer, tmp_path: Path) -> None:
    install(empty)
    uid = make_agent(empty)
    newer = tmp_path / "ropewalk"
    shutil.copytree(CHART, newer)
    file = newer / "files" / "crds" / "agent.yaml"
    file.write_text(file.read_text().replace("    - ag\n", "    - ag\n    - agt\n"))
    install(empty, chart=newer)
    assert crd(empty)["spec"]["names"]["shortNames"] == ["ag", "agt"]
    assert agent_uid(empty) == uid


def test_an_uninstall_keeps_crds_and_agents_and_the_next_install_adopts_them(empty: ApiServer, tmp_path: Path) -> None:
    install(empty)
    uid, crd_uid = make_agent(empty), crd(empty)["metadata"]["uid"]
    helm("uninstall", *RELEASE, kubeconfig=empty.kubeconfig)
    assert agent_uid(empty) == uid
    assert "ropewalk-operator" not in empty.kubectl("get", "deployment,clusterrole", "-A", "-o", "name")
    newer = tmp_path / "ropewalk"
    shutil.copytree(CHART, newer)
    file = newer / "files" / "crds" / "agent.yaml"
    file.write_text(file.read_text().replace("    - ag\n", "    - ag\n    - agt\n"))
    helm("install", RELEASE[0], str(newer), *RELEASE[1:], kubeconfig=empty.kubeconfig)
    assert crd(empty)["metadata"]["uid"] == crd_uid
    assert crd(empty)["spec"]["names"]["shortNames"] == ["ag", "agt"]
    assert agent_uid(empty) == uid


def test_an_install_under_another_name_takes_over_when_asked(empty: ApiServer) -> None:
    install(empty)
    uid = make_agent(empty)
    helm("uninstall", *RELEASE, kubeconfig=empty.kubeconfig)
    other = ("install", "other", str(CHART), "--namespace", "elsewhere", "--create-namespace")
    assert "invalid ownership metadata" in run_helm(*other, kubeconfig=empty.kubeconfig).stderr
    helm(*other, "--take-ownership", kubeconfig=empty.kubeconfig)
    assert crd(empty)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "other"
    assert agent_uid(empty) == uid
    helm("uninstall", "other", "--namespace", "elsewhere", kubeconfig=empty.kubeconfig)


def test_crds_that_kubectl_applied_can_be_left_alone(empty: ApiServer) -> None:
    empty.kubectl("apply", "-f", str(REPOSITORY / "crds"))
    install(empty, "--set", "crds.enabled=false")
    assert "meta.helm.sh/release-name" not in crd(empty)["metadata"]["annotations"]


def test_switching_the_crds_off_keeps_them(empty: ApiServer) -> None:
    install(empty)
    uid = make_agent(empty)
    install(empty, "--set", "crds.enabled=false")
    assert agent_uid(empty) == uid
