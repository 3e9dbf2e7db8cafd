"""A real API server for tests: etcd, kube-apiserver and kube-controller-manager on free ports, in a folder of its own.

There is no kubelet and no scheduler: pods are never run, and a test that wants a status writes it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path

import yaml

import apiserver_audit as audit
from cluster import pki
from cluster.controlplane import ControlPlane
from cluster.layout import REPOSITORY, Layout
from ports import free_port, is_free
from ropewalk_operator.kinds import RESOURCES
from waiting import until

# By default what autoscales, and what binds claims to volumes, looks every 15 s.
_EAGER = ("--horizontal-pod-autoscaler-sync-period=1s", "--pvclaimbinder-sync-period=1s")


class ApiServer:
    """Start it, use `kubeconfig` or `kubectl`, stop it. Nothing of it is left afterwards."""

    def __init__(self, *, audited: bool = False) -> None:
        """With `audited`, the API server records who asked it for what."""
        binaries = Path(os.environ.get("ROPEWALK_BIN") or Layout.default().bin)
        if not (binaries / "kube-apiserver").exists():
            raise RuntimeError(f"{binaries} holds no kube-apiserver: `make tools` builds it")
        api, etcd, peer = free_port(), free_port(), free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="ropewalk-apiserver-"))
        flags = audit.flags(self._folder) if audited else ()
        # The API server must not advertise a loopback address; nobody here uses the one that it advertises.
        self._plane = ControlPlane(binaries, self._folder, api, etcd, peer, "198.18.255.1", "127.0.0.1", flags, _EAGER)
        self._ports = {"apiserver": (api,), "etcd": (etcd, peer)}
        self.port = api

    @cached_property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; written once, since others read it at any time."""
        return self._plane.kubeconfig("admin")

    def kubeconfig_of(self, namespace: str, account: str) -> Path:
        """A kubeconfig with an hour's token of a ServiceAccount, as a pod of it has one."""
        token = self.kubectl("create", "token", account, "-n", namespace, "--duration=1h").strip()
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = namespace
        path = self._folder / "kubeconfigs" / f"{namespace}-{account}"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def start(self, *, controllers: bool = True) -> ApiServer:
        """Return when the API server is ready and the controllers, if any, have made the default service account."""
        try:
            shutil.copytree(_keys(), self._plane.pki, dirs_exist_ok=True)
            self._plane.start_api()
            if controllers:
                self.start_controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def start_controllers(self) -> None:
        """Return when they have made the default service account."""
        self._plane.start_controllers()
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")

    def leave(self) -> None:
        """End the API server alone, as if its machine were away; `come_back` starts it again."""
        self._plane.process("apiserver").stop()

    def come_back(self) -> None:
        """Start again what was ended or has crashed, with all that it held; return when the API server is ready."""
        self._plane.start_api()

    def writes(self, namespace: str) -> list[audit.Write]:
        """Every write in a namespace that has come to the API server, in the order of their ends; only if `audited`."""
        return audit.writes(self._folder, namespace)

    def calls(self, user: str) -> list[audit.Call]:
        """Every request of a user for a resource; only if `audited`."""
        return audit.calls(self._folder, user)

    def crash(self, *processes: str) -> None:
        """SIGKILL the `apiserver`, `etcd` or both; what they have stored stays."""
        for name in processes:
            pid = self._plane.process(name).pid
            assert pid is not None, f"{name} does not run"
            os.kill(pid, signal.SIGKILL)
            until(lambda name=name: self._plane.process(name).pid is None, f"{name} is gone")  # type: ignore[misc]
            # The last of its threads closes its files when the memory is freed, which takes its time under load.
            until(lambda name=name: all(map(is_free, self._ports[name])), f"{name} has let go of its ports")  # type: ignore[misc]

    def stop(self) -> None:
        """End the processes and remove the folder."""
        # At once: an orderly end takes more than a second, and nothing is kept.
        for name in ("controller-manager", "apiserver", "etcd"):
            if (pid := self._plane.process(name).pid) is not None:
                os.kill(pid, signal.SIGKILL)
        self._plane.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess.run names it
        """Run kubectl as the administrator; its output, or an AssertionError with what it said."""
        done = subprocess.run(
            [
                self._plane.bin / "kubectl", "--kubeconfig", self.kubeconfig,
                # Its own: by default kubectl remembers what an earlier server at this port has served.
                "--cache-dir", self._folder / "kubectl", *arguments,
            ],
            input=input, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@cache
def _keys() -> Path:
    """Keys and certificates for every API server of this process: they take longer than anything else of its start."""
    folder = Path(tempfile.mkdtemp(prefix="ropewalk-keys-"))
    atexit.register(shutil.rmtree, folder)
    pki.make(folder)
    return folder


@contextmanager
def serving_crds(*, controllers: bool = True, audited: bool = False) -> Iterator[ApiServer]:
    """An API server that serves Ropewalk's resources."""
    server = ApiServer(audited=audited).start(controllers=False)
    try:
        server.kubectl("apply", "-f", str(REPOSITORY / "crds"))
        # Established is said a moment before they are in the lists that clients go by.
        until(lambda: len(served(server)) == len(RESOURCES), "all resources are served")
        if controllers:
            # Not before, for they learn of new kinds every 30 s.
            server.start_controllers()
        yield server
    finally:
        server.stop()


def served(server: ApiServer) -> list[str]:
    """The names of those of Ropewalk's resources that the API server tells its clients of."""
    return server.kubectl("api-resources", "--api-group=ropewalk.dev", "-o", "name").split()
