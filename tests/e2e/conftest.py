"""The release under test, and a namespace for each test module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.layout import REPOSITORY
from e2e_cluster import Workspace, install_chart, kubectl

_NAMESPACE = """apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
"""


@pytest.fixture(scope="session", autouse=True)
def release() -> None:
    """The chart with this checkout's images."""
    install_chart()


@pytest.fixture(scope="module")
def space(request: pytest.FixtureRequest, release: None) -> Iterator[Workspace]:
    """A fresh namespace that takes only restricted pods, with a demo model that answers."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    workspace = Workspace(name)
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait")
    kubectl("apply", "-f", "-", text=_NAMESPACE.format(name=name))
    workspace.kubectl("apply", "-f", str(REPOSITORY / "examples" / "demo-model"))
    workspace.kubectl("rollout", "status", "deployment/demo-model", "--timeout=60s")
    yield workspace
    kubectl("delete", "namespace", name, "--wait=false")
