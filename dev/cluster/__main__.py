"""`python -m cluster`: the local cluster's command line, which make calls."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster import images, machine, tools
from cluster import layout as where
from cluster.console import Failure, fail, say, step
from cluster.controlplane import ControlPlane
from cluster.layout import Layout
from cluster.node import Node
from cluster.processes import stop_all, wait_until

_COREDNS = Path(__file__).with_name("coredns.yaml")


def main() -> int:
    """Run one command; 0, or 1 with a message that says what to do."""
    parser = argparse.ArgumentParser(prog="cluster", description="A one-machine Kubernetes for the demo and the tests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("machine", help="install what building needs (Debian packages)")
    commands.add_parser("tools", help="build what the tests need into the cache: kubectl, helm, Prometheus …")
    commands.add_parser("chart-tools", help="build what `make test-chart` needs: Helm 4, kubeconform, kube-score")
    commands.add_parser("up", help="bring the cluster up, or finish bringing it up")
    commands.add_parser("down", help="end the cluster and remove everything of it but the cache")
    commands.add_parser("status", help="exit 0 when the cluster runs, 3 when not")
    load = commands.add_parser("images", help="build the images and load them into the cluster")
    load.add_argument("--context", default="", help="a context of your kubeconfig instead of the local cluster")
    load.add_argument("--registry", default=where.IMAGE_PREFIX, help="where the nodes of that context pull from")
    commands.add_parser("kubeconfig", help="print the path of the local cluster's kubeconfig")
    arguments = parser.parse_args()
    # Debian keeps iptables, ip and runc where an ordinary PATH does not look.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    here = Layout.default()
    try:
        match arguments.command:
            case "machine":
                machine.install(machine.BUILD_PACKAGES)
            case "tools":
                machine.install(machine.BUILD_PACKAGES)
                tools.build(here)
                tools.unpack(here, "prometheus")
            case "chart-tools":
                machine.install(machine.BUILD_PACKAGES)
                tools.build(here, tools.CHART_TOOLS)
                tools.unpack_openapi(here)
            case "up":
                up(here)
            case "down":
                down(here)
            case "images" if arguments.context:
                images.push(arguments.registry, arguments.context)
            case "images":
                images.load_local(here)
            case "kubeconfig":
                say(str(here.kubeconfig))
            case "status":
                return 0 if running(here) else 3
    except Failure as failure:
        return fail(failure)
    except subprocess.CalledProcessError as error:
        return fail(Failure(f"{' '.join(map(str, error.cmd))} failed:\n{error.stderr}"))
    return 0


def up(here: Layout) -> None:
    """From a bare machine to a Ready node with DNS. What is there already is left as it is."""
    machine.require_root()
    if running(here):
        say(f"The local cluster runs already: export KUBECONFIG={here.kubeconfig}")
        return
    machine.install(machine.BUILD_PACKAGES | machine.NODE_PACKAGES)
    tools.build(here)
    plane = ControlPlane(here.bin, here.state)
    node = Node(here, plane)
    node.refuse_company()
    with step("Starting the control plane", expected="10 seconds"):
        node.start_address()
        plane.start_api()
        plane.start_controllers()
        plane.start_scheduler()
        shutil.copy(plane.kubeconfig("admin"), here.kubeconfig)
    with step("Starting containerd"):
        node.start_containerd()
    images.load_system_images(here)
    with step("Starting the kubelet and kube-proxy; waiting for node and DNS", expected="20 seconds"):
        node.start_kubelet()
        wait_until(lambda: bool(_kubectl(here, "get", "node", where.NODE_NAME, check=False)), "the node", seconds=60,
                   watched=node.process("kubelet"))  # fmt: skip
        _kubectl(here, "wait", "--for=condition=Ready", f"node/{where.NODE_NAME}", "--timeout=120s")
        _kubectl(here, "apply", "--server-side", "--filename", "-", text=_COREDNS.read_text())
        _kubectl(here, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
    say(f"The local cluster is up: export KUBECONFIG={here.kubeconfig}")


def down(here: Layout) -> None:
    """End the cluster's processes and containers; undo its network; remove its folder."""
    machine.require_root()
    if not here.state.exists():
        say("There is no local cluster.")
        return
    plane = ControlPlane(here.bin, here.state)
    with step("Ending the local cluster", expected="10 seconds"):
        stop_all(here.observe)
        Node(here, plane).stop()
        plane.stop()
        shutil.rmtree(here.state)
    say(f"Nothing of it is left but the cache, {here.cache}: delete that folder if you want its space.")


def running(here: Layout) -> bool:
    """Whether every process runs, the node says Ready and DNS answers; less than that is finished by `up`."""
    plane = ControlPlane(here.bin, here.state)
    node = Node(here, plane)
    names = ("containerd", "kubelet", "kube-proxy", "etcd", "apiserver", "controller-manager", "scheduler")
    if any(node.process(name).pid is None for name in names):
        return False
    node_ready = '{.status.conditions[?(@.type=="Ready")].status}'
    dns_ready = "{.status.readyReplicas}"
    dns = ("-n", "kube-system", "get", "deployment/coredns")
    return (
        _kubectl(here, "get", "node", where.NODE_NAME, "-o", f"jsonpath={node_ready}", check=False) == "True"
        and _kubectl(here, *dns, "-o", f"jsonpath={dns_ready}", check=False) != ""
    )


def _kubectl(here: Layout, *arguments: str, text: str | None = None, check: bool = True) -> str:
    command: list[str | Path] = [here.bin / "kubectl", "--kubeconfig", here.kubeconfig, *arguments]
    return subprocess.run(command, check=check, capture_output=True, text=True, input=text).stdout


if __name__ == "__main__":
    sys.exit(main())
