"""Waiting for a thing itself, with a bound: polls a probe until it gives something true, or says what it saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05


def until(probe: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true value of `probe`; an AssertionError after `seconds`, naming `what` and the last value seen."""
    end = time.monotonic() + seconds
    while True:
        seen = probe()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s; last seen: {seen!r}")
        time.sleep(POLL_SECONDS)
