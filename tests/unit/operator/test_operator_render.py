"""Rendering against golden files: every folder in golden/ holds in.yaml (resources) and out.yaml (the children).

ROPEWALK_GOLDEN=write rewrites the out.yaml files; the diff is the review.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from operator_world import MODEL, agent, mcp_server, model, owner
from ropewalk_operator import api, names
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render.agent import agent_children
from ropewalk_operator.render.claim import Claimed, claim
from ropewalk_operator.render.mcpserver import mcp_children
from ropewalk_operator.render.pod import config_hash

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "ropewalk.dev/agent:0.1.0"
STDIO_IMAGE = "ropewalk.dev/mcp-stdio:0.1.0"


class Block(str):
    """Text that is shown line by line in YAML."""


class Dumper(yaml.SafeDumper):
    """Plain YAML without anchors, and settings files as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _block)


def rendered(folder: Path) -> str:
    bodies = list(yaml.safe_load_all((folder / "in.yaml").read_text()))
    for body in bodies:
        body["metadata"].setdefault("namespace", "default")
        body["metadata"].setdefault("uid", f"uid-of-{body['metadata']['name']}")
    servers = {body["metadata"]["name"]: api.mcp_server(body) for body in bodies if body["kind"] == "MCPServer"}
    prompts = {body["metadata"]["name"]: body["data"] for body in bodies if body["kind"] == "ConfigMap"}
    models = {body["metadata"]["name"]: api.model(body) for body in bodies if body["kind"] == "Model"}
    manifests: list[Manifest] = []
    for body in bodies:
        if body["kind"] == "MCPServer":
            manifests += server_children(servers[body["metadata"]["name"]])
        elif body["kind"] == "Agent":
            parsed = api.agent(body)
            prompt = parsed.system_prompt
            if parsed.system_prompt_from is not None:
                ref = parsed.system_prompt_from.config_map_key_ref
                prompt = prompts[ref.name][ref.key]
            assert prompt is not None
            model = models[parsed.model_ref.name] if parsed.model_ref else None
            manifests += children(parsed, prompt, servers, model)
    return yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, width=120)


def children(
    parsed: api.Agent,
    prompt: str = "Hi.",
    servers: dict[str, api.MCPServer] | None = None,
    model: api.ModelSpec | None = None,
) -> list[Manifest]:
    chosen = model or parsed.model
    assert chosen is not None
    return agent_children(
        parsed,
        model=chosen,
        system_prompt=prompt,
        servers=servers or {},
        image=IMAGE,
        pull_policy="IfNotPresent",
    )


def server_children(parsed: api.MCPServer, *, sticky: bool = False, scrapers: Manifest | None = None) -> list[Manifest]:
    options: dict[str, Any] = {"stdio_image": STDIO_IMAGE, "pull_policy": "IfNotPresent"}
    return mcp_children(parsed, **options, sticky=sticky, scrapers=scrapers)


@pytest.mark.parametrize("folder", sorted(GOLDEN.iterdir()), ids=lambda folder: folder.name)
def test_children_are_rendered_as_the_golden_file_says(folder: Path) -> None:
    text = rendered(folder)
    if os.environ.get("ROPEWALK_GOLDEN") == "write":
        (folder / "out.yaml").write_text(text)
    assert text == (folder / "out.yaml").read_text(), "run the tests with ROPEWALK_GOLDEN=write and review the diff"


def hash_of(**spec: Any) -> str | None:
    return config_hash(children(api.agent(agent(**spec))))


def test_the_config_hash_changes_with_settings_and_template_and_not_with_scaling() -> None:
    base = hash_of()
    assert hash_of() == base
    assert hash_of(concurrency=2) != base
    assert hash_of(pod={"resources": {"limits": {"memory": "1Gi"}}}) != base
    assert hash_of(replicas=0) == base
    assert hash_of(suspend=True) == base


def test_a_model_of_ones_own_and_the_same_one_shared_make_the_same_children() -> None:
    shared = api.agent(agent(modelRef={"name": "house"}))
    assert children(shared, model=api.model(model())) == children(api.agent(agent()))


