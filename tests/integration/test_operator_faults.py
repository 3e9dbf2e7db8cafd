"""The operator behind a connection that fails in every way, killed after each write, and with the API server killed
under it: all converges, with few calls, and nothing is doubled.

No controllers run here, so that every write is the operator's and their number is always the same. Time limits are
short, for the decision counts. Each fault comes once, on writes or on reads; `make bench BENCH=faults` tries each on
both, with the real time limits, and plays more scenarios of kills.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import faulty_proxy as faulty
from apiserver import ApiServer, serving_crds
from faulty_proxy import Call, Spoil, refused
from operator_fault_world import (
    AGENTS,
    CONVERGED_SECONDS,
    WATCHED_KINDS,
    WRITES_PER_AGENT,
    FaultWorld,
    fault_world,
    verbs,
)
from operator_kill_points import CREATE, UNPROTECT, KillPoints, Scenario, needless
from operator_preloaded import PreloadedOperator
from operator_process import OperatorProcess
from operator_with_clock import OperatorWithClock
from waiting import until

SEED = 20_261_121
TRIES = 12
"""An Agent's tries in a minute: the pauses double from 50 ms on."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serving_crds(controllers=False) as started:
        yield started


@pytest.fixture
def world(server: ApiServer, tmp_path: Path) -> Iterator[FaultWorld]:
    with fault_world(server, tmp_path, ROPEWALK_API_TIMEOUT_SECONDS="3") as started:
        yield started


@pytest.fixture
def impatient(server: ApiServer, tmp_path: Path) -> Iterator[FaultWorld]:
    """Begins a watch anew when it has said nothing for two seconds."""
    with fault_world(server, tmp_path, ROPEWALK_API_TIMEOUT_SECONDS="3", ROPEWALK_WATCH_SILENCE_SECONDS="2") as started:
        yield started


def is_write(call: Call) -> bool:
    return call.is_write


@pytest.mark.parametrize(
    ("spoil", "times", "is_done"),
    [
        (refused(409, "Conflict"), 40, False),
        (refused(500, "InternalError"), 40, False),
        (faulty.stalled, 8, False),
        (faulty.reset_after, 40, True),
        (faulty.truncated, 40, True),
    ],
    ids=["409", "500", "stall", "lost-answer", "truncated"],
)
def test_writes_that_fail_are_done_in_the_end(world: FaultWorld, spoil: Spoil, times: int, is_done: bool) -> None:
    with world.proxy.spoiling(spoil, is_write, times) as rule:
        world.apply("first")
        world.converges()
        assert rule.hits == times
    # What was done although nobody heard of it, is seen by the watch or asked for, and done at most once more.
    most = AGENTS * WRITES_PER_AGENT + (times if is_done else 0)
    assert len(world.proxy.writes()) <= most
    assert max(Counter(world.proxy.writes()).values()) <= (2 if is_done else 1)
    # The Lease is renewed for as long as it takes.
    calls = [call for call in world.proxy.calls if call.plural != "leases"]
    assert len(calls) <= 2 * (most + times) + 4 * WATCHED_KINDS


def test_a_429_is_left_alone_for_as_long_as_it_says(world: FaultWorld) -> None:
    with world.proxy.spoiling(refused(429, retry_after_seconds=1), is_write, AGENTS) as rule:
        world.apply("first")
        world.converges()
        assert rule.hits == AGENTS
    last: dict[str, Call] = {}
    for call in world.proxy.calls:
        before = last.get(str(call))
        assert before is None or before.status != 429 or call.at - before.at >= 0.9, f"{call} came too early"
        last[str(call)] = call


