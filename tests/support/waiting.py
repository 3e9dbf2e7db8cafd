"""Waiting for the thing itself, with a bound: looks until there is something true to see, or says what it saw last."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

import httpx

T = TypeVar("T")

_PAUSE_SECONDS = 0.05
# The state of this process costs nothing to look at, and some of it does not last.
_ASYNC_PAUSE_SECONDS = 0.001
# What a look raises while it is too early: nobody listens yet, there is no such file, or what it asserts does not hold.
_TOO_EARLY = (AssertionError, OSError, httpx.HTTPError)


def until(look: Callable[[], T | None], what: str = "", seconds: float = 60.0) -> T:
    """Block until `look` returns something true, and return that.

    An AssertionError, OSError or httpx.HTTPError of `look` means "not yet"; whatever else it raises ends the waiting.
    After `seconds` an AssertionError names `what` (by default the look itself) and what was seen last.
    """
    ends = time.monotonic() + seconds
    while True:
        seen: object
        try:
            if found := look():
                return found
            seen = found
        except _TOO_EARLY as error:
            seen = error
        if time.monotonic() > ends:
            raise AssertionError(_too_late(look, what, seconds, seen))
        time.sleep(_PAUSE_SECONDS)  # the only pause: between two looks


@overload
async def eventually(look: Callable[[], Awaitable[T | None]], what: str = "", seconds: float = 20.0) -> T: ...
@overload
async def eventually(look: Callable[[], T | None], what: str = "", seconds: float = 20.0) -> T: ...
async def eventually(look: Callable[[], object], what: str = "", seconds: float = 20.0) -> object:
    """`until` for a loop, which goes on meanwhile; `look` may be asynchronous, and any thread may make it true."""
    seen: object = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    found = look()
                    if seen := await found if inspect.isawaitable(found) else found:
                        return seen
                except _TOO_EARLY as error:
                    seen = error
                await asyncio.sleep(_ASYNC_PAUSE_SECONDS)  # the only pause: between two looks
    except TimeoutError:
        raise AssertionError(_too_late(look, what, seconds, seen)) from None


def _too_late(look: Callable[[], object], what: str, seconds: float, seen: object) -> str:
    last = f"{type(seen).__name__}: {seen}" if isinstance(seen, Exception) else repr(seen)
    return f"not within {seconds:g} s: {what or _source(look)}; last seen: {last}"


def _source(look: Callable[[], object]) -> str:
    """The name of a function, or the statement that a lambda stands in."""
    name = getattr(look, "__qualname__", repr(look))
    return inspect.getsource(look).strip() if name.endswith("<lambda>") else name
