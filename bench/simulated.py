"""A cluster whose nodes and pods are simulated: a real API server, controllers and scheduler, kwok as every kubelet.

kwok says of each pod that is scheduled at once that it is Ready. No container runs, and nothing answers at a pod's
address.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from apiserver import ApiServer
from cluster import tools
from cluster.layout import Layout

_TICKS = os.sysconf("SC_CLK_TCK")
_NODES, _PODS_PER_NODE = 10, 1000
_STAGES = Path(__file__).with_name("stages.yaml")


class Cluster(ApiServer):
    """An API server by itself, or with everything that turns Deployments into Ready pods."""

    def __init__(self, *, pods: bool) -> None:
        super().__init__()
        self._with_pods = pods
        self._kwok = self._plane.process("kwok")

    def begin(self) -> Cluster:
        """Start it; return when a namespace that is made from now on gets what controllers put into it."""
        if self._with_pods:
            tools.build(Layout.default(), tools.SIMULATION)
        self.start(controllers=self._with_pods)
        if self._with_pods:
            self._start_scheduler()
            nodes = {"apiVersion": "v1", "kind": "List", "items": [_node(number) for number in range(_NODES)]}
            self.kubectl("apply", "-f", "-", input=json.dumps(nodes))
            binary = Layout.default().bin / "kwok"
            self._kwok.start(
                [binary, "--kubeconfig", self.kubeconfig, "--manage-all-nodes", "--config", _STAGES,
                 "--cidr", "10.128.0.1/16", "--node-lease-duration-seconds", "40"]
            )  # fmt: skip
            self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        return self

    def _start_scheduler(self) -> None:
        # Without a port: that of the local cluster's scheduler may be taken.
        self._plane.process("scheduler").start(
            [self._plane.bin / "kube-scheduler", "--kubeconfig", self._plane.kubeconfig("scheduler"),
             "--leader-elect=false", "--secure-port=0", "--kube-api-qps=1000", "--kube-api-burst=2000"]
        )  # fmt: skip

    def stop(self) -> None:
        """End the processes and remove the folder."""
        self._kwok.stop()
        super().stop()

    def cpu_seconds(self) -> float:
        """User and system time that the API server has used so far."""
        return cpu_seconds(self._plane.process("apiserver").pid or 0)


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int, field: str) -> float:
    """A line of proc(5), status, in MiB: VmRSS is what is resident now, VmHWM the most that ever was."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _node(number: int) -> dict[str, Any]:
    room = {"cpu": "1000", "memory": "4000Gi", "pods": str(_PODS_PER_NODE)}
    status = {"capacity": room, "allocatable": room}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"simulated-{number}"}, "status": status}
