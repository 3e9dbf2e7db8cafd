"""The waiting that other tests rely on: what ends it, and what it says when nothing came of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest

from waiting import eventually, until

Wait = Callable[..., Awaitable[object]]


async def blocking(look: Callable[[], object], *arguments: object) -> object:
    return until(look, *arguments)  # type: ignore[arg-type]


both = pytest.mark.parametrize("wait", [blocking, eventually])


@both
async def test_the_first_true_value_is_returned(wait: Wait) -> None:
    seen = iter(["", [], 0, "this", "that"])
    assert await wait(lambda: next(seen)) == "this"
    assert next(seen) == "that", "nobody looked again"


@both
@pytest.mark.parametrize("early", [AssertionError("no"), ConnectionRefusedError("no"), httpx.ReadError("no")])
async def test_what_a_look_raises_while_it_is_too_early_does_not_end_the_wait(wait: Wait, early: Exception) -> None:
    steps: list[Exception] = [early]

    def look() -> bool:
        if steps:
            raise steps.pop()
        return True

    assert await wait(look)


@both
async def test_anything_else_that_a_look_raises_ends_the_wait(wait: Wait) -> None:
    def look() -> None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        await wait(look)


@both
@pytest.mark.parametrize(("seen", "told"), [(0, "0"), (OSError("nobody there"), "OSError: nobody there")])
async def test_who_waits_in_vain_is_told_for_what_and_what_was_seen_last(wait: Wait, seen: object, told: str) -> None:
    def look() -> object:
        if isinstance(seen, Exception):
            raise seen
        return seen

    with pytest.raises(AssertionError) as late:
        await wait(look, "a third pod", 0.01)
    assert str(late.value) == f"not within 0.01 s: a third pod; last seen: {told}"


@both
async def test_a_wait_without_a_name_is_told_by_its_look(wait: Wait) -> None:
    with pytest.raises(AssertionError, match="active_count"):
        await wait(lambda: threading.active_count() < 0, "", 0.01)


async def test_a_look_that_hangs_is_given_up() -> None:
    with pytest.raises(AssertionError, match="an answer; last seen: None"):
        await eventually(asyncio.Event().wait, "an answer", 0.01)
