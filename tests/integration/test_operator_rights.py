"""The rights that the chart gives are those that the operator uses: no call is refused, and no right is idle.

The operator runs with nothing but the account that the chart makes, in each of its two modes, and goes through
everything that it does to any kind. What it asked for is in the API server's audit log.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, serving_crds
from apiserver_audit import Right, granted
from chart_helm import CHART, REPOSITORY, helm
from operator_installed import installed
from operator_namespace import MODEL, Namespace
from ropewalk_operator import names
from ropewalk_operator.kinds import CHILDREN, KEPT, Kind
from waiting import until

PAGE = REPOSITORY / "docs" / "reference" / "rights.md"
FILES = {"sessions": {"store": "file"}}
MANY = {
    "sessions": {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}},
    "autoscaling": {"minReplicas": 2, "maxReplicas": 3},
}
# What an Agent must ask for to have a child of this kind; any has the others.
ASKING_FOR: dict[str, dict[str, Any]] = {
    "PersistentVolumeClaim": FILES,
    "HorizontalPodAutoscaler": MANY,
    "PodDisruptionBudget": MANY,
}
PODS = {"matchLabels": {"app": "x"}}
SPECS: dict[str, dict[str, Any]] = {
    "Service": {"ports": [{"port": 80}]},
    "Deployment": {
        "replicas": 0,
        "selector": PODS,
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}},
    },
    "PersistentVolumeClaim": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    "NetworkPolicy": {"podSelector": PODS},
    "HorizontalPodAutoscaler": {
        "maxReplicas": 1,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
    },
    "PodDisruptionBudget": {"selector": PODS, "maxUnavailable": 1},
}
RELEASES = {"cluster": "ropewalk-system", "namespaced": "team"}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serving_crds(audited=True) as started:
        yield started


def user(mode: str) -> str:
    return f"system:serviceaccount:{RELEASES[mode]}:ropewalk-operator"


def body(kind: Kind, name: str, **metadata: Any) -> dict[str, Any]:
    version = f"{kind.group}/{kind.version}" if kind.group else kind.version
    made: dict[str, Any] = {"apiVersion": version, "kind": kind.name, "metadata": {"name": name, **metadata}}
    if kind.name in SPECS:
        made["spec"] = SPECS[kind.name]
    return made


@pytest.fixture(scope="module", params=RELEASES)
def mode(server: ApiServer, request: pytest.FixtureRequest) -> str:
    """A mode in which the chart is installed."""
    mode = str(request.param)
    values = "crds.enabled=false" + (",watchNamespaces={team}" if mode == "namespaced" else "")
    place = ("-n", RELEASES[mode], "--create-namespace")
    helm("install", "ropewalk", str(CHART), *place, "--set", values, kubeconfig=server.kubeconfig)
    return mode


def rights(server: ApiServer, mode: str) -> set[Right]:
    """What the chart gives the operator, all roles together."""
    kind = "clusterroles,roles" if mode == "cluster" else "roles"
    roles = json.loads(server.kubectl("get", kind, "-A", "-l", "app.kubernetes.io/instance=ropewalk", "-o", "json"))
    named = [role for role in roles["items"] if role["metadata"]["name"].startswith("ropewalk-operator")]
    home = RELEASES[mode]
    own = [role for role in named if role["metadata"].get("namespace", home) == home]
    assert own
    return {right for role in own for right in granted(role["rules"])}


def listed(server: ApiServer, mode: str, namespace: str) -> str:
    """What kubectl says that the operator may do in a namespace, without the addresses that every account may read."""
    said = server.kubectl("auth", "can-i", "--list", "-n", namespace, f"--as={user(mode)}")
    head, *rows = (re.split(r" {2,}", line.strip()) for line in said.splitlines() if not line.startswith(" "))
    cells = [(head[0], head[-2], head[-1]), *sorted((row[0], row[-2], row[-1]) for row in rows)]
    return "".join(f"{resource:<48}{only:<22}{verbs}\n" for resource, only, verbs in cells)


def objects(*bodies: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})


def find_somebody_elses(namespace: Namespace) -> None:
    """Make the operator look at objects that have the names of children of its own."""
    taken = {f"taken-{kind.name.lower()}": kind for kind in CHILDREN}
    stranger = objects(*(body(kind, f"{name}-agent") for name, kind in taken.items()))
    namespace.kubectl("create", "-f", "-", stdin=stranger)
    for name, kind in taken.items():
        namespace.agent(name, **ASKING_FOR.get(kind.name, {}))
    until(lambda: agents_refused(namespace) == set(taken), "somebody else's objects are found")


def agents_refused(namespace: Namespace) -> set[str]:
    """Agents that are told that a child's name is taken."""
    agents = json.loads(namespace.kubectl("get", "agents", "-o", "json"))["items"]
    return {
        agent["metadata"]["name"]
        for agent in agents
        for condition in agent.get("status", {}).get("conditions", ())
        if condition.get("reason") == "ChildNameTaken"
    }


