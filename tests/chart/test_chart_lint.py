"""Linters that many know look at the chart: what they find is accepted with a reason in accepted.yaml, or mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import chart_lint
import kube_schemas
from chart_helm import CRDS, program, render_text
from chart_lint import Finding
from cluster.tools import OPENAPI

HERE = Path(__file__).parent
ACCEPTED = yaml.safe_load((HERE / "accepted.yaml").read_text())
VALUES: dict[str, tuple[str, ...]] = {
    "default": (),
    "production": ("--values", str(HERE / "production.yaml")),
}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    found = kube_schemas.of_kubernetes(json.loads(program(OPENAPI).read_text()))
    for file in CRDS.glob("*.yaml"):
        found |= kube_schemas.of_crd(yaml.safe_load(file.read_text()))
    for name, schema in found.items():
        (folder / name).write_text(json.dumps(schema))
    return folder


@pytest.fixture(params=VALUES)
def rendered(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of the values, and a file with the objects that come of them."""
    file = tmp_path / "manifests.yaml"
    file.write_text(render_text(*VALUES[request.param]))
    return request.param, file


def accepted(tool: str, values: str) -> set[Finding]:
    return {
        Finding(tool, each["check"], found)
        for each in ACCEPTED
        if each["tool"] == tool and values in each["values"]
        for found in each["objects"]
    }


def test_every_accepted_finding_has_a_reason() -> None:
    assert [each for each in ACCEPTED if len(each["reason"]) < 40 or not set(each["values"]) <= set(VALUES)] == []


def test_every_object_is_what_kubernetes_takes(rendered: tuple[str, Path], schemas: Path) -> None:
    values, file = rendered
    assert chart_lint.kubeconform(file, schemas) == accepted("kubeconform", values)


@pytest.mark.parametrize("tool", [chart_lint.kube_score, chart_lint.checkov])
def test_what_is_found_is_accepted_and_what_is_accepted_is_found(
    rendered: tuple[str, Path], tool: Callable[[Path], set[Finding]]
) -> None:
    values, file = rendered
    assert tool(file) == accepted(tool.__name__.replace("_", "-"), values)


@pytest.mark.parametrize(
    "broken",
    [
        {"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "x", "prots": []}]}}}},
        {"spec": {"replicas": "one"}},
    ],
)
def test_a_field_that_kubernetes_does_not_know_is_found(broken: dict[str, Any], schemas: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(
        yaml.safe_dump({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, **broken})
    )
    assert chart_lint.kubeconform(file, schemas) == {Finding("kubeconform", "invalid", "Deployment/x")}


def test_a_field_that_our_own_kinds_do_not_know_is_found(schemas: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    agent = {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "x"}, "spec": {"modle": {}}}
    file.write_text(yaml.safe_dump(agent))
    assert chart_lint.kubeconform(file, schemas) == {Finding("kubeconform", "invalid", "Agent/x")}
