"""Two operators beside a real API server: the standby takes over, and never do two write at the same time.

Who has written, and when, is in the API server's audit log: each process has a user agent of its own. A user edits
Agents meanwhile, so that whoever may write does.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, serving_crds
from operator_cable import cable
from operator_namespace import Namespace
from operator_pair import Operators, busy, is_up_to_date
from operator_process import OperatorProcess
from ropewalk_operator.kinds import RESOURCES
from waiting import until

# Some wait for the end of a Lease more than once.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serving_crds(audited=True) as started:
        yield started


@pytest.fixture
def operators(server: ApiServer, namespace: Namespace, tmp_path: Path) -> Iterator[Operators]:
    started = Operators(server, namespace, tmp_path)
    try:
        yield started
    finally:
        started.kill_all()


def works(process: OperatorProcess) -> None:
    """Wait until it has written this and that."""
    before = process.writes()
    until(lambda: process.writes() > before + 20, "it writes")


def takes_over(process: OperatorProcess) -> None:
    until(process.leads, "the standby leads")
    works(process)


def found_in_the_lease(process: OperatorProcess) -> str:
    """Who held the Lease when a process took it: nobody, where it had been released."""
    return str(said(process, "leading")[-1]["before"])


def said(process: OperatorProcess, message: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.log().splitlines()]
    return [line for line in lines if line["message"] == message]


def test_a_standby_is_ready_and_writes_nothing_until_the_leader_is_killed(
    operators: Operators, namespace: Namespace
) -> None:
    leader = operators.start_leader()
    standby = operators.start()
    assert not standby.leads()
    assert standby.get("/health")[0] == 200
    with busy(namespace):
        works(leader)
        assert standby.writes() == 0
        assert standby.metric("ropewalk_operator_workqueue_depth") == 0
        assert standby.metric("ropewalk_operator_reconcile_total") == 0
        listings = standby.metric("ropewalk_operator_api_requests_total", verb="LIST")
        leader.kill()
        takes_over(standby)
        listed = standby.metric("ropewalk_operator_api_requests_total", verb="LIST") - listings
        assert listed == len(RESOURCES), "its caches were full"
    until(lambda: is_up_to_date(namespace), "every Agent is as its user wants it")
    assert operators.overlaps() == []
    assert [line["leader"].partition("_")[0] for line in said(standby, "standing by")] == ["operator-0"]
    assert said(standby, "leading")[0]["before"].startswith("operator-0_")


def test_a_leader_that_was_stopped_and_goes_on_writes_no_more(operators: Operators, namespace: Namespace) -> None:
    leader = operators.start_leader()
    standby = operators.start()
    with busy(namespace):
        for _ in range(2):
            works(leader)
            leader.send(signal.SIGSTOP)
            takes_over(standby)
            leader.send(signal.SIGCONT)
            assert leader.wait() == 1
            assert said(leader, "the operator cannot go on")[0]["error"].startswith("Lease ")
            leader, standby = standby, operators.start()
    assert operators.authors() == ["operator-0", "operator-1", "operator-2"]
    assert operators.overlaps() == []


def test_a_leader_that_is_stopped_cleanly_hands_over_at_once(operators: Operators, namespace: Namespace) -> None:
    leader = operators.start_leader()
    with busy(namespace):
        for _ in range(5):
            # As in a rollout: first the new one is ready, then the old one ends.
            standby = operators.start()
            works(leader)
            assert leader.stop() == 0
            takes_over(standby)
            assert found_in_the_lease(standby) == "", "it had not to wait until the Lease ran out"
            leader = standby
    assert operators.authors() == [f"operator-{number}" for number in range(6)]
    assert operators.overlaps() == []


def test_a_leader_without_the_api_server_ends_and_what_it_had_begun_does_not_arrive(
    server: ApiServer, operators: Operators, namespace: Namespace, tmp_path: Path
) -> None:
    with cable(server.port) as network:
        leader = operators.start_leader(network.kubeconfig(server.kubeconfig, tmp_path / "kubeconfig"))
        standby = operators.start()
        with busy(namespace):
            works(leader)
            network.cut()
            until(lambda: network.waiting > 2, "writes are on their way, and do not arrive")
            assert leader.wait() == 1
            assert "could not be renewed for 10 s" in said(leader, "the operator cannot go on")[0]["error"]
            takes_over(standby)
            network.mend()
            works(standby)
    assert operators.authors() == ["operator-0", "operator-1"]
    assert operators.overlaps() == []


def test_a_leader_that_is_killed_while_the_network_is_away_leaves_nothing_behind(
    server: ApiServer, operators: Operators, namespace: Namespace, tmp_path: Path
) -> None:
    with cable(server.port) as network:
        leader = operators.start_leader(network.kubeconfig(server.kubeconfig, tmp_path / "kubeconfig"))
        with busy(namespace):
            works(leader)
            network.cut()
            until(lambda: network.waiting > 2, "writes are on their way, and do not arrive")
            leader.kill()
            standby = operators.start()
            takes_over(standby)
            network.mend()
            works(standby)
    assert operators.overlaps() == []


def test_one_operator_alone_goes_on_after_the_api_server_was_away(
    server: ApiServer, operators: Operators, namespace: Namespace
) -> None:
    alone = operators.start_leader()
    with busy(namespace):
        works(alone)
        server.leave()
        assert alone.wait() == 1
        alone.start(wait=False)
        until(lambda: said(alone, "waiting for the API server"), "it waits for the API server")
        server.come_back()
        until(alone.leads, "it leads, without a second start")
        assert found_in_the_lease(alone).startswith("operator-0_"), "the same pod goes on with its Lease"
    until(lambda: is_up_to_date(namespace), "every Agent is as its user wants it")


def test_an_operator_whose_lease_has_no_namespace_says_so_and_leads_once_there_is_one(
    server: ApiServer, tmp_path: Path
) -> None:
    places = {"ROPEWALK_WATCH_NAMESPACES": "nowhere", "ROPEWALK_LEASE_NAMESPACE": "nowhere"}
    process = OperatorProcess(server.kubeconfig, tmp_path / "log", **places)
    try:
        process.start(wait=False)
        until(lambda: "cannot be made" in process.get("/ready")[1], "it says what is wrong")
        status, problem = process.get("/ready")
        assert status == 503
        assert "ROPEWALK_LEASE_NAMESPACE" in problem
        errors = [line["error"] for line in said(process, "the Lease cannot be taken")]
        assert len([error for error in errors if "not found" in error]) == 1
        Namespace(server, "nowhere")
        until(process.leads, "it leads")
        assert process.get("/ready")[0] == 200
    finally:
        process.kill()
