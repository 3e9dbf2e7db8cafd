"""The one node: containerd, kubelet and kube-proxy on the machine itself, and how all of it is taken away again.

The settings that look odd each answer a limit of small virtual machines: no right to raise limits or lower
oom_score_adj, control groups of version 1, no IPVS, no dummy network device.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster import layout as where
from cluster.console import Failure
from cluster.controlplane import ControlPlane
from cluster.layout import Layout
from cluster.processes import Process, end, wait_until

# Routing between pods, and what the kubelet and kube-proxy set on the machine by themselves: kept, and put back.
_SYSTEM_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "vm/overcommit_memory",
)
_WANTED_SETTINGS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
_SYSTEM = Path("/proc/sys")
# The kubelet makes this one folder whatever its --root-dir.
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_CONTAINERD_STATE = where.CONTAINERD_SOCKET.parent
PAUSE_IMAGE = f"{where.IMAGE_PREFIX}/pause:local"


@dataclass(frozen=True)
class Node:
    """Start and stop the node of `layout` that belongs to `plane`."""

    layout: Layout
    plane: ControlPlane

    @property
    def state(self) -> Path:
        """The node's folder."""
        return self.layout.state

    def process(self, name: str) -> Process:
        """One of the node's processes, running or not."""
        return Process(name, self.layout.logs)

    def refuse_company(self) -> None:
        """Raise Failure where another Kubernetes, or containers of CNI, run here: `cluster-down` would hurt them."""
        if self.state.exists():
            return
        rules = "".join(_run(f"{family}-save", check=False).stdout for family in ("iptables", "ip6tables"))
        if "KUBE-" in rules or "CNI-" in rules or _DEVICE_PLUGINS.exists():
            raise Failure(
                "this machine runs another Kubernetes or containers with CNI networks already (KUBE- or CNI- rules,\n"
                "or /var/lib/kubelet), and the local cluster would get in their way. Use it: make demo CONTEXT=name"
            )

    def start_address(self) -> None:
        """Give the machine the node's address. Without a dummy device, the loopback device carries it."""
        self.state.mkdir(parents=True, exist_ok=True)
        _run("ip", "address", "replace", f"{where.NODE_ADDRESS}/32", "dev", "lo")
        self._set_up_system()

    def start_containerd(self) -> None:
        """Start containerd; return when it answers."""
        _CONTAINERD_STATE.mkdir(parents=True, exist_ok=True)
        (self.state / "cni").mkdir(exist_ok=True)
        (self.state / "cni" / "10-ropewalk.conflist").write_text(json.dumps(_cni(self.state)))
        config = self.state / "containerd.toml"
        config.write_text(_containerd(self.state))
        self.process("containerd").start(["containerd", "--config", config])
        wait_until(
            lambda: ctr("version", check=False).returncode == 0, "containerd", seconds=30,
            watched=self.process("containerd"),
        )  # fmt: skip

    def start_kubelet(self) -> None:
        """Start the kubelet and kube-proxy."""
        kubelet = self.state / "kubelet.json"
        (self.state / "resolv.conf").touch()
        _settle(kubelet, _kubelet(self.state, self.plane.pki))
        self.process("kubelet").start(
            [self.layout.bin / "kubelet", "--config", kubelet, "--kubeconfig", self.plane.kubeconfig("kubelet"),
             "--hostname-override", where.NODE_NAME, "--node-ip", where.NODE_ADDRESS,
             "--root-dir", self.state / "kubelet"]
        )  # fmt: skip
        proxy = self.state / "kube-proxy.json"
        _settle(proxy, _kube_proxy(self.plane.kubeconfig("proxy")))
        self.process("kube-proxy").start([self.layout.bin / "kube-proxy", "--config", proxy])

    def stop(self) -> None:
        """End every container and process of the node and take away what they left on the machine."""
        self.process("kubelet").stop()
        self.process("kube-proxy").stop()
        _end_containers()
        self.process("containerd").stop()
        _end_shims()
        _unmount_below(self.state, where.RUNTIME_DIR)
        self._clean_network()
        _remove_control_groups()
        self._clean_files()
        self._put_system_back()

    def _clean_files(self) -> None:
        shutil.rmtree(where.RUNTIME_DIR, ignore_errors=True)
        for link in Path("/var/log/containers").glob("*.log"):
            if link.readlink().is_relative_to(self.state):
                link.unlink()
        shutil.rmtree(_DEVICE_PLUGINS, ignore_errors=True)
        for folder in (Path("/var/log/containers"), _DEVICE_PLUGINS.parent, Path("/var/lib/cni/results")):
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

    def _set_up_system(self) -> None:
        if not (_SYSTEM / "net/bridge").exists():
            # Pods share one bridge: without this module answers of Services would pass by the rules that rewrote them.
            _run("modprobe", "br_netfilter", check=False)
        before = self.state / "system-settings.json"
        if not before.exists():
            kept = {name: (_SYSTEM / name).read_text() for name in _SYSTEM_SETTINGS if (_SYSTEM / name).exists()}
            before.write_text(json.dumps(kept))
        for name in _WANTED_SETTINGS:
            try:
                (_SYSTEM / name).write_text("1")
            except OSError as error:
                what = f"{name.replace('/', '.')} cannot be set to 1 ({error.strerror}), and pods need it"
                raise Failure(f"{what}; where it is missing, load the kernel module br_netfilter") from None

    def _put_system_back(self) -> None:
        before = self.state / "system-settings.json"
        kept = json.loads(before.read_text()) if before.exists() else {}
        for name, value in kept.items():
            (_SYSTEM / name).write_text(value)

    def _clean_network(self) -> None:
        if (self.layout.bin / "kube-proxy").exists():
            _run(self.layout.bin / "kube-proxy", "--cleanup", "--config", self.state / "kube-proxy.json", check=False)
        for family in ("iptables", "ip6tables"):
            _remove_rules(family)
        for namespace in Path("/var/run/netns").glob("cni-*"):
            _run("ip", "netns", "delete", namespace.name, check=False)
        _run("ip", "link", "delete", where.BRIDGE, check=False)
        _run("ip", "address", "delete", f"{where.NODE_ADDRESS}/32", "dev", "lo", check=False)
        for result in Path("/var/lib/cni/results").glob(f"{where.CNI_NETWORK}-*"):
            result.unlink()


