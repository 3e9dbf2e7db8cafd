"""How the operator's process ends: at once, with a code and one line that says why; and what it waits for instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operator_fake_api import FailingApi, failing_api
from operator_hasty import HastyOperator
from operator_process import OperatorProcess
from waiting import until


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[FailingApi, OperatorProcess]]:
    with failing_api(tmp_path) as (server, kubeconfig):
        process = HastyOperator(kubeconfig, tmp_path / "log")
        try:
            yield server, process
        finally:
            process.kill()


def errors(process: OperatorProcess) -> list[dict[str, Any]]:
    """The lines at level error; every line must be JSON."""
    lines = [json.loads(line) for line in process.log().splitlines()]
    return [line for line in lines if line["level"] == "error"]


@pytest.mark.parametrize("missing", [("agents", "mcpservers", "models"), ("models",)], ids=["all", "a newer one"])
def test_a_missing_crd_ends_the_process(missing: tuple[str, ...], api: tuple[FailingApi, OperatorProcess]) -> None:
    server, process = api
    server.without_crds = missing
    assert process.start(wait=False).wait() == 1
    (said,) = errors(process)
    assert f"knows no {', '.join(missing)} of ropewalk.dev/v1alpha1" in said["error"]
    assert "install the CRDs of this release first" in said["error"]


def test_an_api_server_that_is_starting_is_waited_for(api: tuple[FailingApi, OperatorProcess]) -> None:
    server, process = api
    server.is_starting = True
    process.start(wait=False)
    until(lambda: "waiting for the API server" in process.log(), "it waits")
    assert process.get("/health")[0] == 200
    status, said = process.get("/ready")
    assert status == 503
    assert "waiting for the API server: 503" in said
    server.is_starting = False
    until(process.leads, "it leads")
    assert "the API server answers" in process.log()


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        pytest.param("pods", {1, 2}, id="kopf's"),
        # The first one is kopf's.
        pytest.param("configmaps", {2, 3}, id="that of the settings"),
    ],
)
def test_a_listing_that_breaks_at_the_start_is_begun_anew(
    api: tuple[FailingApi, OperatorProcess], kind: str, broken: set[int]
) -> None:
    server, process = api
    server.breaks, server.broken_listings = kind, broken
    process.start()
    until(process.leads, "it leads")
    assert "no listing now" in process.log()


def test_settings_that_are_missing_end_the_process(tmp_path: Path) -> None:
    process = OperatorProcess(tmp_path / "no-such-file", tmp_path / "log", ROPEWALK_AGENT_IMAGE="")
    assert process.start(wait=False).wait() == 2
    assert "ROPEWALK_AGENT_IMAGE is not set" in errors(process)[0]["error"]


def test_a_watch_that_is_refused_at_the_start_ends_the_process(api: tuple[FailingApi, OperatorProcess]) -> None:
    server, process = api
    server.refuse_watches = True
    assert process.start(wait=False).wait() == 1
    *of_kopf, said = errors(process)
    assert all("will retry" in each["message"] for each in of_kopf)
    assert "WATCH /api/v1/pods is refused with 406" in said["error"]
    assert "no watches today" in said["error"]


def test_a_missing_right_ends_the_process_with_what_is_forbidden(api: tuple[FailingApi, OperatorProcess]) -> None:
    server, process = api
    server.forbidden = "mcpservers"
    assert process.start(wait=False).wait() == 1
    *of_kopf, said = errors(process)
    assert all("will retry" in each["message"] for each in of_kopf)
    assert "LIST /apis/ropewalk.dev/v1alpha1/mcpservers is forbidden" in said["error"]
    assert "mcpservers are not for you" in said["error"]
    assert "see the role of the operator's ServiceAccount" in said["error"]


def test_a_watch_that_fails_later_is_begun_anew(api: tuple[FailingApi, OperatorProcess]) -> None:
    server, process = api
    process.start()
    until(process.leads, "it leads")
    before = server.listings
    server.fail_now.set()
    until(lambda: "a watch was not understood, and begins anew" in process.log(), "it is told")
    server.fail_now.clear()
    until(lambda: server.listings > before, "the pods are listed anew")
    assert process.get("/ready")[0] == 200
    assert process.stop() == 0
    assert not errors(process)


def test_a_signal_while_the_listings_hang_ends_the_process(api: tuple[FailingApi, OperatorProcess]) -> None:
    server, process = api
    server.hang_listings = True
    process.start(wait=False)
    assert server.listing.wait(60), "the operator lists"
    assert process.stop() == 0
    assert not errors(process)


def test_a_signal_ends_the_process(api: tuple[FailingApi, OperatorProcess]) -> None:
    _, process = api
    assert process.start().stop() == 0
    assert not errors(process)
