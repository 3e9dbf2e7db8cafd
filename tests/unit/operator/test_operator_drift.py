from typing import Any

import pytest

from ropewalk_operator import drift

HELD: list[tuple[str, Any, Any]] = [
    ("a default that the API server added", {"port": 80, "protocol": "TCP"}, {"port": 80}),
    ("an entry that somebody added", {"finalizers": [{"name": "a"}, {"name": "b"}]}, {"finalizers": [{"name": "a"}]}),
    ("what the API server adds to a pod", {"containers": [], "dnsPolicy": "ClusterFirst"}, {"containers": []}),
    ("the order of a list of objects", [{"name": "b"}, {"name": "a"}], [{"name": "a"}, {"name": "b"}]),
    ("a label that somebody added", {"a": "1", "b": "2"}, {"a": "1"}),
    ("an empty value that the API server left out", {}, {"value": "", "list": [], "map": {}}),
    ("a small quantity in another notation", {"requests": {"cpu": "1"}}, {"requests": {"cpu": "1000m"}}),
    ("a large quantity in another notation", {"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1024Mi"}}),
    ("a quantity given as a number", {"limits": {"cpu": "2"}}, {"limits": {"cpu": 2}}),
    ("a target in another notation", {"averageValue": "1k"}, {"averageValue": "1000"}),
    ("a quantity with an exponent", {"limits": {"memory": "1k"}}, {"limits": {"memory": "1e3"}}),
]  # fmt: skip

DRIFTED: list[tuple[str, Any, Any]] = [
    ("another value", {"replicas": 2}, {"replicas": 1}),
    ("a field that is gone", {}, {"replicas": 1}),
    ("a refusal that is gone", {}, {"automountServiceAccountToken": False}),
    ("a number that is gone", {}, {"maxUnavailable": 0}),
    (
        "a container that somebody added",
        {"containers": [{"name": "a"}, {"name": "b"}]},
        {"containers": [{"name": "a"}]},
    ),
    ("the host's network", {"containers": [], "hostNetwork": True}, {"containers": []}),
    ("a container that runs first", {"containers": [], "initContainers": [{"name": "b"}]}, {"containers": []}),
    ("another command", {"image": "a", "command": ["evil"]}, {"image": "a"}),
    ("a variable that somebody added", {"env": [{"name": "a"}, {"name": "b"}]}, {"env": [{"name": "a"}]}),
    ("a container that is gone", [{"name": "b"}], [{"name": "a"}]),
    ("another image", [{"name": "a", "image": "y"}], [{"name": "a", "image": "x"}]),
    ("a selector with one key more", {"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}),
    ("an egress rule that somebody added", {"egress": [{"to": 1}, {"to": 2}]}, {"egress": [{"to": 1}]}),
    ("an argument that somebody added", {"args": ["a", "b"]}, {"args": ["a"]}),
    ("a resource that somebody added", {"limits": {"cpu": 1, "memory": 1}}, {"limits": {"cpu": 1}}),
    ("another type", "text", {"a": 1}),
    ("a list that became text", "ab", ["a", "b"]),
]


@pytest.mark.parametrize(("what", "live", "desired"), HELD, ids=[row[0] for row in HELD])
def test_what_others_own_is_no_drift(what: str, live: Any, desired: Any) -> None:
    assert drift.contains(live, desired), what


@pytest.mark.parametrize(("what", "live", "desired"), DRIFTED, ids=[row[0] for row in DRIFTED])
def test_a_change_of_what_is_owned_is_drift(what: str, live: Any, desired: Any) -> None:
    assert not drift.contains(live, desired), what


def test_what_is_no_quantity_compares_as_text() -> None:
    assert drift.quantity("plenty") == "plenty"


def test_a_size_in_other_words_is_no_drift() -> None:
    assert drift.contains({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1024Mi"}})
    assert not drift.contains({"emptyDir": {"sizeLimit": "2Gi"}}, {"emptyDir": {"sizeLimit": "1Gi"}})