def test_every_child_carries_the_name_the_labels_and_the_controlling_owner() -> None:
    for parent, manifests in (
        (api.agent(agent()), children(api.agent(agent()))),
        (api.mcp_server(mcp_server()), server_children(api.mcp_server(mcp_server()))),
    ):
        for manifest in manifests:
            assert manifest["metadata"]["name"] == names.child(parent)
            assert manifest["metadata"]["labels"] == names.labels(parent)
            (reference,) = manifest["metadata"]["ownerReferences"]
            assert (reference["uid"], reference["controller"]) == (parent.uid, True)
            assert reference["blockOwnerDeletion"] is False


def test_the_labels_of_the_user_never_replace_those_of_the_operator() -> None:
    parsed = api.agent(agent(pod={"labels": {"team": "a"}}))
    template = children(parsed)[-1]["spec"]["template"]
    assert template["metadata"]["labels"] == {"team": "a", **names.labels(parsed)}


def test_an_environment_variable_of_the_user_replaces_the_default_once() -> None:
    parsed = api.agent(agent(pod={"env": [{"name": "ROPEWALK_LOG_LEVEL", "value": "debug"}]}))
    environment = children(parsed)[-1]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [entry["value"] for entry in environment if entry["name"] == "ROPEWALK_LOG_LEVEL"] == ["debug"]


def egress(base_url: str | None, **model: Any) -> list[dict[str, Any]]:
    spec = {"provider": "openai-compatible", "id": "m", "baseURL": base_url, **model}
    policy = children(api.agent(agent(model={key: value for key, value in spec.items() if value})))[-2]
    rules: list[dict[str, Any]] = policy["spec"]["egress"][1:]
    return rules


def test_the_model_may_be_reached_and_nothing_else() -> None:
    assert egress("http://demo-model:8080/v1") == [{"to": [{"podSelector": {}}]}]
    label = {"kubernetes.io/metadata.name": "models"}
    namespace = [{"to": [{"namespaceSelector": {"matchLabels": label}}]}]
    assert egress("http://server.models.svc:80/v1") == namespace
    assert egress("http://server.models.svc.cluster.local/v1") == namespace
    assert egress("https://api.example.com/v1") == [{"ports": [{"port": 443, "protocol": "TCP"}]}]
    assert egress("http://api.example.com:8443/v1") == [{"ports": [{"port": 8443, "protocol": "TCP"}]}]
    assert egress("http://[2001:db8::1]:8080/v1") == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    assert egress("http://192.0.2.1:8080/v1") == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    assert egress(None, provider="bedrock") == [{"ports": [{"port": 443, "protocol": "TCP"}]}]


def test_a_name_of_two_parts_may_be_a_service_in_a_namespace_or_a_public_name() -> None:
    namespace = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}]}
    assert egress("http://llm.models:80/v1") == [namespace, {"ports": [{"port": 80, "protocol": "TCP"}]}]
    assert {"ports": [{"port": 443, "protocol": "TCP"}]} in egress("https://example.com/v1")


def test_models_to_fall_back_to_and_redis_may_be_reached_too() -> None:
    fallbacks = [
        {"provider": "ollama", "id": "m", "baseURL": "http://ollama:11434"},
        {"provider": "gemini", "id": "m", "apiKeySecretRef": {"name": "keys", "key": "k"}},
    ]
    sessions = {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}
    spec = {**MODEL, "baseURL": "http://server.models.svc/v1", "fallbacks": fallbacks}
    policy = one(children(api.agent(agent(model=spec, sessions=sessions))), "NetworkPolicy")
    assert policy["spec"]["egress"][1:] == [
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}]},
        {"to": [{"podSelector": {}}]},
        {"ports": [{"port": 443, "protocol": "TCP"}]},
        {"ports": [{"port": 6379, "protocol": "TCP"}]},
    ]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


@pytest.mark.parametrize("sessions", [{}, {"store": "redis", "redis": {"urlSecretRef": {"name": "r", "key": "u"}}}])
def test_an_agent_without_files_has_five_children_and_pods_replaced_one_by_one(sessions: dict[str, Any]) -> None:
    made = children(api.agent(agent(sessions=sessions)))
    assert sorted(manifest["kind"] for manifest in made) == [
        "ConfigMap", "Deployment", "NetworkPolicy", "Service", "ServiceAccount",
    ]  # fmt: skip
    assert made[-1]["spec"]["strategy"]["type"] == "RollingUpdate"


