"""Tells Prometheus the pods of the cluster, over HTTP: Debian builds it without the discovery of Kubernetes objects.

Asks the API server only when it is asked, and keeps nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cluster.console import Failure
from observe.scrape import Json, targets

PATH = "/pods"


def serve(port: int, pods: Callable[[], list[Json]]) -> None:
    """Answer until the process ends. `pods` may raise Failure: then Prometheus keeps the pods that it knows."""
    server(port, pods).serve_forever()


def server(port: int, pods: Callable[[], list[Json]]) -> ThreadingHTTPServer:
    """The server, which listens on the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, body = HTTPStatus.OK, json.dumps(targets(pods()))
            except Failure as failure:
                status, body = HTTPStatus.BAD_GATEWAY, json.dumps({"error": str(failure)})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is that of the base class
            """Say nothing of a request every few seconds."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
