"""The circuit breaker as a table: what happens, one thing after the other, and the state that it leaves."""

import pytest

from ropewalk_agent.tools.breaker import Breaker

FIVE = ["fails"] * 5


def after(events: list[str]) -> tuple[Breaker, list[str]]:
    """Play events on a clock that only `waits` moves; return the last state and what became of each asked call."""
    breaker, now, asked, probe = Breaker(), 100.0, list[str](), False
    for event in events:
        match event.split():
            case ["waits", seconds]:
                now += float(seconds)
            case ["asks"]:
                breaker, admitted = breaker.admit(now)
                probe = admitted and breaker.state == "half-open"
                asked.append("probe" if probe else "yes" if admitted else "no")
            case ["fails"]:
                breaker = breaker.failed(now, probe=False)
            case ["succeeds"]:
                breaker = breaker.succeeded()
            case ["probe", "fails"]:
                breaker = breaker.failed(now, probe=True)
            case ["probe", "leaves"]:
                breaker = breaker.abandoned(probe=True)
            case ["reconnects"]:
                breaker = breaker.reconnected(now)
            case _:
                raise AssertionError(event)
    return breaker, asked


@pytest.mark.parametrize(
    ("events", "state", "asked"),
    [
        pytest.param(["asks"], "closed", ["yes"], id="a new one lets calls through"),
        pytest.param([*FIVE[:4], "asks"], "closed", ["yes"], id="four failures leave it closed"),
        pytest.param([*FIVE, "asks"], "open", ["no"], id="five in a row open it"),
        pytest.param([*FIVE[:4], "succeeds", *FIVE[:4], "asks"], "closed", ["yes"], id="a success between starts anew"),
        pytest.param([*FIVE, "waits 4.9", "asks"], "open", ["no"], id="it stays open for its pause"),
        pytest.param([*FIVE, "waits 5", "asks"], "half-open", ["probe"], id="after the pause one call is the probe"),
        pytest.param([*FIVE, "waits 5", "asks", "asks"], "half-open", ["probe", "no"], id="only one"),
        pytest.param([*FIVE, "waits 5", "asks", "succeeds", "asks"], "closed", ["probe", "yes"], id="which closes it"),
        pytest.param(
            [*FIVE, "waits 5", "asks", "probe fails", "waits 9.9", "asks"],
            "open",
            ["probe", "no"],
            id="or opens it for twice as long",
        ),
        pytest.param(
            [*FIVE, "waits 5", "asks", "probe fails", "waits 10", "asks"],
            "half-open",
            ["probe", "probe"],
            id="until the next probe",
        ),
        pytest.param(
            FIVE
            + ["waits 60", "asks", "probe fails"] * 3
            + ["waits 60", "asks", "probe fails", "waits 59.9", "asks", "waits 0.1", "asks"],
            "half-open",
            ["probe"] * 4 + ["no", "probe"],
            id="but never longer than a minute",
        ),
        pytest.param(
            [*FIVE, *["waits 60", "asks", "probe fails"] * 1100, "waits 59.9", "asks", "waits 0.1", "asks"],
            "half-open",
            ["probe"] * 1100 + ["no", "probe"],
            id="also after a day",
        ),
        pytest.param(
            [*FIVE, "waits 5", "asks", "probe leaves", "asks"],
            "half-open",
            ["probe", "probe"],
            id="a probe that is given up leaves its place to the next call",
        ),
        pytest.param(
            [*FIVE, "waits 5", "asks", "fails", "asks"],
            "half-open",
            ["probe", "no"],
            id="a late failure of an older call does not count for the probe",
        ),
        pytest.param([*FIVE, "waits 4", *FIVE, "waits 1", "asks"], "half-open", ["probe"], id="nor prolong a pause"),
        pytest.param([*FIVE, "succeeds", "asks"], "closed", ["yes"], id="a late success closes it"),
        pytest.param([*FIVE, "reconnects", "asks"], "half-open", ["probe"], id="a new connection is probed at once"),
        pytest.param(["fails", "reconnects"] * 5 + ["asks"], "half-open", ["probe"], id="and forgets no failure"),
    ],
)
def test_breaker(events: list[str], state: str, asked: list[str]) -> None:
    breaker, admitted = after(events)
    assert (breaker.state, admitted) == (state, asked)
