"""The rights that the chart gives: the least that works, nothing by wildcard, no Secret."""

from __future__ import annotations

from typing import Any

import pytest

from chart_helm import named, of_kind, only, render
from ropewalk_operator.kinds import CHILDREN, EVENT, KEPT, POD, RESOURCES

KEEP = {"get", "list", "watch", "create", "patch"}
# What the code does to each kind. tests/integration/test_operator_rights.py shows that it does.
OPERATOR_RULES = {
    **{(kind.group, kind.plural): {"list", "watch"} for kind in (*RESOURCES, POD)},
    **{(kind.group, f"{kind.plural}/status"): {"patch"} for kind in RESOURCES},
    **{(kind.group, kind.plural): KEEP | (set() if kind.name in KEPT else {"delete"}) for kind in CHILDREN},
    (EVENT.group, EVENT.plural): {"create", "list"},
}
COMBINATIONS = [
    (),
    ("--set", "watchNamespaces={a,b}"),
    ("--set", "rbac.aggregate=false"),
    ("--set", "monitoring.podMonitor.enabled=true,monitoring.dashboards.enabled=true"),
]


def granted(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("arguments", COMBINATIONS)
def test_no_role_has_a_wildcard_or_names_secrets(arguments: tuple[str, ...]) -> None:
    roles = of_kind(render(*arguments), "ClusterRole", "Role")
    assert roles
    for role in roles:
        for (group, resource), verbs in granted(role).items():
            assert "*" not in (group, resource, *verbs), role["metadata"]["name"]
            assert not resource.startswith("secrets"), role["metadata"]["name"]


def test_the_operator_may_do_exactly_what_it_does() -> None:
    assert granted(only(render(), "ClusterRole", "ropewalk-operator")) == OPERATOR_RULES


def test_with_watch_namespaces_the_operator_has_roles_there_and_nowhere_else() -> None:
    objects = render("--set", "watchNamespaces={a,b}")
    roles = named(objects, "Role", "ropewalk-operator")
    assert [role["metadata"]["namespace"] for role in roles] == ["a", "b"]
    assert all(granted(role) == OPERATOR_RULES for role in roles)
    bindings = named(objects, "RoleBinding", "ropewalk-operator")
    assert [each["metadata"]["namespace"] for each in bindings] == ["a", "b"]
    for binding in bindings:
        assert binding["subjects"][0]["namespace"] == "ropewalk-system"
    assert of_kind(objects, "ClusterRoleBinding") == []
    assert of_kind(objects, "ClusterRole") == []


@pytest.mark.parametrize("arguments", [(), ("--set", "watchNamespaces={a,b}")])
def test_the_operator_may_use_its_lease_in_its_own_namespace_only(arguments: tuple[str, ...]) -> None:
    objects = render(*arguments)
    (role,) = [each for each in of_kind(objects, "ClusterRole", "Role") if "leases" in str(each["rules"])]
    assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "ropewalk-system")
    rules = [(rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"]]
    assert rules == [(["ropewalk-operator"], ["get", "update"]), (None, ["create"])]
    (binding,) = named(objects, "RoleBinding", role["metadata"]["name"])
    assert binding["metadata"]["namespace"] == "ropewalk-system"
    assert [subject["name"] for subject in binding["subjects"]] == ["ropewalk-operator"]


def test_no_rights_are_given_when_somebody_else_gives_them() -> None:
    objects = render("--set", "rbac.create=false,rbac.aggregate=false")
    assert of_kind(objects, "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding") == []


def test_viewers_read_and_editors_change_what_users_write() -> None:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    objects = render()
    view, edit = (only(objects, "ClusterRole", f"ropewalk-{name}") for name in ("view", "edit"))
    assert {key.removeprefix(prefix) for key in view["metadata"]["labels"] if key.startswith(prefix)} == {
        "view", "edit", "admin",
    }  # fmt: skip
    assert {key.removeprefix(prefix) for key in edit["metadata"]["labels"] if key.startswith(prefix)} == {
        "edit", "admin",
    }  # fmt: skip
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    for plural in ("agents", "mcpservers", "models"):
        assert "list" in granted(view)["ropewalk.dev", plural]
        assert "get" in granted(view)["ropewalk.dev", f"{plural}/status"]
        assert {"create", "patch", "delete"} <= set(granted(edit)["ropewalk.dev", plural])
    assert {key for key in granted(edit) if key[1].endswith("/status")} == set()
