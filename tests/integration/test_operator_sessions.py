"""Where sessions are kept, beside a real API server: the claim that holds them, and the way between stores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apiserver import ApiServer
from operator_namespace import Namespace
from operator_process import OperatorProcess
from waiting import until

# The garbage collector learns of new kinds every 30 s; before that it does not know what an Agent is.
COLLECTED_SECONDS = 100
REDIS = {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}
FILES = {"store": "file"}


def claim(namespace: Namespace) -> dict[str, Any]:
    return namespace.get("persistentvolumeclaim", "calc-agent") or {}


def deployment(namespace: Namespace) -> dict[str, Any]:
    return namespace.get("deployment", "calc-agent") or {}


def strategy(namespace: Namespace) -> str:
    return str(deployment(namespace).get("spec", {}).get("strategy", {}).get("type", ""))


def accepted(namespace: Namespace) -> str:
    return str(namespace.condition("agent", "calc", "Accepted").get("message", ""))


def bind(namespace: Namespace, size: str) -> None:
    """Give the claim a volume, as a provisioner does."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace.name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/nowhere/{namespace.name}"},
            "claimRef": {"namespace": namespace.name, "name": "calc-agent"},
        },
    }
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(volume))
    until(lambda: claim(namespace).get("status", {}).get("phase") == "Bound", "the claim is bound")