@pytest.mark.parametrize(
    "spoil",
    [refused(410, "Expired"), faulty.reset_before, faulty.half_sent],
    ids=["410", "reset", "half-sent"],
)
def test_listings_and_watches_that_fail_are_begun_again(world: FaultWorld, spoil: Spoil) -> None:
    world.apply("first")
    world.converges()
    fits = verbs("LIST", "WATCH") if spoil is not faulty.half_sent else verbs("LIST")
    begun = len(world.proxy.calls)
    with (
        world.proxy.spoiling(faulty.watch_expired, verbs("WATCH"), WATCHED_KINDS),
        world.proxy.spoiling(spoil, fits, 2 * WATCHED_KINDS) as rule,
    ):
        world.proxy.break_connections()
        world.api.delete("deployments", "agent-03-agent")
        world.apply("second")
        world.converges()
        until(lambda: rule.hits == 2 * WATCHED_KINDS, "every fault has happened")
    world.apply("third", 1)
    world.converges()
    reads = [call for call in world.proxy.calls[begun:] if not call.is_write and call.plural != "leases"]
    assert len(reads) <= 20 * WATCHED_KINDS


def test_a_deletion_during_the_gap_of_a_watch_is_noticed(impatient: FaultWorld) -> None:
    impatient.apply("first", 2)
    impatient.converges()
    with impatient.proxy.spoiling(faulty.stalled, verbs("WATCH")) as stall:
        impatient.proxy.break_connections()
        until(lambda: stall.hits >= WATCHED_KINDS, "every watch is begun anew, and hears nothing")
        impatient.api.delete("services", "agent-01-agent")
        # Its version is too old by now, so kopf lists anew, and says nothing of what is missing.
        with impatient.proxy.spoiling(faulty.watch_expired, verbs("WATCH"), WATCHED_KINDS) as rule:
            until(lambda: rule.hits == WATCHED_KINDS, "every watch has lost its place")
    impatient.converges()


def test_a_watch_that_goes_silent_is_begun_anew(impatient: FaultWorld) -> None:
    impatient.apply("first")
    impatient.converges()
    impatient.proxy.silence_watches()
    impatient.apply("second")
    impatient.converges()


def test_half_an_event_is_no_event(world: FaultWorld) -> None:
    world.apply("first", 2)
    world.converges()
    with world.proxy.spoiling(faulty.watch_line_truncated, verbs("WATCH"), 2 * WATCHED_KINDS) as rule:
        world.proxy.break_connections()
        until(lambda: rule.hits == 2 * WATCHED_KINDS, "every fault has happened")
    world.apply("second", 2)
    world.converges()


def test_watches_that_end_at_once_are_begun_ever_more_slowly(world: FaultWorld) -> None:
    world.apply("first", 2)
    world.converges()
    with world.proxy.spoiling(faulty.watch_ended_at_once, verbs("WATCH")) as rule:
        begun = len(world.proxy.calls)
        world.proxy.break_connections()
        until(lambda: rule.hits >= 5 * WATCHED_KINDS, "the watches are tried again")
        times: dict[str, list[float]] = defaultdict(list)
        for call in world.proxy.calls[begun:]:
            if call.verb == "WATCH":
                times[str(call)].append(call.at)
    for at in times.values():
        pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert all(pause >= 0.09 * 2**index for index, pause in enumerate(pauses[1:])), pauses
    world.apply("second", 2)
    world.converges()


def test_when_any_call_may_fail_in_any_way_all_converges(impatient: FaultWorld) -> None:
    chance = random.Random(SEED)
    anything: list[Spoil] = [
        refused(409), refused(429, retry_after_seconds=1), refused(500), refused(503), faulty.reset_before,
        faulty.reset_after, faulty.half_sent, faulty.truncated, faulty.stalled,
    ]  # fmt: skip
    reading: list[Spoil] = [refused(500), faulty.reset_before, faulty.half_sent, faulty.watch_ended_at_once]

    async def any_spoil(exchange: faulty.Exchange) -> object:
        return await chance.choice(anything if exchange.call.verb != "WATCH" else reading)(exchange)

    edits = itertools.count(1)
    with impatient.proxy.spoiling(any_spoil, lambda _call: chance.random() < 0.3, 60) as rule:  # type: ignore[arg-type]

        def edited_until_all_faults_have_come() -> bool:
            # Whoever cannot renew the Lease for so long ends.
            impatient.revive()
            impatient.proxy.break_connections()
            number = next(edits)
            impatient.apply(f"edit {number}")
            return number >= 3 and rule.hits == 60

        # As many edits as it takes: an operator that is slow does several in one.
        until(edited_until_all_faults_have_come, "every fault has happened", CONVERGED_SECONDS)
        impatient.converges()


