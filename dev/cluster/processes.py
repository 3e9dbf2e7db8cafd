"""The cluster's background processes: started once, known by a pid file, ended by their own id and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.console import Failure

_TERM_SECONDS = 10.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Process:
    """A background process whose output goes to `folder/NAME.log` and whose id is in `folder/NAME.pid`."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """Everything that the process has printed."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its id, or None when it does not run (any more)."""
        try:
            pid, _, born = (self.folder / f"{self.name}.pid").read_text().partition(" ")
        except FileNotFoundError:
            return None
        return int(pid) if born and _birth(int(pid)) == born else None

    def start(self, command: Sequence[str | Path], *, environment: dict[str, str] | None = None) -> None:
        """Start it, unless it runs already, in a session of its own, so that an interrupted make leaves it alone."""
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | (environment or {}),
            )
        (self.folder / f"{self.name}.pid").write_text(f"{child.pid} {_birth(child.pid)}")

    def stop(self) -> None:
        """Ask it to end, and make it end after ten seconds."""
        if (pid := self.pid) is not None:
            end(pid)
        (self.folder / f"{self.name}.pid").unlink(missing_ok=True)

    def last_words(self, lines: int = 15) -> str:
        """The end of its log, for an error message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def stop_all(folder: Path) -> None:
    """Stop every process that has its log and its id in the folder; none is no error."""
    for file in sorted(folder.glob("*.pid")):
        Process(file.stem, folder).stop()


def end(pid: int) -> None:
    """SIGTERM, then SIGKILL after ten seconds; returns when the process is gone or only waits to be reaped."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + _TERM_SECONDS
        while time.monotonic() < until:
            if _birth(pid) == "":
                return
            time.sleep(_POLL_SECONDS)


def wait_until(ready: Callable[[], bool], what: str, *, seconds: float, watched: Process | None = None) -> None:
    """Poll `ready`; raise Failure with the log of `watched` if it ends or the time is over."""
    until = time.monotonic() + seconds
    while not ready():
        ended = watched is not None and watched.pid is None
        if ended or time.monotonic() > until:
            why = "its process ended" if ended else f"not within {seconds:.0f} s"
            log = f"\nThe end of {watched.log}:\n{watched.last_words()}" if watched else ""
            raise Failure(f"waited for {what}: {why}.{log}")
        time.sleep(_POLL_SECONDS)


def _birth(pid: int) -> str:
    """When the process was started, in clock ticks since boot, so that a reused id is not mistaken; "" if it is gone.

    The fields of /proc/PID/stat are described in proc(5); the command's name, which may hold spaces, ends at ")".
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
