"""The operator as a real process beside a real API server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path

from ports import free_port
from waiting import until

REPOSITORY = Path(__file__).parents[2]
AGENT_IMAGE = "ropewalk.dev/agent:0.1.0"
ANSWER_SECONDS = 20
END_SECONDS = 60


class OperatorProcess:
    """Start it, kill it, start it again: like the container of one pod, which goes on with the Lease that it held.

    Its log goes to a file, shown by `log`.
    """

    module = "ropewalk_operator"

    def __init__(self, kubeconfig: Path, log_file: Path, **environment: str) -> None:
        self._log_file = log_file
        self.port = free_port()
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ROPEWALK_")},
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY / "operator" / "src"), str(REPOSITORY / "tests" / "support")]
            ),
            "ROPEWALK_AGENT_IMAGE": AGENT_IMAGE,
            "ROPEWALK_STDIO_IMAGE": "ropewalk.dev/mcp-stdio:0.1.0",
            "ROPEWALK_HOST": "127.0.0.1",
            "ROPEWALK_PORT": str(self.port),
            "POD_NAME": "operator",
            "POD_UID": str(uuid.uuid4()),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> OperatorProcess:
        """Start the process; with `wait`, return when its caches are filled."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module], env=self._environment, stdout=log, stderr=log
            )
        if wait:
            until(self.is_ready, "the operator is ready")
        return self

    def is_ready(self) -> bool:
        """What /ready says."""
        if self.has_ended():
            raise RuntimeError(f"the operator has ended: {self.log()}")
        return self.get("/ready")[0] == 200

    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def get(self, path: str) -> tuple[int, str]:
        """Status code and body of one of its endpoints; 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all label values that fit. AssertionError when it does not answer."""
        return _sum(self.metrics(), name, labels)

    def metrics(self) -> str:
        """What /metrics says. AssertionError when it does not answer: no figure is not 0."""
        status, text = self.get("/metrics")
        assert status == 200, f"/metrics answers {status or 'nothing'}"
        return text

    def writes(self) -> float:
        """Requests that changed something since the process began."""
        text = self.metrics()
        verbs = ("APPLY", "PATCH", "POST", "DELETE")
        return sum(_sum(text, "ropewalk_operator_api_requests_total", {"verb": verb}) for verb in verbs)

    def leads(self) -> bool:
        """Whether it holds the Lease."""
        return self.metric("ropewalk_operator_leader") == 1

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it, and whatever it takes to start it."""
        self.kill()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        code = self._process.wait(timeout=END_SECONDS)
        self._process = None
        return code

    def log(self) -> str:
        """What it has said so far, without a line that is half written."""
        text = self._log_file.read_text() if self._log_file.exists() else ""
        return text[: text.rfind("\n") + 1]

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=END_SECONDS)
        self._process = None
        return code


def _sum(metrics: str, name: str, labels: Mapping[str, str]) -> float:
    total = 0.0
    for line in metrics.splitlines():
        series, _, value = line.rpartition(" ")
        if series.split("{", 1)[0] == name and all(f'{key}="{wanted}"' in series for key, wanted in labels.items()):
            total += float(value)
    return total
