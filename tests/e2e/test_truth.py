"""An Agent that does not work says why, and what to do; and works once that is done. Fifteen ways to break one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e_breakages import TOO_LONG, Breakage, break_all, breakages, label_nodes, let_go
from e2e_cluster import Workspace, agent
from waiting import until

_WAYS = breakages()
_BROKEN = pytest.mark.parametrize("way", _WAYS, ids=[way.name for way in _WAYS])
_HEAL_SECONDS = 180
"""The kubelet looks again for a missing Secret every two minutes, and for a changed one every minute and a half."""


@pytest.fixture(scope="module")
def broken(space: Workspace) -> Iterator[Workspace]:
    """All Agents at once, each broken in its own way."""
    try:
        break_all(space, _WAYS)
        yield space
    finally:
        # What would stay behind: on the node, and what keeps the namespace.
        label_nodes("")
        let_go(space)


@pytest.fixture(scope="module")
def mended(broken: Workspace) -> Workspace:
    """All causes taken away at once."""
    for way in _WAYS:
        way.mend(broken)
    return broken


@_BROKEN
@pytest.mark.timeout(240)
def test_a_broken_agent_says_why_and_what_to_do(broken: Workspace, way: Breakage) -> None:
    def says_why() -> bool:
        # Of one read: what runs out of memory or crashes says something else between two of its restarts.
        found, ready = broken.conditions(f"agent/{way.name}", way.condition, "Ready")
        assert (found["status"], found["reason"]) == ("False", way.reason), found
        assert [word for word in way.words if word not in found["message"]] == [], found["message"]
        assert (ready["status"], ready["reason"], ready["message"]) == ("False", way.reason, found["message"]), ready
        return True

    until(says_why, f"{way.condition} is False: {way.reason}", seconds=way.within_seconds + 60)


def test_a_name_that_is_too_long_is_refused_with_what_is_allowed(broken: Workspace) -> None:
    with pytest.raises(AssertionError, match=r"metadata.name names the Service too: use at most 50 characters"):
        broken.apply(agent(TOO_LONG))


def test_kubectl_get_shows_the_reasons(broken: Workspace) -> None:
    wanted = {(way.name, "False", way.reason) for way in _WAYS}
    # Between two of its restarts a container may say something else: these need not be right all at once.
    restarting = {row for row in wanted if row[2] in ("CrashLoop", "OutOfMemory")}
    ever: set[tuple[str, ...]] = set()

    def all_are_shown() -> bool:
        lines = broken.kubectl("get", "agents", "--no-headers").splitlines()
        shown = {tuple(line.split()[:3]) for line in lines}
        ever.update(shown & restarting)
        assert wanted - shown - ever == set()
        return True

    until(all_are_shown, "each of the reasons")


def test_a_stuck_rollout_leaves_the_old_pod_answering(broken: Workspace) -> None:
    assert broken.ask("stuck-rollout", "Hello")["response"]


def test_what_lasts_is_told_as_a_warning_too(broken: Workspace) -> None:
    passing = {"McpServerNotReady", "NotReady"}

    def all_are_told() -> bool:
        events = broken.get("events", "--field-selector=involvedObject.kind=Agent,type=Warning")["items"]
        told = {(event["involvedObject"]["name"], event["reason"]) for event in events}
        assert {(way.name, way.reason) for way in _WAYS if way.reason not in passing} - told == set()
        return True

    until(all_are_told, "an Event for each of the reasons that last")


@_BROKEN
@pytest.mark.timeout(_HEAL_SECONDS + 60)
def test_an_agent_heals_by_itself_once_its_cause_is_gone(mended: Workspace, way: Breakage) -> None:
    if way.reason == "DeletionBlocked":
        until(lambda: "held" not in mended.kubectl("get", "agents", "-o", "name"), "the Agent is gone")
    else:
        mended.wait(f"agent/{way.name}", seconds=_HEAL_SECONDS)
