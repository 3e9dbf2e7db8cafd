"""A real Prometheus on this machine with the chart's own PodMonitors, rules and prices."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from chart_helm import of_kind, render
from cluster.layout import Layout
from observe import discovery
from observe.prometheus import Prometheus
from observe.scrape import Json, configuration
from waiting import until

PRICES = {"ropewalk-demo": {"input": 0.25, "output": 1.25}}
_VALUES = {"podMonitor": {"enabled": True}, "alerts": {"enabled": True}, "prices": PRICES}


@contextmanager
def chart_prometheus(pods: Callable[[], list[Json]], port: int) -> Iterator[Prometheus]:
    """Scrape, each second, those of `pods` that the PodMonitors choose, for as long as the block lasts."""
    told = discovery.server(0, pods)
    threading.Thread(target=told.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = render("--set-json", f"monitoring={json.dumps(_VALUES)}")
        for each in of_kind(objects, "PrometheusRule"):
            (folder / f"{each['metadata']['name']}.rules.yml").write_text(yaml.safe_dump(each["spec"]))
        config = configuration(
            of_kind(objects, "PodMonitor"), pods_url=f"http://127.0.0.1:{told.server_port}{discovery.PATH}",
            alertmanager="127.0.0.1:9", rules=[f"{folder}/*.rules.yml"],
        )  # fmt: skip
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            job["http_sd_configs"][0]["refresh_interval"] = "1s"
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [Layout.default().bin / "prometheus", f"--config.file={folder}/prometheus.yml",
                   f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
                   "--enable-feature=exemplar-storage", "--log.level=warn"]  # fmt: skip
        with subprocess.Popen(command) as server:
            try:
                until(lambda: httpx.get(f"{url}/-/ready").status_code == 200, "Prometheus is ready")
                yield Prometheus(url, 15)
            finally:
                server.terminate()
                told.shutdown()
                told.server_close()