def test_files_get_a_claim_that_stays_when_the_store_changes(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent()
    until(lambda: strategy(namespace) == "RollingUpdate", "the Deployment is made")
    assert not claim(namespace)

    namespace.agent(sessions=FILES)
    until(lambda: strategy(namespace) == "Recreate", "old pods end before new ones start")
    uid = claim(namespace)["metadata"]["uid"]
    volumes = deployment(namespace)["spec"]["template"]["spec"]["volumes"]
    assert {"name": "sessions", "persistentVolumeClaim": {"claimName": "calc-agent"}} in volumes
    bind(namespace, "1Gi")

    namespace.agent(sessions=REDIS, replicas=2)
    until(lambda: strategy(namespace) == "RollingUpdate", "pods are replaced one by one again")
    until(lambda: "still holds the sessions" in accepted(namespace), "the status speaks of the claim")
    spec = deployment(namespace)["spec"]
    assert spec["replicas"] == 2
    assert [each["secret"]["secretName"] for each in spec["template"]["spec"]["volumes"] if "secret" in each] == [
        "redis"
    ]
    assert "redisURLFile" in str(namespace.get("configmap", "calc-agent"))
    assert claim(namespace)["metadata"]["uid"] == uid

    namespace.agent(sessions=FILES)
    until(lambda: strategy(namespace) == "Recreate", "and back")
    until(lambda: "still holds" not in accepted(namespace), "the claim is in use again")
    assert claim(namespace)["metadata"]["uid"] == uid

    namespace.agent()
    until(lambda: "still holds the sessions" in accepted(namespace), "the claim is kept once more")
    namespace.kubectl("delete", "persistentvolumeclaim", "calc-agent", "--wait=false")
    until(lambda: "still holds" not in accepted(namespace), "what the user deletes is not missed")
    until(lambda: not claim(namespace), "the claim is gone")
    namespace.agent(systemPrompt="Be brief.")
    generation = (namespace.get("agent", "calc") or {})["metadata"]["generation"]
    until(
        lambda: namespace.condition("agent", "calc", "Accepted").get("observedGeneration") == generation,
        "the operator has looked at it again",
    )
    assert not claim(namespace), "it does not come back"


def test_a_rollout_between_stores_never_leaves_fields_of_the_other_behind(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    for sessions, wanted in ((FILES, "Recreate"), ({"store": "memory"}, "RollingUpdate"), (FILES, "Recreate")):
        namespace.agent(sessions=sessions)
        until(lambda wanted=wanted: strategy(namespace) == wanted, f"the strategy is {wanted}")  # type: ignore[misc]
        settings = json.loads((namespace.get("configmap", "calc-agent") or {})["data"]["agent.json"])
        assert settings["sessions"]["store"] == sessions["store"]
    assert "rollingUpdate" not in deployment(namespace)["spec"]["strategy"]


def test_a_bound_claim_is_left_as_it_is(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent(sessions=FILES)
    until(lambda: bool(claim(namespace)), "the claim is made")
    bind(namespace, "1Gi")
    before = claim(namespace)
    done = operator.metric("ropewalk_operator_reconcile_total")
    namespace.kubectl("annotate", "agent", "calc", "touched=yes")
    until(lambda: operator.metric("ropewalk_operator_reconcile_total") > done, "the operator has looked at it")
    assert claim(namespace)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    namespace.kubectl("label", "persistentvolumeclaim", "calc-agent", "app.kubernetes.io/name-")
    until(lambda: "app.kubernetes.io/name" in claim(namespace)["metadata"]["labels"], "a label is put back")
    assert claim(namespace)["spec"] == before["spec"]


def test_a_claim_that_its_class_does_not_let_grow_is_reported_with_the_reason(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent(sessions=FILES)
    until(lambda: bool(claim(namespace)), "the claim is made")
    bind(namespace, "1Gi")
    namespace.agent(sessions={**FILES, "file": {"size": "2Gi"}}, systemPrompt="Be brief.")
    until(lambda: namespace.condition("agent", "calc", "Available").get("reason") == "ChildRefused", "it is reported")
    message = namespace.condition("agent", "calc", "Available")["message"]
    assert "PersistentVolumeClaim calc-agent" in message
    assert "must support resize" in message
    namespace.agent(sessions={**FILES, "file": {"size": "1Gi"}}, systemPrompt="Be brief.")
    until(lambda: "Be brief." in str(namespace.get("configmap", "calc-agent")), "what was asked for beside it arrives")
    until(lambda: namespace.condition("agent", "calc", "Available").get("reason") == "Progressing", "all is well again")


def test_the_size_of_a_claim_without_a_volume_stands_in_the_way_of_nothing(
    operator: OperatorProcess, namespace: Namespace
) -> None:
    namespace.agent(sessions=FILES)
    until(lambda: bool(claim(namespace)), "the claim is made")
    namespace.agent(sessions={**FILES, "file": {"size": "2Gi"}}, systemPrompt="Be brief.")
    until(lambda: "Be brief." in str(namespace.get("configmap", "calc-agent")), "what was asked for beside it arrives")
    until(lambda: "keeps its 1Gi" in accepted(namespace), "the status speaks of the claim")


@pytest.mark.timeout(150)
def test_a_new_agent_adopts_the_larger_claim_of_a_former_one(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent(sessions={**FILES, "file": {"size": "5Gi"}})
    until(lambda: strategy(namespace) == "Recreate", "all children exist")
    bind(namespace, "5Gi")
    namespace.kubectl("delete", "agent", "calc", "--cascade=orphan", "--wait=false")
    until(lambda: "ownerReferences" not in claim(namespace)["metadata"], "the claim is an orphan", COLLECTED_SECONDS)
    until(lambda: not namespace.get("agent", "calc"), "the Agent is gone", COLLECTED_SECONDS)
    namespace.agent(sessions=FILES)
    until(lambda: "ownerReferences" in claim(namespace)["metadata"], "the claim is adopted")
    assert claim(namespace)["spec"]["resources"]["requests"] == {"storage": "5Gi"}
    until(lambda: "keeps its 5Gi" in accepted(namespace), "the status speaks of the claim")


def test_replicas_from_before_the_rule_are_reported_and_can_be_mended(
    server: ApiServer, operator: OperatorProcess, namespace: Namespace
) -> None:
    rules = without_rules(server)
    until(lambda: is_taken(namespace, replicas=2), "the rule is gone")
    put_back(server, rules)
    until(lambda: not is_taken(namespace, "other", replicas=2), "the rule is back")
    until(lambda: namespace.condition("agent", "calc", "Accepted").get("reason") == "InvalidSpec", "it is reported")
    assert "set sessions.store to redis, or replicas to 1" in accepted(namespace)
    # What the operator writes is not refused for what the user once wrote.
    namespace.kubectl(
        "patch", "agent", "calc", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":2}}'
    )
    namespace.kubectl("scale", "agent", "calc", "--replicas=1")
    until(lambda: strategy(namespace) == "RollingUpdate", "it runs")


def without_rules(server: ApiServer) -> str:
    """Take the rules of the spec out of the CRD; return the whole CRD as it was."""
    before = server.kubectl("get", "crd", "agents.ropewalk.dev", "-o", "json")
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
    patch = json.dumps([{"op": "remove", "path": path}])
    server.kubectl("patch", "crd", "agents.ropewalk.dev", "--type=json", "-p", patch)
    return before


def put_back(server: ApiServer, crd: str) -> None:
    schema = json.loads(crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
    patch = json.dumps([{"op": "add", "path": path, "value": schema["x-kubernetes-validations"]}])
    server.kubectl("patch", "crd", "agents.ropewalk.dev", "--type=json", "-p", patch)


def is_taken(namespace: Namespace, name: str = "calc", **spec: Any) -> bool:
    """Whether the API server takes an Agent; where it does not, nothing is made."""
    try:
        namespace.agent(name, **spec)
    except AssertionError:
        return False
    return True


@pytest.mark.timeout(150)
def test_deleting_the_agent_deletes_its_claim(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.agent(sessions=FILES)
    until(lambda: strategy(namespace) == "Recreate", "all children exist")
    namespace.kubectl("delete", "agent", "calc")
    until(lambda: not claim(namespace) and not namespace.children(), "all is gone", COLLECTED_SECONDS)
