"""What is waited for at the start, how long between two questions, and what is not waited for."""

from __future__ import annotations

import logging

import pytest

from clock import Clock
from ropewalk_operator.kube import ApiError
from ropewalk_operator.patience import LAST_SECONDS, Patience
from ropewalk_operator.streams import REFUSED_SECONDS

PASSING = [(0, "Unreachable"), (401, "Unauthorized"), (410, "Expired"), (429, ""), (500, "InternalError"), (503, "")]


class Server:
    """Answers with these errors, one after the other, and then with 7."""

    def __init__(self, *errors: ApiError) -> None:
        self.errors = list(errors)

    async def ask(self) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7


def error(status: int, reason: str = "") -> ApiError:
    return ApiError(status, reason, "no")


@pytest.mark.parametrize(("status", "reason"), PASSING)
async def test_what_passes_is_waited_for_without_an_end(status: int, reason: str) -> None:
    clock = Clock()
    server = Server(*[error(status, reason)] * 30)
    assert await Patience(clock.sleep, clock).ask(server.ask) == 7
    assert server.errors == []


@pytest.mark.parametrize("status", [400, 403, 404, 406, 409, 422])
async def test_a_refusal_that_stays_is_told(status: int) -> None:
    clock = Clock(0.0)
    patience = Patience(clock.sleep, clock)
    with pytest.raises(ApiError, match=f"^{status} "):
        await patience.ask(Server(*[error(status)] * 30).ask)
    assert REFUSED_SECONDS <= clock.now <= REFUSED_SECONDS + LAST_SECONDS
    assert patience.waits_for == "", "it is given up"


@pytest.mark.parametrize("status", [400, 403, 404, 406, 409, 422])
async def test_a_refusal_for_a_moment_is_waited_for(status: int) -> None:
    clock = Clock()
    answers = [*[error(status)] * 4, error(503)] * 5
    assert await Patience(clock.sleep, clock).ask(Server(*answers).ask) == 7


async def test_the_pauses_grow_and_stay_short_enough_to_go_on_soon_after_the_server_does() -> None:
    clock = Clock()
    await Patience(clock.sleep).ask(Server(*[error(0)] * 30).ask)
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[0] < 1 < clock.slept[-1] == LAST_SECONDS


async def test_what_is_waited_for_is_known_meanwhile_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    waited_for: set[str] = set()

    async def sleep(_seconds: float) -> None:
        waited_for.add(patience.waits_for)

    patience = Patience(sleep)
    with caplog.at_level(logging.INFO):
        await patience.ask(Server(*[error(0, "Unreachable")] * 5, error(503, "Starting")).ask)
    assert waited_for == {"0 Unreachable: no", "503 Starting: no"}
    assert patience.waits_for == ""
    waiting = "waiting for the API server"
    assert [record.message for record in caplog.records] == [waiting, waiting, "the API server answers"]


async def test_a_server_that_says_how_long_to_wait_is_left_alone_for_so_long() -> None:
    clock = Clock()
    await Patience(clock.sleep).ask(Server(ApiError(429, "TooManyRequests", "no", 30.0)).ask)
    assert clock.slept == [30.0]
