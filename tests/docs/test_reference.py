"""What is left undocumented fails here: metrics, endpoints, error codes, settings, CRD fields, servers of the chart.

All other values of the chart are documented where they stand, in values.yaml; tests/unit/chart sees to that.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import pytest
import yaml
from prometheus_client import CollectorRegistry

from cluster.layout import REPOSITORY
from ropewalk_agent.errors import STATUS_OF_CODE
from ropewalk_agent.metrics import Metrics as AgentMetrics
from ropewalk_agent.routes.endpoints import ENDPOINTS
from ropewalk_operator.cache import Cache
from ropewalk_operator.metrics import Metrics as OperatorMetrics
from ropewalk_operator.settings import OF_POD, PREFIX, Settings
from ropewalk_operator.workqueue import WorkQueue

_REFERENCE = REPOSITORY / "docs" / "reference"


def documented(page: str) -> set[str]:
    """Everything that a page sets as code."""
    return set(re.findall(r"`([^`\n]+)`", (_REFERENCE / page).read_text()))


def names_of(registry: CollectorRegistry) -> set[str]:
    """The names that Prometheus stores of our own metrics, without the series that a histogram is made of."""
    families = [family for family in registry.collect() if not family.name.startswith(("process_", "python_"))]
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def operator_registry() -> CollectorRegistry:
    """The operator's metrics with nothing in them."""

    async def make() -> CollectorRegistry:
        metrics = OperatorMetrics()
        metrics.read_at_scrape(Cache(), WorkQueue(), dict, lambda: True)
        return metrics.registry

    return asyncio.run(make())


def settings_read_by(source: Path) -> set[str]:
    """The names of environment variables in a program."""
    strings = (
        node.value
        for file in source.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in strings if re.fullmatch(r"ROPEWALK_[A-Z_]+", text)}


def test_every_metric_of_the_agent_is_documented() -> None:
    assert names_of(AgentMetrics().registry) - documented("agent.md") == set()


def test_every_metric_and_setting_of_the_mcp_servers_is_documented() -> None:
    # Their libraries are in another environment, so their sources are read instead.
    sources = [file.read_text() for file in (REPOSITORY / "mcp_images").rglob("*.py")]
    counters = {f"{name}_total" for text in sources for name in re.findall(r'Counter\(\s*"([a-z_]+)"', text)}
    histograms = {name for text in sources for name in re.findall(r'Histogram\(\s*"([a-z_]+)"', text)}
    assert counters
    pages = documented("mcp-servers.md") | documented("stdio.md")
    assert (counters | histograms | settings_read_by(REPOSITORY / "mcp_images")) - pages == set()


def test_every_metric_of_the_operator_is_documented() -> None:
    assert names_of(operator_registry()) - documented("operator.md") == set()


@pytest.mark.parametrize(("page", "prefix"), [("agent.md", "ropewalk_agent_"), ("operator.md", "ropewalk_operator_")])
def test_no_metric_is_documented_that_does_not_exist(page: str, prefix: str) -> None:
    metrics = names_of(AgentMetrics().registry) | names_of(operator_registry())
    assert {name for name in documented(page) if name.startswith(prefix)} - metrics == set()


def test_the_agents_page_lists_every_endpoint_and_none_that_does_not_exist() -> None:
    _, _, rest = (_REFERENCE / "agent.md").read_text().partition("## Endpoints\n")
    table, _, _ = rest.partition("\n## ")
    listed = set(re.findall(r"\b(GET|POST|DELETE|WS) (/[^\s,|]+)", table))
    served = {("WS" if each.path == "/ws" else each.method, each.path) for each in ENDPOINTS}
    assert {without_names(*each) for each in listed} == {without_names(*each) for each in served}


def without_names(method: str, path: str) -> str:
    """An endpoint, whatever the variable parts of its path are called."""
    return f"{method} {re.sub(r'{[^}]+}', '{}', path)}"


def test_every_server_of_the_chart_and_what_it_alone_takes_is_on_the_charts_page() -> None:
    servers = yaml.safe_load((REPOSITORY / "charts" / "ropewalk" / "values.yaml").read_text())["mcpServers"]
    shared = set.intersection(*(set(values) for values in servers.values()))
    assert {"enabled", "name", "image", "replicas", "pod"} == shared
    own = {f"mcpServers.{name}" for name in servers}.union(
        *(set(values) - shared for values in servers.values()), shared
    )
    words = {word for code in documented("chart.md") for word in (code, re.split(r"[.:]", code)[0])}
    assert own - words == set()