def test_an_agent_with_files_ends_its_old_pod_first_so_that_only_one_writes() -> None:
    made = children(api.agent(agent(sessions={"store": "file"})))
    assert one(made, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert one(made, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    template = made[-1]["spec"]["template"]["spec"]
    (volume,) = [each for each in template["volumes"] if "persistentVolumeClaim" in each]
    assert volume["persistentVolumeClaim"]["claimName"] == "calc-agent"
    assert template["securityContext"]["fsGroup"] == template["securityContext"]["runAsUser"], "or it could not write"


def test_pods_name_no_user_where_the_cluster_chooses_users() -> None:
    parsed = api.agent(agent())
    assert parsed.model is not None
    options: dict[str, Any] = {"pull_policy": "IfNotPresent", "fixed_user": False}
    made = [
        agent_children(parsed, model=parsed.model, system_prompt="Hi.", servers={}, image=IMAGE, **options),
        mcp_children(api.mcp_server(mcp_server()), stdio_image=STDIO_IMAGE, **options),
    ]
    for each in made:
        security = one(each, "Deployment")["spec"]["template"]["spec"]["securityContext"]
        assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("wanted", "claimed", "asked"),
    [
        ("1Gi", None, "1Gi"),
        ("2Gi", Claimed("1Gi", is_bound=True), "2Gi"),
        ("2Gi", Claimed("1Gi", is_bound=False), "1Gi"),
        ("1Gi", Claimed("2Gi", is_bound=True), "2Gi"),
        ("1Gi", Claimed("2Gi", is_bound=False), "2Gi"),
        ("1Gi", Claimed("1024Mi", is_bound=True), "1Gi"),
        ("1Gi", Claimed("1100M", is_bound=True), "1100M"),
    ],
)
def test_a_claim_is_as_large_as_wanted_or_as_it_is_already(wanted: str, claimed: Claimed | None, asked: str) -> None:
    parsed = api.agent(agent(sessions={"store": "file", "file": {"size": wanted}}))
    assert claim(parsed, claimed)["spec"]["resources"]["requests"] == {"storage": asked}


REDIS = {"sessions": {"store": "redis", "redis": {"urlSecretRef": {"name": "r", "key": "u"}}}}
KEY = {"name": "keys", "key": "k"}


def out_of(server: dict[str, Any]) -> list[dict[str, Any]]:
    policy = one(server_children(api.mcp_server(server)), "NetworkPolicy")
    rules: list[dict[str, Any]] = policy["spec"]["egress"]
    return rules


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("1.1.1.1", True), ("203.0.114.1", True), ("168.63.129.15", True), ("2606:4700::1111", True),
        ("64:ff9b::101:101", True),
        ("10.1.2.3", False), ("172.31.255.255", False), ("192.168.1.1", False), ("100.100.100.200", False),
        ("127.0.0.1", False), ("169.254.169.254", False), ("168.63.129.16", False), ("198.18.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fd00:ec2::254", False), ("fe80::1", False), ("ff02::1", False),
        ("64:ff9b:1::a01:203", False), ("2002:a01:203::1", False),
    ],
)  # fmt: skip
def test_a_server_reaches_the_public_internet_and_nothing_else(address: str, is_open: bool) -> None:
    _, web = out_of(mcp_server())
    assert web["ports"] == [{"port": port, "protocol": "TCP"} for port in (80, 443)]
    blocks = [each["ipBlock"] for each in web["to"]]
    found = ipaddress.ip_address(address)
    (block,) = [each for each in blocks if ipaddress.ip_network(each["cidr"]).version == found.version]
    assert any(found in ipaddress.ip_network(each) for each in block["except"]) != is_open
    for each in block["except"]:
        # The API server wants strict subsets in their shortest form.
        assert str(ipaddress.ip_network(each)) == each
        assert ipaddress.ip_network(each).subnet_of(ipaddress.ip_network(block["cidr"]))  # type: ignore[arg-type]


def test_a_server_without_network_rules_has_none_and_a_remote_one_has_nothing() -> None:
    kinds = [each["kind"] for each in server_children(api.mcp_server(mcp_server(networkPolicy={"enabled": False})))]
    assert kinds == ["ServiceAccount", "Service", "Deployment"]
    assert server_children(api.mcp_server(mcp_server(remote={"url": "https://a.example.com"}))) == []


