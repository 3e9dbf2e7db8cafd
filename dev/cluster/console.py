"""What a person sees while the cluster comes up: a line when a step begins, and how long it took when it ends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

_REMIND_EVERY_SECONDS = 30.0


class Failure(Exception):
    """Something a person has to put right. The message says what was wrong and what to do."""


def say(text: str) -> None:
    """Print a line at once, also where the output is a pipe."""
    print(text, flush=True)


@contextmanager
def step(what: str, *, expected: str = "") -> Iterator[None]:
    """Announce `what`, remind of it every half minute, and say how long it took.

    `expected` is the usual duration on a machine of 2 cores, in words.
    """
    say(f"==> {what}" + (f" (about {expected})" if expected else ""))
    began = time.monotonic()
    done = threading.Event()

    def remind() -> None:
        while not done.wait(_REMIND_EVERY_SECONDS):
            say(f"    … still at it after {timedelta(seconds=int(time.monotonic() - began))}")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    except BaseException:
        say(f"    failed after {time.monotonic() - began:.1f} s")
        raise
    finally:
        done.set()
        reminder.join()
    say(f"    done in {time.monotonic() - began:.1f} s")


def fail(failure: Failure) -> int:
    """Print a failure where errors go; the exit code of a command that could not go on."""
    print(f"\nropewalk: {failure}", file=sys.stderr, flush=True)
    return 1
