"""The election in simulated time: who leads when, what a leader may still do, and that there are never two."""

from __future__ import annotations

import asyncio
import random

import pytest

from operator_election import PLACE, Process, Store, Weather, overlaps, pass_time, simulate
from ropewalk_operator.guard import Guard
from ropewalk_operator.kube import ApiError
from ropewalk_operator.leader import LOOK_SECONDS, RENEW_SECONDS, WRITE_SECONDS, Election
from ropewalk_operator.leader import Store as LeaseStore
from ropewalk_operator.lease import DURATION_SECONDS
from waiting import eventually

AWAY = Weather(unreachable=1.0)


def now() -> float:
    return asyncio.get_running_loop().time()


async def until_leading(process: Process) -> float:
    """The time at which it may write."""
    await eventually(lambda: process.guard.is_open, "it leads")
    return now()


def test_a_fresh_lease_is_taken_at_once() -> None:
    async def world() -> None:
        assert await until_leading(Process("a", Store()).start()) < 0.1

    simulate(world())


def test_a_standby_leads_soon_after_the_leader_was_killed_and_not_before_its_lease_is_over() -> None:
    async def world() -> None:
        store = Store()
        leader, standby = Process("a", store).start(), Process("b", store)
        await until_leading(leader)
        standby.start()
        await pass_time(60)
        assert not standby.guard.is_open, "the leader renews"
        leader.kill()
        killed = now()
        taken = await until_leading(standby) - killed
        assert DURATION_SECONDS - RENEW_SECONDS - LOOK_SECONDS < taken < DURATION_SECONDS + LOOK_SECONDS
        assert overlaps([leader, standby]) == []
        assert store.body is not None
        assert store.body["spec"]["leaseTransitions"] == 1

    simulate(world())


def test_a_standby_leads_at_once_when_the_leader_is_stopped() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        standby = Process("b", store).start()
        await pass_time(10)
        await leader.stop()
        stopped = now()
        assert await until_leading(standby) - stopped <= LOOK_SECONDS + 0.1
        assert overlaps([leader, standby]) == []

    simulate(world())


def test_the_same_pod_started_again_goes_on_at_once() -> None:
    async def world() -> None:
        store = Store()
        first = Process("a", store).start()
        await until_leading(first)
        first.kill()
        again = now()
        assert await until_leading(Process("a", store).start()) - again < 0.1

    simulate(world())


def test_a_leader_that_was_stopped_for_long_writes_no_more_and_says_so() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        standby = Process("b", store).start()
        await pass_time(20)
        leader.pause()
        await pass_time(30)
        assert standby.guard.is_open
        written = len(leader.writes)
        leader.go_on()
        await pass_time(5)
        # What was under way when it was stopped has been sent before.
        assert len(leader.writes) <= written + 1
        assert leader.lost
        assert standby.guard.is_open
        assert overlaps([leader, standby]) == []

    simulate(world())


def test_a_leader_that_cannot_renew_stops_writing_well_before_its_lease_ends() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        await pass_time(20)
        leader.weather = AWAY
        away = now()
        await eventually(lambda: leader.lost, "it has given up")
        assert "could not be renewed for 10 s: 0 Unreachable" in leader.lost
        assert leader.writes[-1][1] <= away + WRITE_SECONDS
        assert store.holder == "a", "others still wait"
        leader.weather = Weather()
        assert await until_leading(Process("a", store).start()) < now() + 0.1, "the next process of the pod goes on"

    simulate(world())


def test_a_short_outage_is_survived() -> None:
    async def world() -> None:
        leader = Process("a", Store()).start()
        await until_leading(leader)
        for _ in range(20):
            leader.weather = AWAY
            await pass_time(4)
            leader.weather = Weather()
            await pass_time(4)
        assert leader.guard.is_open

    simulate(world())


def test_a_renewal_that_came_into_force_without_an_answer_is_found() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        leader.weather = Weather(unanswered=1.0)
        versions = store.versions
        await eventually(lambda: store.versions > versions, "it has renewed")
        leader.weather = Weather()
        await pass_time(60)
        assert leader.guard.is_open

    simulate(world())


def test_a_lease_that_was_taken_without_an_answer_is_found_to_be_its_own() -> None:
    async def world() -> None:
        store = Store()
        process = Process("a", store, weather=Weather(unanswered=1.0)).start()
        await eventually(lambda: store.holder, "it has taken it")
        process.weather = Weather()
        assert await until_leading(process) < 10

    simulate(world())


def test_a_lease_that_somebody_deletes_is_made_again_and_nobody_else_takes_it() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        standby = Process("b", store).start()
        for _ in range(10):
            await pass_time(3.3)
            store.body = None
        await pass_time(3)
        assert store.holder == "a"
        assert leader.guard.is_open
        assert standby.writes == []

    simulate(world())


def test_a_leader_whose_lease_names_another_gives_up() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        assert store.body is not None
        store.write({**store.body, "spec": {**store.body["spec"], "holderIdentity": "b"}})
        await pass_time(RENEW_SECONDS + 1)
        assert leader.lost == "Lease default/ropewalk-operator is held by b now"
        assert not leader.guard.is_open

    simulate(world())


