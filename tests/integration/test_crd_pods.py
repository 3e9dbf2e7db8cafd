"""What Agents and MCPServers have in common: pods, autoscaling and network rules, refused and taken alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apiserver import ApiServer
from crd_bodies import AGENT, KEY, MCPSERVER, REDIS, Object, assert_taken, changed, create, refusal

# An Agent's pods may be many only where they share their sessions.
BASES = {
    "agent": changed(AGENT, spec__sessions={"store": "redis", "redis": REDIS}),
    "mcpserver": MCPSERVER,
    "stdio": changed(MCPSERVER, spec={"stdio": {"image": "i", "command": ["/server"]}}),
}


def pod(**fields: Any) -> Object:
    return {"pod": fields}


def env(**variable: Any) -> Object:
    return pod(env=[{"name": "A", **variable}])


def volume(name: str = "data", **kind: Any) -> Object:
    return pod(volumes=[{"name": name, **kind}])


def mount(path: str, name: str = "data") -> Object:
    return pod(volumes=[{"name": "data", "emptyDir": {}}], volumeMounts=[{"name": name, "mountPath": path}])


def egress(**rule: Any) -> Object:
    return {"networkPolicy": {"extraEgress": [rule]}}


ONE_KIND = "a volume of spec.pod.volumes is exactly one of configMap, secret, projected, downwardAPI, emptyDir"
WRONG: dict[str, tuple[Object, str]] = {
    "a label of Ropewalk's": (
        pod(labels={"ropewalk.dev/agent": "other"}),
        "spec.pod.labels holds a label that Ropewalk sets itself: remove keys that start with ropewalk.dev/",
    ),
    **{
        f"the label {name}": (
            pod(labels={f"app.kubernetes.io/{name}": "other"}),
            "spec.pod.labels holds a label that Ropewalk sets itself",
        )
        for name in ("name", "instance", "component", "managed-by")
    },
    "an annotation of Ropewalk's": (
        pod(annotations={"ropewalk.dev/config-hash": "0"}),
        "spec.pod.annotations holds an annotation that Ropewalk sets itself",
    ),
    "label key that is none": (pod(labels={"a b": "c"}), "spec.pod.labels holds a key that is no label's"),
    "label value that is none": (pod(labels={"a": "b c"}), "spec.pod.labels.a"),
    "node label that is none": (pod(nodeSelector={"a b": "c"}), "spec.pod.nodeSelector holds a key that is no label's"),
    "annotation key that is none": (pod(annotations={"a b": "c"}), "spec.pod.annotations holds a key that is no"),
    "quantity that is none": (pod(resources={"limits": {"memory": "much"}}), "spec.pod.resources.limits.memory"),
    "negative quantity": (pod(resources={"limits": {"memory": "-1Gi"}}), "spec.pod.resources.limits.memory"),
    "requests above limits": (
        pod(resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}}),
        "spec.pod.resources.requests may not be larger than spec.pod.resources.limits",
    ),
    "variable without a value": (env(), "set exactly one of value and valueFrom"),
    "variable with two values": (
        env(value="x", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}),
        "set exactly one of value and valueFrom",
    ),
    "value from nowhere": (env(valueFrom={}), "set exactly one of valueFrom.secretKeyRef"),
    "value from two places": (
        env(valueFrom={"secretKeyRef": KEY, "configMapKeyRef": KEY}),
        "set exactly one of valueFrom.secretKeyRef",
    ),
    "value from a field that is none": (
        env(valueFrom={"fieldRef": {"fieldPath": "spec.image"}}),
        "use one of metadata.name, metadata.namespace",
    ),
    "variable that is none": (pod(env=[{"name": "A=B", "value": "c"}]), "spec.pod.env[0].name"),
    "a variable twice": (
        pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "spec.pod.env[1]: Duplicate value",
    ),
    "variables from nowhere": (
        pod(envFrom=[{"prefix": "A_"}]),
        "set exactly one of configMapRef and secretRef for each entry of envFrom",
    ),
    "variables from two places": (
        pod(envFrom=[{"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}]),
        "set exactly one of configMapRef and secretRef",
    ),
    "a directory of the node": (volume(hostPath={"path": "/"}), ONE_KIND),
    "a volume of another kind": (volume(nfs={"server": "s", "path": "/"}), ONE_KIND),
    "a volume of no kind": (volume(), ONE_KIND),
    "a volume of two kinds": (volume(emptyDir={}, secret={"secretName": "a"}), ONE_KIND),
    **{
        f"the volume {name}": (
            volume(name, emptyDir={}),
            "spec.pod.volumes holds a name that Ropewalk uses itself: give the volume a name other than bridge",
        )
        for name in ("bridge", "config", "fallback-0-key", "mcp-math", "model-key", "redis-url", "sessions", "tmp")
    },
    **{
        f"a volume at {path}": (
            mount(path),
            "spec.pod.volumeMounts holds a path where Ropewalk's own files are: mount at another place",
        )
        for path in (
            "/tmp",
            "/tmp/",
            "/ropewalk",
            "/ropewalk/bin",
            "/etc/ropewalk",
            "/etc/ropewalk/secrets",
            "/var/lib/ropewalk/x",
        )
    },
    "a path that is none": (mount("data"), "spec.pod.volumeMounts[0].mountPath in body should match"),
    "a mount of a volume that is not there": (
        mount("/data", name="dat"),
        "spec.pod.volumeMounts names a volume that is not there: add it to spec.pod.volumes",
    ),
    "a toleration of no effect": (pod(tolerations=[{"effect": "Never"}]), 'Unsupported value: "Never"'),
    "a constraint without a place": (
        pod(topologySpreadConstraints=[{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]),
        "spec.pod.topologySpreadConstraints[0].topologyKey: Required value",
    ),
    "a priority class that is none": (pod(priorityClassName="A b"), "spec.pod.priorityClassName"),
    "service account that is none": (pod(serviceAccountName="A b"), "spec.pod.serviceAccountName"),
    "security settings": (pod(securityContext={"runAsUser": 0}), 'unknown field "spec.pod.securityContext"'),
    "autoscaling beside replicas": (
        {"replicas": 3, "autoscaling": {}},
        "spec.replicas has no effect beside spec.autoscaling: remove it, and set spec.autoscaling.minReplicas and",
    ),
    "autoscaling with its bounds in the wrong order": (
        {"autoscaling": {"minReplicas": 5, "maxReplicas": 4}},
        "spec.autoscaling.minReplicas is above maxReplicas: lower the one or raise the other",
    ),
    "autoscaling to nothing": ({"autoscaling": {"minReplicas": 0}}, "should be greater than or equal to 1"),
    "autoscaling by what is not requested": (
        {"autoscaling": {}, "pod": {"resources": {"requests": {"cpu": "1"}}}},
        "spec.autoscaling measures in percent of what is requested: set spec.pod.resources.requests.cpu and memory",
    ),
    "rules of no policy": (
        {"networkPolicy": {"enabled": False, "extraEgress": [{}]}},
        "spec.networkPolicy.extraEgress has no effect while enabled is false: remove it",
    ),
    "a rule with a field that is none": (egress(from_=[]), 'unknown field "spec.networkPolicy.extraEgress[0].from_"'),
    "a protocol that is none": (egress(ports=[{"port": 1, "protocol": "HTTP"}]), 'Unsupported value: "HTTP"'),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_the_fix_whatever_the_kind(
    server: ApiServer, fields: Object, message: str
) -> None:
    for body in (BASES["agent"], BASES["mcpserver"]):
        assert message in refusal(server, {**body, "spec": {**body["spec"], **fields}})


RIGHT: list[Object] = [
    pod(env=[{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"secretKeyRef": KEY}}]),
    pod(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}}]),
    pod(envFrom=[{"prefix": "A_", "configMapRef": {"name": "a", "optional": True}}, {"secretRef": {"name": "a"}}]),
    pod(labels={"team": "a", "example.com/team": "", "app.kubernetes.io/part-of": "x"}),
    pod(annotations={"sidecar.example.com/Inject": "no, thank you"}),
    pod(resources={"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"cpu": "1500m", "memory": "1e9"}}),
    pod(imagePullSecrets=[{"name": "a"}], serviceAccountName="mine", nodeSelector={"a": "b"}, priorityClassName="high"),
    pod(
        volumes=[
            {"name": "a", "configMap": {"name": "a", "items": [{"key": "k", "path": "p"}], "defaultMode": 288}},
            {"name": "b", "secret": {"secretName": "b", "optional": True}},
            {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "cloud"}}]}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "f", "persistentVolumeClaim": {"claimName": "f", "readOnly": True}},
            {"name": "g", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
            {"name": "h", "csi": {"driver": "d.example.com", "volumeAttributes": {"a": "b"}}},
        ],
        volumeMounts=[
            {"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/tmp/b", "subPath": "s", "readOnly": True},
            {"name": "a", "mountPath": "/etc/ropewalks"},
        ],
    ),
    pod(
        tolerations=[{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 9}],
        affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        topologySpreadConstraints=[
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2},
            {"maxSkew": 2, "topologyKey": "node", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}},
        ],
    ),
    {"autoscaling": {"minReplicas": 1, "maxReplicas": 100, "targetCPUPercent": 150, "targetMemoryPercent": 1}},
    {"autoscaling": {}, "pod": {"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}},
    {"networkPolicy": {"enabled": False}},
    egress(),
    egress(
        to=[
            {"podSelector": {"matchLabels": {"app": "db"}}, "namespaceSelector": {}},
            {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]}},
        ],
        ports=[{"port": 5432, "protocol": "TCP"}, {"port": "dns", "protocol": "UDP"}, {"port": 1, "endPort": 9}],
    ),
]  # fmt: skip


@pytest.mark.parametrize("fields", RIGHT, ids=lambda fields: json.dumps(fields, separators=(",", ":"))[:60])
def test_what_is_right_is_taken_as_it_is_whatever_the_kind(server: ApiServer, fields: Object) -> None:
    for body in BASES.values():
        assert_taken(server, {**body, "spec": {**body["spec"], **fields}})


@pytest.mark.parametrize("base", BASES)
def test_autoscaling_and_network_rules_get_their_defaults(server: ApiServer, base: str) -> None:
    body = BASES[base]
    spec = create(server, {**body, "spec": {**body["spec"], "autoscaling": {}, "networkPolicy": {}}})["spec"]
    assert spec["autoscaling"] == {
        "minReplicas": 2, "maxReplicas": 10, "targetCPUPercent": 70, "targetMemoryPercent": 80,
    }  # fmt: skip
    assert spec["networkPolicy"] == {"enabled": True}
