"""What the operator asks of the API server for each Agent, counted: as much for the last of many as for the first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from apiserver import ApiServer, serving_crds
from operator_process import OperatorProcess
from waiting import until

FEW, MANY = 20, 200
WRITES = 6
"""Of each Agent: five children, and the status once."""
READS = ("GET", "LIST", "WATCH")


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    # Without controllers, nobody else writes: what is counted is the operator's own.
    with serving_crds(controllers=False) as started:
        yield started


@contextmanager
def operator(server: ApiServer, folder: Path, *, resync_seconds: int) -> Iterator[OperatorProcess]:
    process = OperatorProcess(server.kubeconfig, folder / "log", ROPEWALK_RESYNC_SECONDS=str(resync_seconds))
    try:
        yield process.start()
    finally:
        # The next one need not wait for its Lease.
        process.stop()


def create_agents(server: ApiServer, first: int, end: int) -> None:
    model = {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"}
    agents = [
        {
            "apiVersion": "ropewalk.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": f"agent-{number:03}"},
            "spec": {"systemPrompt": "You are a calculator.", "model": model},
        }
        for number in range(first, end)
    ]
    server.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": agents}))


def reads(operator: OperatorProcess) -> float:
    return sum(operator.metric("ropewalk_operator_api_requests_total", verb=verb) for verb in READS)


def is_judged(operator: OperatorProcess, agents: int) -> bool:
    """Whether so many Agents have a status whose write has its answer, and none waits to be looked at again."""
    series = 'ropewalk_resource_condition{condition="Accepted",kind="Agent"'
    is_idle = operator.metric("ropewalk_operator_workqueue_depth") == 0
    return is_idle and operator.writes() >= agents * WRITES and operator.metrics().count(series) == agents


def reconciles(operator: OperatorProcess) -> float:
    return operator.metric("ropewalk_operator_reconcile_total")


def test_each_agent_costs_the_same_writes_and_no_reads_however_many_there_are(
    server: ApiServer, tmp_path: Path
) -> None:
    # No resync falls into the counting: its listings are for all Agents together.
    with operator(server, tmp_path, resync_seconds=3600) as running:
        # It is ready before it leads, and lists once more when it does. What judges an Agent has done that.
        create_agents(server, 0, 1)
        until(partial(is_judged, running, 1), "the first Agent is judged")
        before = reads(running)
        for first, end in ((1, FEW), (FEW, MANY)):
            create_agents(server, first, end)
            until(partial(is_judged, running, end), f"{end} Agents are judged")
            assert running.writes() == end * WRITES
            assert reads(running) == before


def test_a_restart_and_resyncs_with_many_agents_write_nothing_and_read_nothing_one_by_one(
    server: ApiServer, tmp_path: Path
) -> None:
    with operator(server, tmp_path, resync_seconds=2) as running:
        until(lambda: reconciles(running) >= MANY, "every Agent was looked at after the restart")
        assert running.writes() == 0
        until(lambda: reconciles(running) >= 3 * MANY, "two resyncs have looked at every Agent")
        assert running.writes() == 0
        # Some are of the Lease, each second until it leads.
        assert running.metric("ropewalk_operator_api_requests_total", verb="GET") < MANY