def test_a_process_that_takes_the_very_lease_that_was_free_when_it_looked_follows_nobody() -> None:
    async def world() -> None:
        store = Store()
        first = Process("a", store).start()
        await until_leading(first)
        assert not first.election.follows_nobody, "it has not looked"
        first.kill()
        again = Process("a", store)
        await again.election.look()
        assert not again.election.follows_nobody, "it has not taken it"
        await until_leading(again.start())
        assert again.election.follows_nobody, "what it found was its own"
        await again.stop()
        next_pod = Process("b", store)
        await next_pod.election.look()
        await until_leading(next_pod.start())
        assert next_pod.election.follows_nobody, "the one before has released it"

    simulate(world())


def test_who_leads_after_somebody_else_knows_it() -> None:
    async def world() -> None:
        store = Store()
        early = Process("early", store)
        await early.election.look()
        before = Process("before", store).start()
        await until_leading(before)
        standby, late = Process("standby", store), Process("late", store)
        await standby.election.look()
        await before.stop()
        await late.election.look()
        for process in (standby, late, early):
            await until_leading(process.start())
            assert not process.election.follows_nobody
            await process.stop()

    simulate(world())


def test_who_takes_the_lease_of_a_leader_that_led_until_it_was_killed_follows_it() -> None:
    async def world() -> None:
        store = Store()
        leader = Process("a", store).start()
        await until_leading(leader)
        standby = Process("b", store)
        await standby.election.look()
        leader.kill()
        await until_leading(standby.start())
        assert not standby.election.follows_nobody, "it may have written after the look, though it did not renew"

    simulate(world())


def test_a_process_that_got_no_answer_about_the_lease_does_not_know_whom_it_follows() -> None:
    async def world() -> None:
        store = Store()
        before = Process("before", store).start()
        await until_leading(before)
        await before.stop()
        process = Process("a", store, weather=AWAY)
        await process.election.look()
        process.weather = Weather()
        await until_leading(process.start())
        assert not process.election.follows_nobody

    simulate(world())


async def problems_of_a_campaign(at: LeaseStore) -> list[str]:
    """What a process says that has campaigned for a while."""
    election = Election(at, Guard(now), PLACE, identity="a", clock=now, wall_clock=now)
    campaign = asyncio.create_task(election.campaign())
    await pass_time(5)
    campaign.cancel()
    return election.problems()


def test_a_process_that_may_not_use_leases_says_so() -> None:
    class Refused:
        async def read_lease(self, *_: object) -> None:
            raise ApiError(403, "Forbidden", "leases is forbidden")

        async def write_lease(self, *_: object) -> dict[str, object]:
            raise AssertionError("nothing is written unseen")

    said = simulate(problems_of_a_campaign(Refused()))
    assert said == ["Lease default/ropewalk-operator cannot be used: leases is forbidden"]


def test_a_process_whose_lease_cannot_be_made_says_so() -> None:
    class Nowhere:
        async def read_lease(self, *_: object) -> None:
            return None

        async def write_lease(self, *_: object) -> dict[str, object]:
            raise ApiError(404, "NotFound", 'namespaces "default" not found')

    (said,) = simulate(problems_of_a_campaign(Nowhere()))
    assert said.startswith('Lease default/ropewalk-operator cannot be made: namespaces "default" not found; ')
    assert "ROPEWALK_LEASE_NAMESPACE" in said


def test_what_keeps_a_process_from_the_lease_is_said_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    async def world() -> None:
        store = Store()
        await until_leading(Process("a", store).start())
        standby = Process("b", store).start()
        for _ in range(2):
            standby.weather = AWAY
            await pass_time(10)
            standby.weather = Weather()
            await pass_time(10)

    simulate(world())
    assert caplog.messages.count("the Lease cannot be taken") == 2


def test_a_process_that_stands_by_has_no_problem() -> None:
    async def world() -> None:
        store = Store()
        await until_leading(Process("a", store).start())
        assert await problems_of_a_campaign(Process("b", store)) == []

    simulate(world())


@pytest.mark.parametrize("seed", range(8))
def test_never_do_two_write_whatever_happens(seed: int) -> None:
    """Processes come, stop, hang, are killed and lose the API server; their clocks differ and jump."""
    chance = random.Random(seed)

    async def world() -> list[Process]:
        store = Store(seed)
        everybody: list[Process] = []

        def begin() -> Process:
            offset, wall = chance.uniform(0, 1e6), chance.uniform(0, 2e9)
            process = Process(f"p{len(everybody)}", store, offset, wall).start()
            everybody.append(process)
            return process

        alive = [begin(), begin()]
        for _ in range(60):
            await pass_time(chance.expovariate(1 / 8))
            process = chance.choice(alive)
            process.wall = chance.uniform(0, 2e9)
            match chance.randrange(6):
                case 0:
                    process.kill()
                    alive[alive.index(process)] = begin()
                case 1:
                    await process.stop()
                    alive[alive.index(process)] = begin()
                case 2:
                    process.pause()
                    await pass_time(chance.uniform(1, 40))
                    process.go_on()
                case 3:
                    process.weather = Weather(unreachable=chance.random(), unanswered=chance.random())
                case 4:
                    process.weather = Weather(latency=(0, chance.uniform(0, 12)))
                case _:
                    process.weather = Weather()
            alive = [begin() if each.lost else each for each in alive]
        for each in alive:
            each.go_on()
            each.kill()
        return everybody

    processes = simulate(world())
    assert overlaps(processes) == []
    assert sum(bool(each.writes) for each in processes) > 3, "several have led, so that there was something to see"
