"""A real API server for tests: etcd, kube-apiserver and kube-controller-manager on free ports, in a folder of its own.

There is no kubelet and no scheduler: pods are never run, and a test that wants a status writes it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.controlplane import ControlPlane
from cluster.layout import REPOSITORY, Layout


class ApiServer:
    """Start it, use `kubeconfig` or `kubectl`, stop it. Nothing of it is left afterwards."""

    def __init__(self) -> None:
        binaries = Path(os.environ.get("ROPEWALK_BIN") or Layout.default().bin)
        if not (binaries / "kube-apiserver").exists():
            raise RuntimeError(f"{binaries} holds no kube-apiserver: `make tools` builds it")
        api, etcd, peer = _free_ports(3)
        self._folder = Path(tempfile.mkdtemp(prefix="ropewalk-apiserver-"))
        # The API server must not advertise a loopback address; nobody here uses the one that it advertises.
        self._plane = ControlPlane(binaries, self._folder, api, etcd, peer, "198.18.255.1", "127.0.0.1")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
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
def serving_crds() -> Iterator[ApiServer]:
    """An API server that serves Ropewalk's resources."""
    server = ApiServer().start()
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