def test_an_api_server_that_is_away_at_the_start_is_waited_for(world: FaultWorld) -> None:
    world.operator.kill()
    with world.proxy.spoiling(faulty.reset_before, lambda _call: True, 6) as rule:
        world.operator.start()
        assert rule.hits == 6
    world.apply("first", 1)
    world.converges()


@pytest.fixture
def jumping(server: ApiServer, tmp_path: Path) -> Iterator[FaultWorld]:
    with fault_world(server, tmp_path, start=OperatorWithClock) as started:
        yield started


def test_a_clock_that_jumps_changes_nothing(jumping: FaultWorld) -> None:
    jumping.apply("first")
    jumping.converges()
    for prompt, jump in (("forward", signal.SIGUSR1), ("back", signal.SIGUSR2), ("before", signal.SIGUSR2)):
        begun = len(jumping.proxy.calls)
        jumping.operator.send(jump)
        jumping.apply(prompt, 1)
        jumping.converges()
        writes = jumping.proxy.writes(begun)
        assert {write.removesuffix("/status").split()[-1] for write in writes} <= {"agent-00", "agent-00-agent"}
        assert len(writes) <= WRITES_PER_AGENT


@pytest.fixture(scope="module")
def points(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillPoints]:
    with fault_world(server, tmp_path_factory.mktemp("kills"), start=PreloadedOperator) as started:
        yield KillPoints(started)


@pytest.mark.parametrize("scenario", [CREATE, UNPROTECT], ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_killed_after_any_write_it_ends_in_the_same_state(points: KillPoints, scenario: Scenario) -> None:
    wanted = points.undisturbed(scenario)
    assert wanted.writes
    for after in range(1, len(wanted.writes) + 1):
        # Before the answer: the operator cannot know that it was done.
        run = points.killed(scenario, after, seen=False, wanted=wanted)
        assert run.state == wanted.state
        assert not needless(run, wanted), f"killed after write {after} of {wanted.writes}"
        assert run.idle <= wanted.idle + 1, "no more than the one that was interrupted is begun again"


def test_a_crash_of_api_server_and_etcd_is_outlived(server: ApiServer, world: FaultWorld) -> None:
    world.apply("first")
    world.converges()
    world.apply("second")
    begun = len(world.proxy.calls)
    server.crash("apiserver", "etcd")
    server.come_back()
    world.converges()
    world.apply("third")
    world.converges()
    assert world.restarts <= 1, world.operator.log()
    # A watch has no status while it is open.
    failed = [
        call for call in world.proxy.calls[begun:] if call.status >= 500 or (call.status == 0 and call.verb != "WATCH")
    ]
    assert len(failed) <= TRIES * (AGENTS + 2 * WATCHED_KINDS)


@pytest.fixture
def unspoiled(server: ApiServer, tmp_path: Path) -> Iterator[OperatorProcess]:
    process = OperatorProcess(server.kubeconfig, tmp_path / "log")
    try:
        yield process
    finally:
        process.kill()


def test_after_all_of_that_there_is_nothing_left_to_write(server: ApiServer, unspoiled: OperatorProcess) -> None:
    unspoiled.start()
    agents = len(server.kubectl("get", "agents", "-A", "-o", "name").split())
    assert agents >= AGENTS
    until(lambda: unspoiled.metric("ropewalk_operator_reconcile_total", kind="Agent") >= agents, "all are reconciled")
    until(lambda: unspoiled.metric("ropewalk_operator_workqueue_depth") == 0, "nothing waits to be looked at again")
    assert unspoiled.writes() == 0
