"""An empty API server that fails on command: discovery, empty listings, a Lease, and watches that stay open.

For the operator's process tests: a real API server does not fail at the wished moment.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from json_handler import JsonHandler

GROUPS = {
    "/api/v1": {
        "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount", "services": "Service", "pods": "Pod",
        "events": "Event", "namespaces": "Namespace", "persistentvolumeclaims": "PersistentVolumeClaim",
    },
    "/apis/apps/v1": {"deployments": "Deployment"},
    "/apis/networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "/apis/autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "/apis/policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "/apis/ropewalk.dev/v1alpha1": {"agents": "Agent", "mcpservers": "MCPServer", "models": "Model"},
}  # fmt: skip
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
VERBS = ["get", "list", "watch", "patch", "create", "delete"]


class FailingApi:
    """`refuse_watches` refuses the next watches of pods; `fail_now` ends the open one with an error."""

    def __init__(self) -> None:
        self.refuse_watches = False
        self.hang_listings = False
        self.is_starting = False
        """Answers 503 to everything."""
        self.breaks = "pods"
        """Of which kind listings may break."""
        self.broken_listings: set[int] = set()
        """Which ones of them are answered 500, the first being 1."""
        self.listings = 0
        self.without_crds: tuple[str, ...] = ()
        """Plural names of the kinds that it does not know."""
        self.forbidden = ""
        """Plural name of the kind whose listings are answered 403."""
        self.agents: list[dict[str, Any]] = []
        """What a listing of Agents holds; no watch ever tells of them."""
        self.applied: list[str] = []
        """Every apply and patch that has come. Nothing of it is kept."""
        self.lease: dict[str, Any] = {}
        self.fail_now = threading.Event()
        self.listing = threading.Event()
        """Set once a listing of pods hangs."""
        self.closing = threading.Event()

    def discovery(self, path: str) -> dict[str, Any] | None:
        """What is served, or None where it is not."""
        known = {
            group: {plural: kind for plural, kind in kinds.items() if plural not in self.without_crds}
            for group, kinds in GROUPS.items()
        }
        groups = {group: kinds for group, kinds in known.items() if kinds}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            pairs = [key.split("/")[2:] for key in groups if key.startswith("/apis/")]
            versions = {group: {"groupVersion": f"{group}/{version}", "version": version} for group, version in pairs}
            listed = [{"name": name, "versions": [one], "preferredVersion": one} for name, one in versions.items()]
            return {"kind": "APIGroupList", "groups": listed}
        if path in groups:
            resources = [
                {
                    "name": plural,
                    "kind": kind,
                    "namespaced": True,
                    "singularName": "",
                    "verbs": VERBS,
                    "shortNames": [],
                    "categories": [],
                }
                for plural, kind in groups[path].items()
            ]
            return {"kind": "APIResourceList", "resources": resources}
        return None


@contextmanager
def failing_api(folder: Path) -> Iterator[tuple[FailingApi, Path]]:
    """The server and a kubeconfig that leads to it."""
    api = FailingApi()

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path.startswith(LEASES):
                self.answer(*((200, api.lease) if api.lease else (404, {"kind": "Status", "code": 404})))
                return
            is_pods = parts.path.endswith("/pods")
            if api.is_starting:
                self.answer(503, {"kind": "Status", "code": 503, "message": "starting"})
            elif (known := api.discovery(parts.path)) is not None:
                self.answer(200, known)
            elif not any(parts.path.startswith(f"{group}/") for group in GROUPS) or parts.path.count("/") < 3:
                self.answer(404, {"kind": "Status", "code": 404, "message": "not served"})
            elif "watch" in parse_qs(parts.query):
                self._watch(is_pods=is_pods)
            elif api.forbidden and parts.path.endswith(f"/{api.forbidden}"):
                self.answer(403, {"kind": "Status", "code": 403, "message": f"{api.forbidden} are not for you"})
            else:
                is_counted = parts.path.endswith(f"/{api.breaks}")
                api.listings += is_counted
                if is_pods and api.hang_listings:
                    api.listing.set()
                    api.closing.wait()
                if is_counted and api.listings in api.broken_listings:
                    self.answer(500, {"kind": "Status", "code": 500, "message": "no listing now"})
                    return
                items = api.agents if parts.path.endswith("/agents") else []
                self.answer(200, {"kind": "List", "metadata": {"resourceVersion": "5"}, "items": items})

        def do_POST(self) -> None:
            self._take_lease(201)

        def do_PUT(self) -> None:
            self._take_lease(200)

        def do_PATCH(self) -> None:
            said = self.rfile.read(int(self.headers["Content-Length"])).decode()
            api.applied.append(said)
            body = json.loads(said)
            self.answer(200, {**body, "metadata": {**body["metadata"], "uid": "1", "resourceVersion": "9"}})

        def _take_lease(self, code: int) -> None:
            body = self.taken()
            if not urlsplit(self.path).path.startswith(LEASES):
                self.answer(500, {"kind": "Status", "code": 500, "message": "nothing but the Lease is written here"})
                return
            version = int(api.lease["metadata"]["resourceVersion"]) + 1 if api.lease else 1
            api.lease = {**body, "metadata": {**body["metadata"], "uid": "1", "resourceVersion": str(version)}}
            self.answer(code, api.lease)

        def _watch(self, *, is_pods: bool) -> None:
            if is_pods and api.refuse_watches:
                self.answer(406, {"kind": "Status", "code": 406, "message": "no watches today"})
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.flush()
            (api.fail_now if is_pods else api.closing).wait()
            if is_pods:
                error = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "no more today"}}
                self.wfile.write(json.dumps(error).encode() + b"\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = folder / "kubeconfig"
    address = f"http://127.0.0.1:{server.server_port}"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "a",
                "clusters": [{"name": "a", "cluster": {"server": address}}],
                "users": [{"name": "a", "user": {"token": "x"}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            }
        )
    )  # fmt: skip
    try:
        yield api, kubeconfig
    finally:
        api.closing.set()
        api.fail_now.set()
        server.shutdown()
        server.server_close()
