"""A strict stand-in for the API server over HTTP: it refuses what the real one refuses, in its words.

It knows bearer tokens, RBAC rules, pods, events, logs, nodes and namespaces. A query parameter that it does not know
fails the request, for it would be a silent mistake against the real one.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
TOKEN = "token-of-the-test"
_LIST_PARAMETERS = {"limit", "labelSelector", "fieldSelector", "continue"}
_LOG_PARAMETERS = {"tailLines", "sinceSeconds", "limitBytes", "previous", "container"}
_SELECTOR = re.compile(r"[\w./-]+=[\w.-]*(,[\w./-]+=[\w.-]*)*")
_USER = "system:serviceaccount:tools:kubernetes-mcp"


@dataclass
class KubeApi:
    """The objects of the cluster, what may be done with them, and what was asked."""

    # None allows all; else (verb, resource, namespace), where namespace "*" is the whole cluster.
    rules: set[tuple[str, str, str]] | None = None
    pods: list[Json] = field(default_factory=list)
    nodes: list[Json] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=lambda: ["default", "kube-system"])
    events: list[Json] = field(default_factory=list)
    # (namespace, pod, container, previous) -> lines, newest last
    logs: dict[tuple[str, str, str, bool], list[str]] = field(default_factory=dict)
    # Overrides every answer: a coroutine that answers, hangs or breaks off.
    instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def kubeconfig(self, token: str = TOKEN) -> Json:
        """Return a kubeconfig that points here."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }

    @asynccontextmanager
    async def served(self) -> AsyncIterator["KubeApi"]:
        """Serve on a free loopback port, known as url."""
        app = web.Application(middlewares=[self._checked])
        app.router.add_get("/version", self._version)
        app.router.add_get("/api/v1/{resource:nodes|namespaces|pods|events}", self._list)
        app.router.add_get("/api/v1/namespaces/{namespace}/{resource:pods|events}", self._list)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}", self._get)
        app.router.add_delete("/api/v1/namespaces/{namespace}/pods/{name}", self._delete)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _checked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.instead:
            return await self.instead(request)
        if request.headers.get("authorization", "").lower() != f"bearer {TOKEN}":
            return status(401, "Unauthorized", "Unauthorized")
        return await handler(request)

    def _forbidden(self, verb: str, resource: str, namespace: str, name: str = "") -> web.Response | None:
        if self.rules is None or {(verb, resource, namespace or "*"), (verb, resource, "*")} & self.rules:
            return None
        subject = f'{resource.partition("/")[0]} "{name}"' if name else resource
        scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        said = f'{subject} is forbidden: User "{_USER}" cannot {verb} resource "{resource}" in API group "" {scope}'
        return status(403, "Forbidden", said)

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "34", "gitVersion": "v1.34.4"})

    async def _list(self, request: web.Request) -> web.Response:
        resource, namespace = request.match_info["resource"], request.match_info.get("namespace", "")
        query = _query(request, _LIST_PARAMETERS)
        if isinstance(query, web.Response):
            return query
        if refusal := self._forbidden("list", resource, namespace):
            return refusal
        if not query.get("limit", "0").isdecimal():
            return status(400, "BadRequest", f"limit: {query['limit']} is no number")
        selector, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        if selector and not _SELECTOR.fullmatch(selector):
            return status(400, "BadRequest", f"unable to parse requirement: {selector}")
        items = {
            "pods": self.pods,
            "nodes": self.nodes,
            "events": self.events,
            "namespaces": [{"metadata": {"name": name}} for name in self.namespaces],
        }[resource]
        if namespace:
            items = [item for item in items if item["metadata"]["namespace"] == namespace]
        for pair in filter(None, selector.split(",")):
            key, _, value = pair.partition("=")
            items = [item for item in items if item["metadata"].get("labels", {}).get(key) == value]
        for pair in filter(None, fields.split(",")):
            key, _, value = pair.partition("=")
            outer, _, inner = key.partition(".")
            if resource == "events" and key == "type":
                items = [item for item in items if item["type"] == value]
                continue
            if (resource, outer) != ("events", "involvedObject"):
                return status(400, "BadRequest", f"field label not supported: {key}")
            items = [item for item in items if item["involvedObject"].get(inner) == value]
        limit = int(query.get("limit", "0")) or len(items)
        metadata: Json = {"resourceVersion": "1"}
        if len(items) > limit:
            metadata["continue"] = "next"
            # As the real one: what is left is not counted where a selector narrows the list.
            if not selector and not fields:
                metadata["remainingItemCount"] = len(items) - limit
        return web.json_response({"kind": "List", "metadata": metadata, "items": items[:limit]})

    def _pod(self, request: web.Request) -> Json | web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        for pod in self.pods:
            if (pod["metadata"]["namespace"], pod["metadata"]["name"]) == (namespace, name):
                return pod
        return status(404, "NotFound", f'pods "{name}" not found')

    async def _get(self, request: web.Request) -> web.Response:
        refusal = self._forbidden("get", "pods", request.match_info["namespace"], request.match_info["name"])
        pod = refusal or self._pod(request)
        return pod if isinstance(pod, web.Response) else web.json_response(pod)

    async def _delete(self, request: web.Request) -> web.Response:
        refusal = self._forbidden("delete", "pods", request.match_info["namespace"], request.match_info["name"])
        pod = refusal or self._pod(request)
        if isinstance(pod, web.Response):
            return pod
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.pods.remove(pod)
        return web.json_response(pod)

    async def _log(self, request: web.Request) -> web.Response:
        query = _query(request, _LOG_PARAMETERS)
        if isinstance(query, web.Response):
            return query
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        pod = self._forbidden("get", "pods/log", namespace, name) or self._pod(request)
        if isinstance(pod, web.Response):
            return pod
        containers = [item["name"] for item in pod["spec"]["containers"]]
        container = query.get("container") or (containers[0] if len(containers) == 1 else "")
        if not container:
            said = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
            return status(400, "BadRequest", said)
        if container not in containers:
            return status(400, "BadRequest", f"container {container} is not valid for pod {name}")
        previous = query.get("previous") == "true"
        lines = self.logs.get((namespace, name, container, previous))
        if lines is None:
            what = (
                f'previous terminated container "{container}" in pod "{name}" not found'
                if previous
                else f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            )
            return status(400, "BadRequest", what)
        tail = int(query.get("tailLines", len(lines)))
        text = "".join(f"{line}\n" for line in lines[len(lines) - min(tail, len(lines)) :])
        return web.Response(body=text.encode()[: int(query.get("limitBytes", 2**31))], content_type="text/plain")


