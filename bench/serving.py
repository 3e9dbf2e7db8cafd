"""Starts what is measured, each in a process of its own on a loopback port, and reads what the process has used."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Served:
    """A server that answers on 127.0.0.1."""

    port: int
    process: subprocess.Popen[bytes]
    ready_seconds: float
    """From the start of the process until /ready said yes, to within a hundredth of a second."""

    def cpu_seconds(self) -> float:
        """User and system time that the process has used so far (proc(5), stat)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def pss_mib(self) -> float:
        """Proportional set size in MiB (proc(5), smaps_rollup)."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.findall(r"^Pss:\s+(\d+) kB", text, re.M)[0]) / 1024

    def stop(self) -> float:
        """End it by SIGTERM; seconds until it was gone."""
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        return time.perf_counter() - began


def document(**changes: Any) -> dict[str, Any]:
    """The agent.json of all measurements, with top-level fields replaced."""
    model = {"provider": "openai-compatible", "id": "m", "baseURL": "http://127.0.0.1:9/v1"}
    return {
        "formatVersion": 1, "name": "bench", "systemPrompt": "You are a calculator.", "model": model, **changes,
    }  # fmt: skip


@contextmanager
def serving(
    arguments: list[str],
    *,
    config: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    errors: IO[str] | None = None,
) -> Iterator[Served]:
    """Run `python ARGUMENTS`, which must listen on ROPEWALK_PORT and answer /ready, until the block ends.

    `errors`: a file for what it writes to standard error.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agent.json"
        file.write_text(json.dumps(config or document()))
        variables = os.environ | {
            "PYTHONPATH": "agent_image/src",
            "ROPEWALK_CONFIG_FILE": str(file),
            "ROPEWALK_HOST": "127.0.0.1",
            "ROPEWALK_PORT": str(port),
            **(environment or {}),
        }
        began = time.perf_counter()
        command = [sys.executable, *arguments]
        with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=errors) as process:
            try:
                until_ready(port, process)
                yield Served(port, process, time.perf_counter() - began)
            finally:
                process.terminate()


def until_ready(port: int, process: subprocess.Popen[bytes], within_seconds: float = 60) -> None:
    """Return when /ready says yes; raises RuntimeError where the process ends or takes longer."""
    until = time.monotonic() + within_seconds
    while not _is_ready(port):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} was not ready: exit code {process.returncode}")
        time.sleep(0.01)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
