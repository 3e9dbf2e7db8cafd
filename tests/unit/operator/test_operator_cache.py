from typing import Any

import pytest

from clock import Clock
from operator_world import agent, mcp_server, pod
from ropewalk_operator.cache import TOMBSTONE_SECONDS, Cache
from ropewalk_operator.kinds import Key

AGENT = Key("Agent", "default", "calc")
SERVER = Key("MCPServer", "default", "math")


@pytest.fixture
def cache() -> Cache:
    return Cache()


def at(body: dict[str, Any], version: int, **metadata: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}


def child(version: int = 1, *, uid: str = "c1", owner_uid: str = "uid-of-calc", **spec: Any) -> dict[str, Any]:
    refs = [{"kind": "Agent", "name": "calc", "uid": owner_uid, "controller": True}] if owner_uid else []
    metadata = {"name": "calc-agent", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return {"kind": "Service", "metadata": {**metadata, "ownerReferences": refs}, "spec": spec}


def test_a_version_that_is_known_concerns_nobody(cache: Cache) -> None:
    assert cache.see("Agent", at(agent(), 5)) == {AGENT}
    assert cache.see("Agent", at(agent(), 5)) == set()
    assert cache.see("Agent", at(agent(), 4)) == set()
    assert cache.see("Agent", at(agent(), 6)) == {AGENT}


def test_an_mcp_server_concerns_the_agents_that_name_it_when_what_they_see_changes(cache: Cache) -> None:
    cache.see("Agent", agent(mcpServers=[{"name": "math"}]))
    assert cache.see("MCPServer", at(mcp_server(), 2)) == {SERVER, AGENT}
    assert cache.see("MCPServer", at(mcp_server(replicas=3), 3)) == {SERVER}
    assert cache.see("MCPServer", at(mcp_server(ready=True), 4)) == {SERVER, AGENT}
    assert cache.see("MCPServer", at(mcp_server(ready=True, port=9000), 5)) == {SERVER, AGENT}
    assert cache.lose("MCPServer", at(mcp_server(), 6)) == {SERVER, AGENT}


def test_an_agent_that_no_longer_names_a_server_is_not_concerned(cache: Cache) -> None:
    cache.see("Agent", at(agent(mcpServers=[{"name": "math"}]), 1))
    cache.see("Agent", at(agent(), 2))
    assert cache.agents_of_server("default", "math") == set()


def test_a_config_map_concerns_the_agents_that_take_their_prompt_from_it(cache: Cache) -> None:
    cache.see("Agent", agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "k"}}))
    prompts = {"kind": "PartialObjectMetadata", "metadata": {"name": "prompts", "namespace": "default", "uid": "p"}}
    assert cache.see("ConfigMap", at(prompts, 1)) == {AGENT}
    assert cache.see("ConfigMap", at(prompts, 1)) == set()
    assert cache.see("ConfigMap", at(prompts, 2)) == {AGENT}
    assert cache.lose("ConfigMap", at(prompts, 3)) == {AGENT}
    other = {"kind": "PartialObjectMetadata", "metadata": {"name": "other", "namespace": "default", "uid": "o"}}
    assert cache.see("ConfigMap", at(other, 1)) == set()
    assert not cache.children, "the ConfigMaps of others are not kept"


def test_a_prompt_that_is_not_in_a_listing_is_gone(cache: Cache) -> None:
    cache.see("Agent", agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "k"}}))
    prompts = {"kind": "PartialObjectMetadata", "metadata": {"name": "prompts", "namespace": "default", "uid": "p"}}
    cache.see("ConfigMap", at(prompts, 5))
    assert cache.lose_others("ConfigMap", "elsewhere", set(), 9) == set()
    assert cache.lose_others("ConfigMap", None, set(), 4) == set(), "the listing is older"
    assert cache.lose_others("ConfigMap", None, set(), 5) == {AGENT}
    assert not cache.config_maps


def test_the_end_of_an_earlier_prompt_of_the_same_name_is_none_of_the_new_one(cache: Cache) -> None:
    cache.see("Agent", agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "k"}}))
    prompts = {"kind": "PartialObjectMetadata", "metadata": {"name": "prompts", "namespace": "default", "uid": "p"}}
    cache.see("ConfigMap", at(prompts, 5, uid="new"))
    assert cache.lose("ConfigMap", at(prompts, 6, uid="old")) == set()
    assert cache.see("ConfigMap", at(prompts, 4, uid="new")) == set(), "older than what is known"
    assert cache.config_maps == {("default", "prompts"): ("new", 5)}


def test_a_child_concerns_its_owner(cache: Cache) -> None:
    assert cache.see("Service", child(1)) == {AGENT}
    assert cache.children_of("uid-of-calc") == {Key("Service", "default", "calc-agent")}
    assert cache.lose("Service", child(2)) == {AGENT}
    assert cache.children_of("uid-of-calc") == set()


def test_a_child_that_loses_its_owner_reference_still_concerns_it(cache: Cache) -> None:
    cache.see("Service", child(1))
    assert cache.see("Service", child(2, owner_uid="")) == {AGENT}


def test_the_deletion_of_an_earlier_object_of_the_same_name_is_none_of_the_new_one(cache: Cache) -> None:
    cache.see("Service", child(5, uid="new"))
    assert cache.lose("Service", child(6, uid="old")) == set()
    assert cache.children


def test_a_listing_that_is_older_than_a_deletion_does_not_bring_the_dead_back(cache: Cache) -> None:
    cache.lose("Service", child(9))
    assert cache.see("Service", child(8)) == set()
    assert not cache.children


