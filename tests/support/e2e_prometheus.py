"""A real Prometheus on this machine that scrapes the cluster's agents, with the labels of the chart's PodMonitor."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cluster.layout import Layout
from e2e_cluster import Workspace
from ports import free_port
from waiting import until

_SCRAPE_SECONDS = 1


class Prometheus:
    """Ask it by PromQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an instant query returns: [{"metric": labels, "value": [time, text]}]."""
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return list(answer["data"]["result"])

    def value(self, expression: str) -> float:
        """The one number that an expression is; 0.0 where there is nothing yet."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0


@contextmanager
def prometheus(space: Workspace) -> Iterator[Prometheus]:
    """Scrape the agents that run in a namespace now, for as long as the block lasts."""
    here = Layout.default()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(json.dumps(_config(space)))
        command: list[str | Path] = [here.bin / "prometheus", f"--config.file={config}",
                   f"--storage.tsdb.path={folder}/data",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
        with subprocess.Popen(command) as server:
            try:
                url = f"http://127.0.0.1:{port}"
                until(lambda: httpx.get(f"{url}/-/ready").status_code == 200, "Prometheus is ready")
                yield Prometheus(url)
            finally:
                server.terminate()


def _config(space: Workspace) -> dict[str, Any]:
    """What the chart's PodMonitor makes of the agents' pods, with fixed targets: Debian's Prometheus is built without
    the discovery of Kubernetes pods.
    """
    pods = space.pods("app.kubernetes.io/component=agent")
    targets = [
        {
            "targets": [f"{pod['status']['podIP']}:8080"],
            "labels": {
                "agent": pod["metadata"]["labels"]["ropewalk.dev/agent"],
                "namespace": space.name,
                "pod": pod["metadata"]["name"],
            },
        }
        for pod in pods
    ]
    job = {"job_name": "agents", "static_configs": targets}
    return {"global": {"scrape_interval": f"{_SCRAPE_SECONDS}s"}, "scrape_configs": [job]}
