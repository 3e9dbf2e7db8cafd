"""What most modules here share: an API server with the CRDs, an operator beside it, a namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apiserver import ApiServer, serving_crds
from operator_namespace import Namespace
from operator_process import OperatorProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serving_crds() as started:
        yield started


@pytest.fixture(scope="module")
def operator(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    process = OperatorProcess(server.kubeconfig, tmp_path_factory.mktemp("operator") / "log").start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def namespace(server: ApiServer, request: pytest.FixtureRequest) -> Namespace:
    return Namespace.of_test(server, request.node.name)