def _query(request: web.Request, known: set[str]) -> dict[str, str] | web.Response:
    unknown = set(request.query) - known
    return status(422, "Invalid", f"unknown parameters {sorted(unknown)}") if unknown else dict(request.query)


def status(code: int, reason: str, message: str) -> web.Response:
    """Return an error as the API server gives it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**body, "code": code}, status=code)


async def silence(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def pod(name: str, namespace: str = "default", **parts: Any) -> Json:
    """Return a running pod with one container, whose environment holds a secret that nobody may see."""
    spec: Json = {
        "nodeName": "node-1",
        "serviceAccountName": "default",
        "containers": [
            {
                "name": "main",
                "image": "registry.test/app:1",
                "env": [{"name": "PASSWORD", "value": "hunter2"}],
                "resources": {"limits": {"memory": "64Mi"}},
            }
        ],
    }
    state: Json = {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "name": "main",
                "ready": True,
                "restartCount": 2,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }
        ],
    }
    metadata: Json = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-of-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": name.partition("-")[0]},
        "ownerReferences": [{"kind": "ReplicaSet", "name": f"{name}-rs"}],
    }
    return {
        "kind": "Pod",
        "metadata": metadata | parts.get("metadata", {}),
        "spec": spec | parts.get("spec", {}),
        "status": state | parts.get("status", {}),
    }


def node(name: str, **conditions: str) -> Json:
    """Return a node; conditions such as Ready="False" replace the healthy ones."""
    healthy = {"Ready": "True", "DiskPressure": "False"} | conditions
    return {
        "metadata": {"name": name, "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {},
        "status": {
            "conditions": [
                {"type": kind, "status": value, "reason": f"{kind}Reason"} for kind, value in healthy.items()
            ],
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110", "hugepages-2Mi": "0"},
            "allocatable": {"cpu": "1900m", "memory": "3Gi", "pods": "110", "hugepages-2Mi": "0"},
            "nodeInfo": {"kubeletVersion": "v1.34.4", "osImage": "Debian", "architecture": "amd64"},
        },
    }


def event(about: str, time: str, message: str, uid: str | None = None, namespace: str = "default") -> Json:
    """Return an event about a pod."""
    return {
        "metadata": {"name": f"{about}.{time}", "namespace": namespace, "creationTimestamp": time},
        "involvedObject": {"kind": "Pod", "name": about, "uid": uid or f"uid-of-{about}"},
        "type": "Warning",
        "reason": "BackOff",
        "message": message,
        "count": 3,
        "lastTimestamp": time,
    }