def test_every_error_code_is_documented_with_its_status() -> None:
    page = (_REFERENCE / "agent.md").read_text()
    assert [code for code, status in STATUS_OF_CODE.items() if f"| `{code}` | {status} |" not in page] == []


READ_ONLY = frozenset(
    {
        "AppArmor",
        "ConfigMap",
        "ContainerCreating",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "PodInitializing",
        "PodScheduled",
        "PodSecurity",
        "RegistryUnavailable",
    }
)
"""Names of Kubernetes that the operator reads in a pod, and never says."""


def reasons_in(source: Path) -> set[str]:
    """The reasons of conditions and Events in a module: what looks like one, and what is made a verdict of."""
    tree = list(ast.walk(ast.parse(source.read_text())))
    first = [call.args[0] for call in tree if _is_call_of(call, "Verdict", "Trouble") and call.args]
    strings = [node.value for node in [*first, *tree] if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    judged = {node.value for node in first if isinstance(node, ast.Constant)}
    return {text for text in strings if text in judged or re.fullmatch(r"([A-Z][a-z]+){2,}", text)}


def _is_call_of(node: ast.AST, *names: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def test_every_reason_of_a_condition_or_event_is_documented() -> None:
    folder = REPOSITORY / "operator" / "src" / "ropewalk_operator"
    modules = ("changes", "checks", "observe", "pods", "reconcile", "status")
    reasons = {reason for module in modules for reason in reasons_in(folder / f"{module}.py")}
    assert {"McpServerNotFound", "Unschedulable", "QuotaExceeded", "SecretNotFound", "ToolsListed"} <= reasons
    assert reasons - READ_ONLY - documented("status.md") == set()


def test_no_reason_is_documented_that_the_operator_does_not_know() -> None:
    source = (REPOSITORY / "operator" / "src" / "ropewalk_operator").rglob("*.py")
    text = "".join(file.read_text() for file in source)
    table = (_REFERENCE / "status.md").read_text().partition("## Reasons")[2].partition("\n\n")[2].partition("\n\n")[0]
    reasons = {name for line in table.splitlines() for name in re.findall(r"`([A-Z]\w+)`", line.split("|")[1])}
    assert reasons
    assert {reason for reason in reasons if f'"{reason}"' not in text} == set()


def test_every_setting_of_the_agent_is_documented() -> None:
    assert settings_read_by(REPOSITORY / "agent_image" / "src") - documented("agent.md") == set()


def test_every_setting_of_the_operator_is_documented() -> None:
    variables = {OF_POD.get(name, PREFIX + name.upper()) for name in Settings.model_fields}
    assert variables - documented("operator.md") == set()


@pytest.mark.parametrize("crd", ["agent", "mcpserver", "model"])
def test_every_field_of_a_resource_has_an_explanation(crd: str) -> None:
    document = yaml.safe_load((REPOSITORY / "crds" / f"{crd}.yaml").read_text())
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [path for path, field in fields(schema) if len(field.get("description", "")) < 10] == []


@pytest.mark.parametrize("crd", ["mcpserver", "model"])
def test_every_field_of_a_resource_is_in_its_page(crd: str) -> None:
    document = yaml.safe_load((REPOSITORY / "crds" / f"{crd}.yaml").read_text())
    spec = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    # Deeper stand references to Secrets, and what Kubernetes itself documents.
    leaves = [path for path, field in fields(spec) if path.count(".") < 2 and not field.get("properties")]
    leaves = [path for path in leaves if not path.startswith("networkPolicy.extraEgress[]")]
    assert leaves
    assert [path for path in leaves if path not in documented(f"{crd}.md")] == []


def test_every_module_says_what_it_does() -> None:
    sources = [
        file
        for folder in ("operator", "agent_image", "mcp_images", "dev", "bench")
        for file in (REPOSITORY / folder).rglob("*.py")
    ]
    assert [
        str(file.relative_to(REPOSITORY)) for file in sources if not ast.get_docstring(ast.parse(file.read_text()))
    ] == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("examples/**/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of a schema below `path`, with its dotted name."""
    for name, field in schema.get("properties", {}).items():
        if path == "" and name in ("apiVersion", "kind", "metadata"):
            continue
        yield f"{path}{name}", field
        yield from fields(field, f"{path}{name}.")
        yield from fields(field.get("items", {}), f"{path}{name}[].")
