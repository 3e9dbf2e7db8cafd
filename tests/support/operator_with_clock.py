"""The operator with a wall clock that jumps: SIGUSR1 sets it forward by an hour, SIGUSR2 back by an hour.

Run as a module in the place of ropewalk_operator. Clocks that never go back are left alone, as they are when somebody
sets a machine's clock.
"""

from __future__ import annotations

import runpy
import signal
import time

from operator_process import OperatorProcess

HOUR_SECONDS = 3600.0


class OperatorWithClock(OperatorProcess):
    """The operator run by this module."""

    module = "operator_with_clock"


class _Clock:
    """The machine's clock and what was added to it."""

    def __init__(self) -> None:
        self._real = time.time
        self._offset = 0.0

    def __call__(self) -> float:
        return self._real() + self._offset

    def jump(self, number: int, _frame: object) -> None:
        self._offset += HOUR_SECONDS if number == signal.SIGUSR1 else -HOUR_SECONDS


if __name__ == "__main__":
    clock = _Clock()
    time.time = clock
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, clock.jump)
    runpy.run_module("ropewalk_operator", run_name="__main__", alter_sys=True)