def ctr(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Ask the cluster's containerd, in the namespace that Kubernetes uses."""
    return _run("ctr", "--address", where.CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments, check=check)


def _run(*command: str | Path, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, check=check, capture_output=True, text=True, input=text)


def _settle(file: Path, content: dict[str, object]) -> None:
    """Write a configuration, unless it is there already: kube-proxy ends when its file is touched."""
    text = json.dumps(content)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def _cni(state: Path) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": where.CNI_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": where.BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(state / "cni-addresses"),
                    "ranges": [[{"subnet": where.POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd(state: Path) -> str:
    return f"""version = 2
root = "{state}/containerd"
state = "{_CONTAINERD_STATE}"
oom_score = 0

[grpc]
  address = "{where.CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(state: Path, pki: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{where.CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "featureGates": {"KubeletInUserNamespace": True},
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "100Mi"},
        # Images come from this machine alone; one that is collected as garbage could not be had again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "clusterDNS": [where.DNS_SERVICE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(state / "resolv.conf"),
        "podLogsDir": str(state / "pod-logs"),
        "maxPods": 250,
        "serializeImagePulls": False,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    }


def _kube_proxy(kubeconfig: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": where.NODE_NAME,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": where.POD_CIDR,
        "iptables": {"minSyncPeriod": "100ms", "localhostNodePorts": False},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }


def _end_containers() -> None:
    # Killing containerd would leave the containers running, so they end first.
    tasks = ctr("tasks", "ls", "--quiet", check=False).stdout.split()
    for task in tasks:
        ctr("tasks", "kill", "--all", "--signal", "SIGKILL", task, check=False)
    for task in tasks:
        ctr("tasks", "delete", "--force", task, check=False)


def _end_shims() -> None:
    marker = str(where.CONTAINERD_SOCKET)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "containerd-shim" in words[0] and marker in words:
            end(int(process.name))


def _unmount_below(*folders: Path) -> None:
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted(mounted, reverse=True):
        if any(Path(point).is_relative_to(folder) for folder in folders):
            _run("umount", "--lazy", point, check=False)


def _remove_rules(family: str) -> None:
    """Drop the chains of CNI's own making; `kube-proxy --cleanup` has dropped the KUBE-* ones."""
    saved = _run(f"{family}-save", check=False).stdout.splitlines()
    kept = [line for line in saved if "CNI-" not in line and "KUBE-" not in line]
    if kept != saved:
        _run(f"{family}-restore", text="\n".join(kept) + "\n")


def _remove_control_groups() -> None:
    for group in (*Path("/sys/fs/cgroup").glob("*/kubepods"), Path("/sys/fs/cgroup/kubepods")):
        folders = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
        for folder in (*folders, group):
            # A group that still holds a process is somebody else's.
            with suppress(OSError):
                folder.rmdir()
