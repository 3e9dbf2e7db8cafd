"""Where the everything-server runs: natively over streamable HTTP, or over stdio behind the bridge; local processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from cluster.console import Failure
from cluster.layout import REPOSITORY
from ports import free_port
from waiting import until

SessionMode = Literal["shared", "perSession"]
PYTHON = str(REPOSITORY / ".venv-mcp" / "bin" / "python")
EVERYTHING = [PYTHON, "-m", "tests.conformance.everything"]
_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Target:
    """A server that answers."""

    port: int
    process: subprocess.Popen[Any]

    @property
    def url(self) -> str:
        """Where it speaks MCP."""
        return f"http://127.0.0.1:{self.port}/mcp"


@contextmanager
def native(answers: str = "resumable") -> Iterator[Target]:
    """Serve over streamable HTTP; `answers` is the form of the answers, see the everything-server."""
    port = free_port()
    with _running([*EVERYTHING, "--http", str(port), "--answers", answers]) as process:
        until_answers(f"http://127.0.0.1:{port}/mcp", process, anything=True)
        yield Target(port, process)


@contextmanager
def bridged(mode: SessionMode) -> Iterator[Target]:
    """Serve over stdio behind the bridge."""
    port = free_port()
    options = [f"--port={port}", "--path=/mcp", f"--session-mode={mode}", "--max-sessions=100"]
    command = [PYTHON, "-m", "ropewalk_mcp_stdio", "serve", *options, "--idle-timeout-seconds=300", "--", *EVERYTHING]
    with _running(command) as process:
        until_answers(f"http://127.0.0.1:{port}/ready", process)
        yield Target(port, process)


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    variables = os.environ | {
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'mcp_images'}",
        "PYTHONWARNINGS": "ignore",
        # As the operator sets it: without it the bridge would not look at the host's name.
        "ROPEWALK_MCP_ALLOWED_HOSTS": "everything-mcp",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=log, stderr=log)
        try:
            yield process
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-4000:].decode(errors="replace"))
            raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until_answers(url: str, process: subprocess.Popen[Any], *, anything: bool = False) -> None:
    """Return when `url` answers 200, or with `anything` whatever it answers; raises Failure where it does not."""

    def look() -> bool:
        if process.poll() is not None:
            raise Failure(f"{url} does not answer; its process has exit code {process.returncode}")
        with httpx.stream("GET", url, timeout=5) as answer:  # its body may have no end
            assert anything or answer.status_code == 200, f"HTTP {answer.status_code}"
        return True

    try:
        until(look, f"{url} answers", _READY_SECONDS)
    except AssertionError as late:
        raise Failure(str(late)) from None
