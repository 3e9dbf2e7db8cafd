"""A server of pods' metrics, as prometheus-adapter is one, registered at a real API server: autoscalers ask it.

Every pod has the same value of every metric.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from apiserver import ApiServer
from json_handler import JsonHandler
from private_ca import PrivateCa
from waiting import until

GROUP, VERSION = "custom.metrics.k8s.io", "v1beta2"
ROOT = f"/apis/{GROUP}/{VERSION}"


class PodMetrics:
    """What it answers, and the metrics that it was asked for, as namespace/name."""

    def __init__(self, server: ApiServer) -> None:
        self.value = 0
        self.asked: set[str] = set()
        self._server = server

    def answer(self, path: str) -> dict[str, Any] | None:
        """The body for a path, or None where there is nothing."""
        if path == ROOT:
            metric = {"name": "pods/any", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
            return {"kind": "APIResourceList", "groupVersion": f"{GROUP}/{VERSION}", "resources": [metric]}
        parts = path.removeprefix(f"{ROOT}/namespaces/").split("/")
        if len(parts) != 4 or parts[1:3] != ["pods", "*"]:
            return None
        namespace, _, _, metric_name = parts
        self.asked.add(f"{namespace}/{metric_name}")
        pods = self._server.kubectl("-n", namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}").split()
        values = [
            {
                "describedObject": {"kind": "Pod", "namespace": namespace, "name": pod, "apiVersion": "/v1"},
                "metric": {"name": metric_name}, "timestamp": "2026-01-01T00:00:00Z", "value": str(self.value),
            }
            for pod in pods
        ]  # fmt: skip
        return {"kind": "MetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": values}


@contextmanager
def serving_pod_metrics(server: ApiServer, folder: Path) -> Iterator[PodMetrics]:
    """The server, until the end of the block; the API server asks it in the name of whoever asks there."""
    metrics = PodMetrics(server)

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            body = metrics.answer(unquote(urlsplit(self.path).path))
            self.answer(200 if body else 404, body or {"kind": "Status", "code": 404})

    files = PrivateCa().server(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        _register(server, listening.server_port)
        yield metrics
    finally:
        server.kubectl("delete", "apiservice", f"{VERSION}.{GROUP}", "--ignore-not-found")
        listening.shutdown()
        listening.server_close()


def _register(server: ApiServer, port: int) -> None:
    # A Service of this type leads to a name: the only way from an API server to a program beside it.
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "pod-metrics", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    api_service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{VERSION}.{GROUP}"},
        "spec": {
            "group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "pod-metrics", "namespace": "default", "port": port},
        },
    }  # fmt: skip
    for body in (service, api_service):
        server.kubectl("apply", "-f", "-", input=json.dumps(body))
    until(lambda: "APIResourceList" in server.kubectl("get", "--raw", ROOT), "the API server asks it")
