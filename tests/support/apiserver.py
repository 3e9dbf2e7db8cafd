"""A real API server for tests: etcd, kube-apiserver and kube-controller-manager on free ports, in a folder of its own.

There is no kubelet and no scheduler: pods are never run, and a test that wants a status writes it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.console import Failure
from cluster.controlplane import ControlPlane
from cluster.layout import REPOSITORY, Layout
from waiting import until

REVIVALS = 5


@dataclass(frozen=True)
class Write:
    """A write as the API server saw it."""

    author: str
    """The user agent, without its version."""
    received: datetime
    over: datetime
    what: str
    code: int

    @classmethod
    def of(cls, event: dict[str, Any]) -> Write:
        """From an event of the audit log."""
        target = event["objectRef"]
        what = f"{event['verb']} {target['resource']} {target.get('name', '')}"
        received, over = (datetime.fromisoformat(event[f"{at}Timestamp"]) for at in ("requestReceived", "stage"))
        author = event.get("userAgent", "").rpartition("/")[0]
        return cls(author, received, over, what, event.get("responseStatus", {}).get("code", 0))


class ApiServer:
    """Start it, use `kubeconfig` or `kubectl`, stop it. Nothing of it is left afterwards."""

    def __init__(self, *, audited: bool = False) -> None:
        binaries = Path(os.environ.get("ROPEWALK_BIN") or Layout.default().bin)
        if not (binaries / "kube-apiserver").exists():
            raise RuntimeError(f"{binaries} holds no kube-apiserver: `make tools` builds it")
        api, etcd, peer = _free_ports(3)
        self._folder = Path(tempfile.mkdtemp(prefix="ropewalk-apiserver-"))
        flags = self._audit() if audited else ()
        # The API server must not advertise a loopback address; nobody here uses the one that it advertises.
        self._plane = ControlPlane(binaries, self._folder, api, etcd, peer, "198.18.255.1", "127.0.0.1", flags)
        self.port = api

    @cached_property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; written once, since others read it at any time."""
        return self._plane.kubeconfig("admin")

    def start(self, *, controllers: bool = True) -> ApiServer:
        """Return when the API server is ready and the controllers, if any, have made the default service account."""
        try:
            self._plane.start_api()
            if not controllers:
                return self
            self._plane.start_controllers()
            self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        except BaseException:
            self.stop()
            raise
        return self

    def leave(self) -> None:
        """End the API server alone, as if its machine were away; `come_back` starts it again."""
        self._plane.process("apiserver").stop()

    def come_back(self) -> None:
        """Start the API server again, with all that it held."""
        self._plane.start_api()

    def writes(self, namespace: str) -> list[Write]:
        """Every write in a namespace that has come to the API server, in the order of their ends; only if `audited`."""
        lines = (self._folder / "audit.log").read_text().splitlines()
        events = (json.loads(line) for line in lines if line.endswith("}"))
        return [Write.of(event) for event in events if event["objectRef"].get("namespace") == namespace]

    def _audit(self) -> tuple[str | Path, ...]:
        """Flags by which the API server records who has written what, and when, without what."""
        rule = {"level": "Metadata", "verbs": ["create", "update", "patch", "delete"]}
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [{"level": "None", "resources": [{"group": "coordination.k8s.io"}]}, rule, {"level": "None"}],
        }
        file = self._folder / "audit-policy.json"
        file.write_text(json.dumps(policy))
        return "--audit-policy-file", file, "--audit-log-path", self._folder / "audit.log"

    def crash(self, *processes: str) -> None:
        """SIGKILL the `apiserver`, `etcd` or both; what they have stored stays."""
        for name in processes:
            pid = self._plane.process(name).pid
            assert pid is not None, f"{name} does not run"
            os.kill(pid, signal.SIGKILL)
            until(lambda name=name: self._plane.process(name).pid is None, f"{name} is gone")  # type: ignore[misc]

    def revive(self) -> None:
        """Start again what has crashed; return when the API server is ready."""
        # A client that knocks all the time may get the port that it knocks at as its own, for a moment.
        for _ in range(REVIVALS):
            with suppress(Failure):
                self._plane.start_api()
                return
        raise AssertionError(f"the API server did not start again in {REVIVALS} attempts")

    def stop(self) -> None:
        """End the processes and remove the folder."""
        self._plane.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess.run names it
        """Run kubectl as the administrator; its output, or an AssertionError with what it said."""
        done = subprocess.run(
            [self._plane.bin / "kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=input, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@contextmanager
def serving_crds(*, controllers: bool = True, audited: bool = False) -> Iterator[ApiServer]:
    """An API server that serves Ropewalk's resources."""
    server = ApiServer(audited=audited).start(controllers=controllers)
    try:
        server.kubectl("apply", "-f", str(REPOSITORY / "crds"))
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield server
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