def remove_what_is_too_many(namespace: Namespace, owner: dict[str, Any]) -> None:
    """Make the operator remove objects that their owner does not want, as an earlier operator may have left them."""
    reference = {key: owner["metadata"][key] for key in ("name", "uid")} | {
        "apiVersion": owner["apiVersion"], "kind": "Agent", "controller": True,
    }  # fmt: skip
    labels = {names.MANAGED_BY: names.FIELD_MANAGER, names.OWNER_LABELS["Agent"]: owner["metadata"]["name"]}
    removable = [kind for kind in CHILDREN if kind.name not in KEPT]
    left = objects(*(body(kind, "left", ownerReferences=[reference], labels=labels) for kind in removable))
    namespace.kubectl("create", "-f", "-", stdin=left)
    plurals = ",".join(kind.plural for kind in removable)
    until(lambda: "/left" not in namespace.kubectl("get", plurals, "-o", "name"), "what is too many is gone")


def go_through_everything(namespace: Namespace) -> None:
    """Make the operator do all that it ever does to any kind."""
    find_somebody_elses(namespace)
    namespace.agent()
    namespace.agent("files", **FILES)
    namespace.agent("many", **MANY)
    namespace.apply("MCPServer", "math", {"image": "ropewalk.dev/mcp-math:0.1.0"})
    namespace.apply("Model", "house", MODEL)
    until(lambda: namespace.get("deployment", "calc-agent"), "the children are made")
    remove_what_is_too_many(namespace, namespace.get("agent", "calc") or {})
    # A pod whose volumes may be missing: the operator asks for its Events.
    selector = ("-l", f"{names.OWNER_LABELS['Agent']}=calc", "-o", "name")
    pod = until(lambda: namespace.kubectl("get", "pods", *selector).split(), "its pod is made")[0]
    scheduled = {"conditions": [{"type": "PodScheduled", "status": "True"}]}
    namespace.kubectl("patch", pod, "--subresource=status", "--type=merge", "-p", json.dumps({"status": scheduled}))


def test_the_operator_uses_its_rights_and_no_others(server: ApiServer, mode: str, tmp_path: Path) -> None:
    process = installed(server, RELEASES[mode], tmp_path / "log").start()
    try:
        namespace = Namespace(server, "everything" if mode == "cluster" else "team")
        go_through_everything(namespace)
        given = rights(server, mode)

        def used() -> set[Right]:
            return {right for call in server.calls(user(mode)) for right in call.used()}

        def nothing_is_idle() -> bool:
            assert sorted(given - used()) == []
            return True

        until(nothing_is_idle, "every right is used")
        assert sorted(used() - given) == []
        assert [call for call in server.calls(user(mode)) if call.status == 403] == []
        if mode == "namespaced":
            assert {call.namespace for call in server.calls(user(mode))} == {"team"}
    finally:
        process.stop()


def test_the_page_lists_the_rights_as_kubernetes_does(server: ApiServer, mode: str) -> None:
    parts = re.split(rf"(?<=<!-- {mode} -->\n```\n)(.*?)(?=```)", PAGE.read_text(), maxsplit=1, flags=re.DOTALL)
    assert len(parts) == 3, f"{PAGE.name} has no block for {mode}"
    now = listed(server, mode, RELEASES[mode])
    if os.environ.get("ROPEWALK_GOLDEN") == "write":
        PAGE.write_text(parts[0] + now + parts[2])
    else:
        assert parts[1] == now, "run these tests once with ROPEWALK_GOLDEN=write, and read the diff"
