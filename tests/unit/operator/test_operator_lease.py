"""What a Lease says, when it may be taken, and what its next holder writes."""

from __future__ import annotations

from typing import Any

import pytest

from ropewalk_operator.lease import DURATION_SECONDS, Lease, Sight, held, lease, micro_time, released

NOW = 1_700_000_000.25


def body(holder: str = "a", version: str = "1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": "u", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3, **spec},
    }


def of(holder: str = "a", version: str = "1", **spec: Any) -> Lease:
    return lease(body(holder, version, **spec))


def test_a_lease_is_read_also_where_fields_are_missing() -> None:
    found = lease({"metadata": {"uid": "u", "resourceVersion": "7"}})
    assert (found.holder, found.duration_seconds, found.transitions, found.version) == ("", DURATION_SECONDS, 0, "7")


@pytest.mark.parametrize(
    ("sights", "now", "wait"),
    [
        pytest.param([(None, 0)], 0, 0, id="one that is not there may be taken at once"),
        pytest.param([(of(""), 0)], 0, 0, id="so may one that was released"),
        pytest.param([(of("me"), 0)], 0, 0, id="and one that this pod held before it was started again"),
        pytest.param([(of(), 100)], 100, 15, id="another's has to be watched as long as it lasts, however old it is"),
        pytest.param([(of(), 100)], 114.5, 0.5, id="until then it is not free"),
        pytest.param([(of(), 100)], 115, 0, id="unchanged for its duration, it is free"),
        pytest.param([(of(), 100), (of(), 110)], 115, 0, id="to see it again unchanged is no sign of life"),
        pytest.param([(of(), 100), (of(version="2"), 110)], 115, 10, id="any change of it is one"),
        pytest.param([(of(leaseDurationSeconds=60), 0)], 15, 45, id="what its holder says of its duration counts"),
        pytest.param([(of(renewTime="2001-01-01T00:00:00.0Z"), 0)], 0, 15, id="times in it say nothing: long ago"),
        pytest.param([(of(renewTime="2099-01-01T00:00:00.0Z"), 0)], 15, 0, id="times in it say nothing: far ahead"),
        pytest.param([(of(), 0), (None, 5)], 5, 10, id="deleted by somebody, it lasts as long as it would have"),
        pytest.param([(of(), 0), (None, 5)], 15, 0, id="and no longer"),
        pytest.param([(of(), 0), (of("b", "2"), 5)], 15, 5, id="a new holder has a whole duration"),
        pytest.param([(of(), 0), (of("", "2"), 5)], 5, 0, id="released while others wait, it is free at once"),
    ],
)
def test_a_lease_may_be_taken_when_it_was_seen_unchanged_for_its_duration(
    sights: list[tuple[Lease | None, float]], now: float, wait: float
) -> None:
    sight = Sight()
    for found, at in sights:
        sight.see(found, at)
    assert sight.wait_seconds("me", now) == wait


def test_a_takeover_counts_as_a_transition_and_a_renewal_does_not() -> None:
    first = held(None, "me", NOW)
    assert first == {
        "holderIdentity": "me",
        "leaseDurationSeconds": DURATION_SECONDS,
        "acquireTime": "2023-11-14T22:13:20.250000Z",
        "renewTime": "2023-11-14T22:13:20.250000Z",
        "leaseTransitions": 0,
    }
    taken = held(of("other"), "me", NOW)
    assert (taken["leaseTransitions"], taken["acquireTime"]) == (4, micro_time(NOW))
    renewed = held(of("me", acquireTime="then"), "me", NOW)
    assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (3, "then")


def test_a_released_lease_names_nobody_and_keeps_the_count() -> None:
    given_up = released(of("me"), NOW)
    assert (given_up["holderIdentity"], given_up["leaseTransitions"]) == ("", 3)
    assert given_up["leaseDurationSeconds"] > 0, "the API server wants one"