def test_an_object_that_comes_back_into_sight_is_seen(cache: Cache) -> None:
    cache.see("Service", child(1))
    cache.lose("Service", child(2))
    assert cache.see("Service", child(3)) == {AGENT}


def test_however_many_have_gone_none_comes_back_within_the_time_of_a_listing() -> None:
    clock = Clock()
    cache = Cache(clock)
    for number in range(20_000):
        cache.lose("Service", child(9, uid=f"c{number}"))
    clock.now += TOMBSTONE_SECONDS
    cache.lose("Service", child(9, uid="last"))
    assert cache.see("Service", child(8, uid="c0")) == set()
    clock.now += 1
    cache.lose("Service", child(9, uid="later"))
    assert len(cache._gone) == 2, "what no listing can bring back is forgotten"


def test_what_is_not_in_a_listing_and_is_older_is_gone(cache: Cache) -> None:
    cache.see("Agent", at(agent("calc"), 1))
    cache.see("Agent", at(agent("new"), 9))
    assert cache.lose_others("Agent", None, set(), 5) == {AGENT}
    assert list(cache.resources) == [Key("Agent", "default", "new")]


def test_what_a_listing_has_shown_to_be_gone_does_not_come_back_with_an_older_listing(cache: Cache) -> None:
    prompts = at({"metadata": {"name": "prompts", "namespace": "default", "uid": "p"}}, 1)
    for kind, body in {"Agent": at(agent("calc"), 1), "Service": child(1), "Pod": pod(), "ConfigMap": prompts}.items():
        cache.see(kind, body)
        cache.lose_others(kind, None, set(), 5)
        assert cache.see(kind, body) == set(), kind
    assert not any((cache.resources, cache.children, cache.pods, cache.config_maps))


def test_a_listing_of_one_namespace_says_nothing_of_another(cache: Cache) -> None:
    cache.see("Agent", at(agent("calc"), 1))
    cache.see("Service", child(1))
    cache.see("Pod", pod())
    for kind in ("Agent", "Service", "Pod"):
        assert cache.lose_others(kind, "elsewhere", set(), 5) == set()
    assert cache.lose_others("Pod", "default", set(), 5) == {AGENT}
    assert cache.pods_of(AGENT) == []


def test_a_pod_concerns_its_owner_when_something_of_it_matters(cache: Cache) -> None:
    assert cache.see("Pod", pod(version=1)) == {AGENT}
    assert cache.see("Pod", pod(version=2)) == set(), "nothing that status speaks of has changed"
    assert cache.see("Pod", pod(version=3, ready=True)) == {AGENT}
    assert [each.ready for each in cache.pods_of(AGENT)] == [True]
    assert cache.lose("Pod", pod(version=4)) == {AGENT}
    assert cache.pods_of(AGENT) == []


def test_a_pod_whose_label_is_changed_leaves_its_owner(cache: Cache) -> None:
    cache.see("Pod", pod(version=1))
    relabelled = pod("dbg", name="calc-new", version=2)
    assert cache.see("Pod", relabelled) == {AGENT, Key("Agent", "default", "dbg")}
    assert cache.pods_of(AGENT) == []
    unlabelled = pod("dbg", name="calc-new", version=3)
    unlabelled["metadata"]["labels"].clear()
    assert cache.see("Pod", unlabelled) == {Key("Agent", "default", "dbg")}
    assert not cache.pods
    assert cache.lose("Pod", unlabelled) == set()


def test_metadata_alone_makes_the_content_of_a_child_unknown(cache: Cache) -> None:
    labels = {"app.kubernetes.io/managed-by": "ropewalk-operator"}
    full = {**child(1), "kind": "ConfigMap", "data": {"a": "b"}}
    full["metadata"]["labels"] = labels
    cache.see("ConfigMap", full)
    key = Key("ConfigMap", "default", "calc-agent")
    assert cache.children[key].content is not None
    partial = {"kind": "PartialObjectMetadata", "metadata": {**full["metadata"], "resourceVersion": "2"}}
    assert cache.see("ConfigMap", partial) == {AGENT}
    assert cache.children[key].content is None
    assert cache.see("ConfigMap", at(full, 2)) == {AGENT}, "a listing brings the content of the same version"
    assert cache.children[key].content is not None


def test_of_a_child_without_content_each_version_may_be_an_edit(cache: Cache) -> None:
    labels = {"app.kubernetes.io/managed-by": "ropewalk-operator"}
    partial = {"kind": "PartialObjectMetadata", "metadata": {**child(1)["metadata"], "labels": labels}}
    for version in (1, 2, 3):
        assert cache.see("ConfigMap", at(partial, version)) == {AGENT}, "a reconcile may just be reading an older one"


def test_a_resource_version_that_is_no_number_counts_as_the_oldest(cache: Cache) -> None:
    body = agent()
    body["metadata"]["resourceVersion"] = "abc"
    assert cache.see("Agent", body) == {AGENT}


def test_a_status_of_which_nothing_is_kept_concerns_nobody(cache: Cache) -> None:
    autoscaler = {**child(1), "kind": "HorizontalPodAutoscaler", "status": {"currentReplicas": 1}}
    assert cache.see("HorizontalPodAutoscaler", autoscaler) == {AGENT}
    again = {**at(autoscaler, 2), "status": {"currentReplicas": 2}}
    assert cache.see("HorizontalPodAutoscaler", again) == set()
    assert cache.children[Key("HorizontalPodAutoscaler", "default", "calc-agent")].version == 2
    assert cache.see("HorizontalPodAutoscaler", {**at(autoscaler, 3), "spec": {"maxReplicas": 1}}) == {AGENT}
