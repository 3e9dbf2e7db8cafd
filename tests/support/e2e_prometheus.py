"""A real Prometheus on this machine that scrapes the cluster's agents, as the chart's PodMonitor makes one do it."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cluster.layout import Layout
from e2e_cluster import eventually

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
def prometheus(namespace: str) -> Iterator[Prometheus]:
    """Run it for as long as the block lasts."""
    here = Layout.default()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(json.dumps(_config(str(here.kubeconfig), namespace)))
        command: list[str | Path] = [here.bin / "prometheus", f"--config.file={config}",
                   f"--storage.tsdb.path={folder}/data",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
        with subprocess.Popen(command) as server:
            try:
                url = f"http://127.0.0.1:{port}"
                eventually(lambda: httpx.get(f"{url}/-/ready").status_code == 200, "Prometheus is ready")
                yield Prometheus(url)
            finally:
                server.terminate()


def _config(kubeconfig: str, namespace: str) -> dict[str, Any]:
    meta = "__meta_kubernetes_"
    return {
        "global": {"scrape_interval": f"{_SCRAPE_SECONDS}s"},
        "scrape_configs": [
            {
                "job_name": "agents",
                "kubernetes_sd_configs": [
                    {"role": "pod", "kubeconfig_file": kubeconfig, "namespaces": {"names": [namespace]}}
                ],
                "relabel_configs": [
                    {
                        "source_labels": [
                            f"{meta}pod_label_app_kubernetes_io_component",
                            f"{meta}pod_container_port_name",
                        ],
                        "regex": "agent;http",
                        "action": "keep",
                    },
                    {"source_labels": [f"{meta}pod_label_ropewalk_dev_agent"], "target_label": "agent"},
                    {"source_labels": [f"{meta}namespace"], "target_label": "namespace"},
                    {"source_labels": [f"{meta}pod_name"], "target_label": "pod"},
                ],
            }
        ],
    }
