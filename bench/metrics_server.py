"""A real metrics-server in the local cluster, built from pinned sources, for as long as something is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from cluster import images, tools
from cluster.layout import Layout
from e2e_cluster import Workspace, kubectl
from waiting import until

_SERVER = Path(__file__).with_name("metrics-server.yaml")
_API = Path(__file__).with_name("metrics-api.yaml")


@contextmanager
def metrics_server() -> Iterator[None]:
    """Run it until the end of the block; the block begins when it has measured the node.

    Raises AssertionError where the API server does not reach it: one that was started by an older checkout lacks the
    certificate by which it is known.
    """
    here = Layout.default()
    tools.build(here, tools.METRICS)
    images.load_metrics_server(here)
    system = Workspace("kube-system")
    try:
        system.kubectl("apply", "--server-side", "-f", str(_SERVER))
        system.kubectl("rollout", "status", "deployment/metrics-server", "--timeout=120s")
        # Not before: the API server would keep a connection to whoever answers at an address that leads nowhere yet.
        url = f"https://{system.get('service/metrics-server')['spec']['clusterIP']}/readyz"
        until(lambda: httpx.get(url, verify=False, timeout=5).text == "ok", "its Service leads to it")
        system.kubectl("apply", "--server-side", "-f", str(_API))
        until(
            lambda: "cpu" in kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"), "it has measured the node"
        )
        yield
    finally:
        # The API first: while nobody serves it, no namespace can be deleted.
        kubectl("delete", "-f", str(_API), "--ignore-not-found")
        kubectl("delete", "-f", str(_SERVER), "--ignore-not-found")
