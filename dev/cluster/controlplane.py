"""etcd, the API server, the controllers and the scheduler as host processes: their commands, and their order."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cluster import layout, pki
from cluster.processes import Process, wait_until

_FAST_CLIENT = ("--kube-api-qps=200", "--kube-api-burst=400")


@dataclass(frozen=True)
class ControlPlane:
    """A control plane in a folder of its own, on ports of its own, so that a test can have one beside the demo's."""

    bin: Path
    folder: Path
    api_port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    advertise_address: str = layout.NODE_ADDRESS
    bind_address: str = "0.0.0.0"  # noqa: S104 - pods reach it by the node's address
    api_flags: tuple[str | Path, ...] = ()
    """More flags of the API server."""
    controller_flags: tuple[str | Path, ...] = ()
    """More flags of the controllers."""

    @property
    def server(self) -> str:
        """The API server's address, as the machine itself reaches it."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def pki(self) -> Path:
        """The folder of keys and certificates."""
        return self.folder / "pki"

    def kubeconfig(self, user: str) -> Path:
        """Write the kubeconfig of `user`, readable by its owner only, and say where it is."""
        path = self.folder / "kubeconfigs" / user
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(pki.kubeconfig(self.pki, user, self.server))
        path.chmod(0o600)
        return path

    def process(self, name: str) -> Process:
        """One of this control plane's processes, running or not."""
        return Process(name, self.folder / "log")

    def start_api(self) -> None:
        """Start etcd and the API server; return when the API server says that it is ready."""
        pki.make(self.pki)
        self.process("etcd").start(self._etcd())
        self.process("apiserver").start(self._apiserver())
        wait_until(self.ready, "the API server", seconds=120, watched=self.process("apiserver"))

    def start_controllers(self) -> None:
        """Start the controllers (Deployments, garbage collection, service accounts …)."""
        self.process("controller-manager").start(self._controller_manager())

    def start_scheduler(self) -> None:
        """Start the scheduler."""
        self.process("scheduler").start(
            [self.bin / "kube-scheduler", "--kubeconfig", self.kubeconfig("scheduler"), "--leader-elect=false",
             "--bind-address=127.0.0.1", *_FAST_CLIENT]
        )  # fmt: skip

    def stop(self) -> None:
        """Stop whatever runs, clients first."""
        for name in ("scheduler", "controller-manager", "apiserver", "etcd"):
            self.process(name).stop()

    def ready(self) -> bool:
        """Whether the API server answers /readyz with 200."""
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.server}/readyz", timeout=5, context=context) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _etcd(self) -> list[str | Path]:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            self.bin / "etcd", "--data-dir", self.folder / "etcd", "--log-level", "warn",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            # The data need not survive a power cut; without fsync, writes cost no disk time.
            "--unsafe-no-fsync",
        ]  # fmt: skip

    def _apiserver(self) -> list[str | Path]:
        return [
            self.bin / "kube-apiserver",
            "--etcd-servers", f"http://127.0.0.1:{self.etcd_port}",
            "--secure-port", str(self.api_port), "--bind-address", self.bind_address,
            "--advertise-address", self.advertise_address,
            "--service-cluster-ip-range", layout.SERVICE_CIDR,
            "--tls-cert-file", self.pki / "apiserver.crt", "--tls-private-key-file", self.pki / "apiserver.key",
            "--client-ca-file", self.pki / "ca.crt",
            "--kubelet-client-certificate", self.pki / "admin.crt", "--kubelet-client-key", self.pki / "admin.key",
            # Without this, logs and exec look the node's name up in DNS, where nobody knows it.
            "--kubelet-preferred-address-types", "InternalIP",
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", self.pki / "sa.pub",
            "--service-account-signing-key-file", self.pki / "sa.key",
            # How servers of further APIs, such as metrics-server, know that the API server asks them, and for whom.
            "--proxy-client-cert-file", self.pki / "front-proxy.crt",
            "--proxy-client-key-file", self.pki / "front-proxy.key",
            "--requestheader-client-ca-file", self.pki / "front-proxy-ca.crt",
            "--requestheader-allowed-names", "front-proxy",
            "--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group",
            "--requestheader-extra-headers-prefix", "X-Remote-Extra-",
            "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
            "--allow-privileged=true", "--profiling=false", *self.api_flags,
        ]  # fmt: skip

    def _controller_manager(self) -> list[str | Path]:
        return [
            self.bin / "kube-controller-manager", "--kubeconfig", self.kubeconfig("controller-manager"),
            "--service-account-private-key-file", self.pki / "sa.key", "--root-ca-file", self.pki / "ca.crt",
            "--cluster-signing-cert-file", self.pki / "ca.crt", "--cluster-signing-key-file", self.pki / "ca.key",
            "--use-service-account-credentials", "--leader-elect=false", "--controllers=*,-nodeipam",
            "--bind-address=127.0.0.1", "--secure-port=0", *_FAST_CLIENT, *self.controller_flags,
        ]  # fmt: skip
