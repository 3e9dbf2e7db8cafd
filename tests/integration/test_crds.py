"""What people see of the resources: words, columns, scale, and examples that the API server takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apiserver import ApiServer
from crd_bodies import AGENT, MCPSERVER, MODEL, REDIS, Object, changed, create
from waiting import until

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted(folder for folder in (REPOSITORY / "examples").iterdir() if folder.is_dir())


@pytest.fixture(scope="module")
def explained(server: ApiServer) -> ApiServer:
    """The API server publishes the words some seconds after it serves the resources."""
    published = "/openapi/v3/apis/ropewalk.dev/v1alpha1"
    until(lambda: published[1:] in server.kubectl("get", "--raw", "/openapi/v3"), "the group is published")
    until(
        lambda: all(kind in server.kubectl("get", "--raw", published) for kind in ("Agent", "MCPServer", "Model")),
        "all are",
    )
    return server


@pytest.mark.parametrize("resource", ["agent", "mcpserver", "model"])
def test_explain_has_words_for_every_field(explained: ApiServer, resource: str) -> None:
    text = explained.kubectl("explain", resource, "--recursive")
    fields = [line.strip().split("\t")[0] for line in text[text.index("FIELDS:") :].splitlines() if "\t" in line]
    assert {"spec", "status", "conditions", "baseURL" if resource == "model" else "secretKeyRef"} <= set(fields)
    served = json.loads(explained.kubectl("get", "--raw", "/openapi/v3/apis/ropewalk.dev/v1alpha1"))
    kind = {"agent": "Agent", "mcpserver": "MCPServer", "model": "Model"}[resource]
    root = next(
        schema
        for schema in served["components"]["schemas"].values()
        if schema.get("x-kubernetes-group-version-kind")
        == [{"group": "ropewalk.dev", "kind": kind, "version": "v1alpha1"}]
    )

    def bare(node: Object, path: str) -> Iterator[str]:
        if not node.get("description"):
            yield path
        for name, child in node.get("properties", {}).items():
            if path or name != "metadata":
                yield from bare(child, f"{path}.{name}")
        for inner in (node.get("items"), node.get("additionalProperties")):
            if isinstance(inner, dict):
                yield from bare(inner, f"{path}[]")

    assert list(bare(root, "")) == []


def test_explain_shows_the_words(explained: ApiServer) -> None:
    text = " ".join(explained.kubectl("explain", "agent.spec.model.baseURL").split())
    assert "Address of the provider's API" in text
    text = " ".join(explained.kubectl("explain", "model.spec.baseURL").split())
    assert "Address of the provider's API" in text


STATUS = {
    "observedGeneration": 1,
    "replicas": 2,
    "readyReplicas": 1,
    "conditions": [
        {
            "type": "Ready", "status": "False", "reason": "Progressing", "message": "1 of 2 pods are ready",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}  # fmt: skip


@pytest.fixture
def shown(server: ApiServer) -> Iterator[ApiServer]:
    """An Agent, an MCPServer and a Model with a status."""
    agent_status = {
        **STATUS,
        "model": "m",
        "url": "http://calculator-agent.default.svc:8080",
        "selector": "ropewalk.dev/agent=calculator",
    }
    server_status = {
        **STATUS,
        "url": "http://math-mcp.default.svc:8000/mcp",
        "selector": "ropewalk.dev/mcpserver=math",
        "protocolVersion": "2026-07-28",
        "serverInfo": {"name": "math", "version": "0.1.0"},
        "toolCount": 5,
        "tools": [{"name": "add", "description": "Adds", "hash": "sha256:0"}],
        "lastDiscoveryTime": "2026-01-01T00:00:00Z",
    }
    model_status = {field: STATUS[field] for field in ("observedGeneration", "conditions")}
    for body, status in ((AGENT, agent_status), (MCPSERVER, server_status), (MODEL, model_status)):
        server.kubectl("apply", "-f", "-", input=json.dumps(body))
        name = f"{body['kind'].lower()}/{body['metadata']['name']}"
        server.kubectl("patch", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    yield server
    server.kubectl("delete", "ropewalk", "--all")


def cells(table: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


def test_get_shows_what_matters(shown: ApiServer) -> None:
    header, row = cells(shown.kubectl("get", "ag"))
    assert header == ["NAME", "READY", "REASON", "MODEL", "REPLICAS", "AGE"]
    assert row[:-1] == ["calculator", "False", "Progressing", "m", "1"]
    header, row = cells(shown.kubectl("get", "mcp"))
    assert header == ["NAME", "READY", "REASON", "TOOLS", "REPLICAS", "AGE"]
    assert row[:-1] == ["math", "False", "Progressing", "5", "1"]
    header, row = cells(shown.kubectl("get", "mdl"))
    assert header == ["NAME", "PROVIDER", "MODEL", "READY", "AGE"]
    assert row[:-1] == ["house", "openai-compatible", "m", "False"]


def test_get_wide_shows_where_and_why(shown: ApiServer) -> None:
    header, row = cells(shown.kubectl("get", "ag", "-o", "wide"))
    assert header[-2:] == ["URL", "MESSAGE"]
    assert row[-2:] == ["http://calculator-agent.default.svc:8080", "1 of 2 pods are ready"]
    header, row = cells(shown.kubectl("get", "mcp", "-o", "wide"))
    assert header[-2:] == ["URL", "MESSAGE"]
    assert row[-2:] == ["http://math-mcp.default.svc:8000/mcp", "1 of 2 pods are ready"]
    header, row = cells(shown.kubectl("get", "mdl", "-o", "wide"))
    assert header[-2:] == ["REASON", "MESSAGE"]
    assert row[-2:] == ["Progressing", "1 of 2 pods are ready"]


def test_get_ropewalk_shows_all_kinds(shown: ApiServer) -> None:
    names = shown.kubectl("get", "ropewalk", "-o", "name").split()
    assert names == ["agent.ropewalk.dev/calculator", "mcpserver.ropewalk.dev/math", "model.ropewalk.dev/house"]


def test_wait_understands_the_conditions(shown: ApiServer) -> None:
    shown.kubectl("wait", "agent/calculator", "mcpserver/math", "--for=condition=Ready=False", "--timeout=60s")


@pytest.mark.parametrize(
    ("name", "selector"), [("agent/calculator", "agent=calculator"), ("mcpserver/math", "mcpserver=math")]
)
def test_scale_changes_and_reads_replicas(shown: ApiServer, name: str, selector: str) -> None:
    if name.startswith("agent"):
        share_sessions(shown)
    shown.kubectl("scale", name, "--replicas=3")
    assert shown.kubectl("get", name, "-o", "jsonpath={.spec.replicas}") == "3"
    kind, resource = name.split("/")
    scale = json.loads(
        shown.kubectl("get", "--raw", f"/apis/ropewalk.dev/v1alpha1/namespaces/default/{kind}s/{resource}/scale")
    )
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": f"ropewalk.dev/{selector}"}


def share_sessions(server: ApiServer) -> None:
    sessions = json.dumps({"spec": {"sessions": {"store": "redis", "redis": REDIS}}})
    server.kubectl("patch", "agent/calculator", "--type=merge", "-p", sessions)


@pytest.mark.parametrize("store", ["memory", "file"])
def test_scale_beyond_one_is_refused_where_replicas_would_not_share_sessions(shown: ApiServer, store: str) -> None:
    shown.kubectl(
        "patch", "agent/calculator", "--type=merge", "-p", json.dumps({"spec": {"sessions": {"store": store}}})
    )
    with pytest.raises(AssertionError, match=r"spec\.replicas above 1 needs sessions that all pods share"):
        shown.kubectl("scale", "agent/calculator", "--replicas=2")
    shown.kubectl("scale", "agent/calculator", "--replicas=0")
    shown.kubectl("scale", "agent/calculator", "--replicas=1")


def test_scale_cannot_pass_the_bounds(shown: ApiServer) -> None:
    share_sessions(shown)
    with pytest.raises(AssertionError, match="should be less than or equal to 100"):
        shown.kubectl("scale", "agent/calculator", "--replicas=101")


def test_status_is_written_only_through_its_subresource(shown: ApiServer) -> None:
    shown.kubectl("patch", "agent/calculator", "--type=merge", "-p", '{"status": {"url": "http://elsewhere"}}')
    assert shown.kubectl("get", "ag", "calculator", "-o", "jsonpath={.status.url}").startswith(
        "http://calculator-agent"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_taken_by_the_api_server(server: ApiServer, example: Path) -> None:
    assert (example / "README.md").exists()
    assert "created" in server.kubectl("apply", "--dry-run=server", "-f", str(example))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_the_yaml_that_a_readme_shows_for_other_models_is_right(server: ApiServer, example: Path) -> None:
    for block in re.findall(r"(?:^    .*\n)+", (example / "README.md").read_text(), flags=re.M):
        if block.startswith("    model:"):
            create(server, changed(AGENT, **{f"spec__{key}": value for key, value in yaml.safe_load(block).items()}))
        elif block.startswith("    apiVersion: ropewalk.dev/"):
            create(server, yaml.safe_load(block))


def test_the_examples_name_no_namespace_but_where_they_must() -> None:
    for example in EXAMPLES:
        for file in example.glob("*.yaml"):
            for body in yaml.safe_load_all(file.read_text()):
                assert "namespace" not in body["metadata"], file
