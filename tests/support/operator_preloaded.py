"""The operator as a process that starts in no time, for tests that start it a hundred times.

Another process has imported everything, and forks: nothing but the import is spared. It runs this module.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from operator_process import OperatorProcess
from waiting import until


class PreloadedOperator(OperatorProcess):
    """As its base, which it is used like; `close` ends the process that forks."""

    _parent: subprocess.Popen[str] | None = None
    _pid = 0

    def start(self, *, wait: bool = True) -> PreloadedOperator:
        """Start the process; with `wait`, return when its caches are filled."""
        if self._parent is None:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "operator_preloaded"],
                env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(self._log_file, file=self._parent.stdin, flush=True)
        self._pid = int(self._parent.stdout.readline())
        if wait:
            until(self.is_ready, "the operator is ready")
        return self

    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._pid != 0 and not _lives(self._pid)

    def close(self) -> None:
        """End the operator and the process that forks."""
        self.kill()
        if self._parent is not None:
            self._parent.communicate()
            self._parent = None

    def _end(self, number: signal.Signals) -> int:
        pid, self._pid = self._pid, 0
        if pid and _lives(pid):
            os.kill(pid, number)
            until(lambda: not _lives(pid), "the operator ends")
        return 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _fork() -> None:
    from ropewalk_operator import __main__ as program

    # Who is not waited for is gone at once.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            log = os.open(line.strip(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(program.main())
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _fork()