def test_an_agent_may_fetch_its_tokens_and_reach_its_remote_servers() -> None:
    credentials = {"tokenURL": "http://login.auth.svc:8080/t", "clientIDSecretRef": KEY, "clientSecretSecretRef": KEY}
    remote = {"url": "https://a.example.com:8443/mcp"}
    servers = {"math": api.mcp_server(mcp_server(remote=remote, auth={"clientCredentials": credentials}))}
    made = children(api.agent(agent(mcpServers=[{"name": "math"}])), servers=servers)
    rules = one(made, "NetworkPolicy")["spec"]["egress"]
    assert {"ports": [{"port": 8443, "protocol": "TCP"}]} in rules
    assert {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "auth"}}}]} in rules


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        ({}, set()),
        ({"replicas": 2, **REDIS}, {"PodDisruptionBudget"}),
        ({"replicas": 2, "suspend": True, **REDIS}, set()),
        ({"autoscaling": {}, **REDIS}, {"PodDisruptionBudget", "HorizontalPodAutoscaler"}),
        ({"autoscaling": {"minReplicas": 1, "maxReplicas": 1}, **REDIS}, {"HorizontalPodAutoscaler"}),
        ({"autoscaling": {}, "suspend": True, **REDIS}, set()),
    ],
)
def test_what_scales_and_guards_pods_is_there_where_it_can_do_something(spec: dict[str, Any], kinds: set[str]) -> None:
    made = {each["kind"] for each in children(api.agent(agent(**spec)))}
    assert made & {"PodDisruptionBudget", "HorizontalPodAutoscaler"} == kinds


def test_the_operator_names_replicas_only_where_no_autoscaler_does() -> None:
    autoscaled: dict[str, Any] = {"autoscaling": {}, **REDIS}
    assert "replicas" not in one(children(api.agent(agent(**autoscaled))), "Deployment")["spec"]
    suspended = one(children(api.agent(agent(**autoscaled, suspend=True))), "Deployment")
    assert suspended["spec"]["replicas"] == 0
    assert hash_of(**autoscaled) == hash_of(**REDIS), "or a change between the two would roll the pods"


@pytest.mark.parametrize(("sticky", "affinity"), [(True, "ClientIP"), (False, "None")])
def test_a_service_is_sticky_where_a_client_has_to_meet_the_same_pod(sticky: bool, affinity: str) -> None:
    made = server_children(api.mcp_server(mcp_server()), sticky=sticky)
    assert one(made, "Service")["spec"]["sessionAffinity"] == affinity


def test_the_variables_by_which_a_server_knows_its_hosts_come_before_the_users() -> None:
    env = [{"name": "BACK", "value": "http://$(ROPEWALK_POD_IP)"}, {"name": "HOME", "value": "/data"}]
    stdio = {"stdio": {"package": {"python": "a==1"}}, "pod": {"env": env}}
    made = server_children(api.mcp_server(owner("MCPServer", "math", stdio)))
    container = one(made, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert [entry["name"] for entry in container["env"]] == [
        "ROPEWALK_MCP_ALLOWED_HOSTS", "ROPEWALK_POD_IP", "BACK", "HOME",
    ]  # fmt: skip
    assert (
        container["env"][0]["value"]
        == "math-mcp,math-mcp.default,math-mcp.default.svc,math-mcp.default.svc.cluster.local"
    )


def test_whoever_reads_the_metrics_gets_in_where_that_is_wanted_and_nobody_else() -> None:
    server = api.mcp_server(mcp_server(image="math:1", port=9000))
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}, "podSelector": {"matchExpressions": []}}
    [closed] = one(server_children(server), "NetworkPolicy")["spec"]["ingress"]
    [opened] = one(server_children(server, scrapers=peer), "NetworkPolicy")["spec"]["ingress"]
    # The API server leaves empty lists out, and would seem to have changed what was asked for.
    more = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}, "podSelector": {}}
    assert opened == {**closed, "from": [*closed["from"], more]}


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"stdio": {"image": "math:1", "command": ["math"]}}, "true"),
        ({"stdio": {"image": "math:1", "command": ["math"]}, "pod": {"labels": {names.SCRAPED: "false"}}}, "false"),
        ({"image": "math:1"}, None),
        ({"image": "math:1", "pod": {"labels": {names.SCRAPED: "true"}}}, "true"),
    ],
)
def test_pods_say_whether_they_have_metrics(spec: dict[str, Any], value: str | None) -> None:
    pod = one(server_children(api.mcp_server(mcp_server(**spec))), "Deployment")["spec"]["template"]
    assert pod["metadata"]["labels"].get(names.SCRAPED) == value
