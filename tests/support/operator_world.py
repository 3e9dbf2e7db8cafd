"""Building bricks for the operator's unit tests: resource bodies, and a strict writer that plays the API server.

The writer refuses what the API server refuses: a second controller, a delete of another uid, a status of something that
does not exist. It records every write, so that a test can list all it wants and no more.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from ropewalk_operator.apply import EVENT_LIMIT_SECONDS
from ropewalk_operator.cache import Cache
from ropewalk_operator.kinds import BY_NAME, Key, Kind
from ropewalk_operator.kube import ApiError
from ropewalk_operator.names import FIELD_MANAGER, MANAGED_BY

Body = dict[str, Any]

MODEL = {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"}
WEBHOOK_AWAY = (
    'Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: connection refused'
)
"""What the API server says where an admission webhook does not answer."""


def agent(name: str = "calc", **spec: Any) -> Body:
    """An Agent as a user applies it, with a generation and uid as the API server gives them."""
    if "systemPromptFrom" not in spec:
        spec.setdefault("systemPrompt", "You are a calculator.")
    if "modelRef" not in spec:
        spec.setdefault("model", MODEL)
    return owner("Agent", name, spec)


def model(name: str = "house", **spec: Any) -> Body:
    """A Model."""
    return owner("Model", name, {**MODEL, **spec})


def mcp_server(name: str = "math", *, ready: bool | None = None, **spec: Any) -> Body:
    """An MCPServer; `ready` adds a status that says so."""
    if "remote" not in spec and "stdio" not in spec:
        spec.setdefault("image", "ropewalk.dev/mcp-math:0.1.0")
    body = owner("MCPServer", name, spec)
    if ready is not None:
        text = str(ready)
        body["status"] = {
            "conditions": [{"type": "Ready", "status": text, "message": "2 tools" if ready else "no pods"}]
        }
    return body


def owner(kind: str, name: str, spec: Body) -> Body:
    """An Agent, MCPServer or Model in namespace default."""
    metadata = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "ropewalk.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def pod(
    owner_name: str = "calc",
    *,
    kind: str = "Agent",
    config_hash: str = "new",
    name: str | None = None,
    ready: bool = False,
    state: Body | None = None,
    last: Body | None = None,
    restarts: int = 0,
    scheduled: bool = True,
    conditions: list[Body] | None = None,
    version: int = 1,
) -> Body:
    """A pod of an Agent or MCPServer."""
    label = {"Agent": "ropewalk.dev/agent", "MCPServer": "ropewalk.dev/mcpserver"}[kind]
    shown = name or f"{owner_name}-{config_hash}"
    container = {
        "name": "agent" if kind == "Agent" else "mcpserver",
        "ready": ready,
        "restartCount": restarts,
        "state": {"running": {}} if ready else state or {},
        **({"lastState": {"terminated": last}} if last else {}),
    }
    return {
        "kind": "Pod",
        "metadata": {
            "name": shown,
            "namespace": "default",
            "uid": f"uid-of-{shown}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {label: owner_name, MANAGED_BY: FIELD_MANAGER},
            "annotations": {"ropewalk.dev/config-hash": config_hash},
        },
        "spec": {"containers": [{"name": container["name"], "image": "ropewalk.dev/agent:0.1.0"}]},
        "status": {
            "phase": "Running" if ready else "Pending",
            "podIP": "10.0.0.9",
            "conditions": [
                {"type": "PodScheduled", "status": "True" if scheduled else "False"},
                {"type": "Ready", "status": "True" if ready else "False"},
                *(conditions or []),
            ],
            "containerStatuses": [container],
        },
    }


def owns_replicas(manager: str, operation: str = "Apply") -> Body:
    """An entry of managedFields."""
    return {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {"f:replicas": {}}}}


class Nobody:
    """Listens to what becomes of watches, and does nothing."""

    def begin_listing(self, kind: Kind, place: str) -> None:
        """A listing has begun."""

    def begin_watch(self, kind: Kind, place: str, version: str) -> None:
        """A watch has begun."""


class FakeApiServer:
    """Objects by key; every write is recorded in `writes` as `VERB Kind name`."""

    def __init__(self) -> None:
        self.objects: dict[Key, Body] = {}
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.events: list[Body] = []
        self.refuse: dict[str, ApiError] = {}
        """By kind: what to answer to an apply instead of doing it."""
        self.keep_additions = False
        """As server-side apply does where another manager owns them; simplified: the whole live spec is kept."""
        self.before_status: Callable[[], object] = lambda: None
        """What somebody else does just before a status is written."""
        self._versions = itertools.count(100)

    def put(self, body: Body) -> Body:
        """Place an object as if somebody else had written it."""
        stored = copy.deepcopy(body)
        metadata = stored["metadata"]
        metadata["resourceVersion"] = str(next(self._versions))
        metadata.setdefault("uid", f"uid-of-{stored['kind']}-{metadata['name']}")
        self.objects[self._key(stored)] = stored
        return copy.deepcopy(stored)

    def fill(self, cache: Cache) -> None:
        """Show all objects to the cache, as the watches would."""
        for key, body in self.objects.items():
            cache.see(key.kind, copy.deepcopy(body))

    async def get(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> Body | None:
        self.reads.append(f"GET {kind.name} {name}")
        found = self.objects.get(Key(kind.name, namespace, name))
        if found is None:
            return None
        if metadata_only:
            return {"kind": "PartialObjectMetadata", "metadata": copy.deepcopy(found["metadata"])}
        return copy.deepcopy(found)

    async def list_all(
        self,
        kind: Kind,
        namespace: str | None,
        query: str = "",
        *,
        metadata_only: bool = False,
        keep: Callable[[Body], Any] = lambda item: item,
    ) -> tuple[list[Any], int]:
        self.reads.append(f"LIST {kind.name} {query}")
        if kind.name == "Event":
            return [keep(event) for event in copy.deepcopy(self.events)], 0
        found = [copy.deepcopy(body) for key, body in self.objects.items() if key.kind == kind.name]
        if metadata_only:
            found = [{"kind": "PartialObjectMetadata", "metadata": body["metadata"]} for body in found]
        elif kind.name == "ConfigMap":
            found = [body for body in found if body["metadata"].get("labels", {}).get(MANAGED_BY) == FIELD_MANAGER]
        return [keep(body) for body in found], next(self._versions)

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        manifest: Mapping[str, Any],
        *,
        only_if_new: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Body:
        if only_if_new and Key(kind.name, namespace, name) in self.objects:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.writes.append(f"APPLY {kind.name} {name}")
        assert manifest["metadata"]["name"] == name, "the address and the manifest name two objects"
        assert manifest["metadata"]["namespace"] == namespace, "the address and the manifest name two namespaces"
        assert manifest["kind"] == kind.name, "the address and the manifest are of two kinds"
        assert "managedFields" not in manifest["metadata"], "managedFields must be nil"
        assert "status" not in manifest, "a status is not applied with the object"
        if kind.name in self.refuse:
            raise self.refuse[kind.name]
        key = Key(kind.name, namespace, name)
        live = self.objects.get(key)
        if live is not None:
            before = {ref["uid"] for ref in live["metadata"].get("ownerReferences", ()) if ref.get("controller")}
            after = {ref["uid"] for ref in manifest["metadata"].get("ownerReferences", ()) if ref.get("controller")}
            assert len(before | after) <= 1, "only one reference can have controller set to true"
        if manager != FIELD_MANAGER:
            assert live is not None, "only the operator itself creates objects"
            return self._hold_replicas(live, manifest, manager)
        stored = copy.deepcopy(dict(manifest))
        if kind.name == "Deployment":
            self._own_replicas(live, stored)
        metadata = stored["metadata"]
        metadata["uid"] = live["metadata"]["uid"] if live else f"uid-{next(self._versions)}"
        metadata["generation"] = (live["metadata"].get("generation", 1) + 1) if live else 1
        metadata["resourceVersion"] = str(next(self._versions))
        if live is not None and "status" in live:
            stored["status"] = live["status"]
        if live is not None and self.keep_additions:
            stored["spec"] = copy.deepcopy(live["spec"])
        self.objects[key] = stored
        return copy.deepcopy(stored)

    def _hold_replicas(self, live: Body, manifest: Mapping[str, Any], manager: str) -> Body:
        """Another manager applies the replicas alone, at the version that it has seen, and owns them then too."""
        assert set(manifest["spec"]) == {"replicas"}, "it would own the rest as well"
        if manifest["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        if live["spec"]["replicas"] != manifest["spec"]["replicas"]:
            live["metadata"]["managedFields"] = []
        live["spec"]["replicas"] = manifest["spec"]["replicas"]
        live["metadata"]["managedFields"].append(owns_replicas(manager))
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(live)

    def _own_replicas(self, live: Body | None, stored: Body) -> None:
        """What server-side apply makes of replicas: ours where we name them, the default where nobody owns them."""
        before = live["metadata"].get("managedFields", []) if live else []
        others = [entry for entry in before if entry["manager"] != FIELD_MANAGER]
        if "replicas" in stored["spec"]:
            is_same = live is not None and live["spec"].get("replicas") == stored["spec"]["replicas"]
            managers = [owns_replicas(FIELD_MANAGER), *(others if is_same else [])]
        else:
            managers = others
            stored["spec"]["replicas"] = live["spec"]["replicas"] if live and others else 1
        stored["metadata"]["managedFields"] = managers

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Body:
        self.writes.append(f"MERGE {kind.name} {name}")
        live = self.objects[Key(kind.name, namespace, name)]
        assert patch["metadata"] == {"uid": live["metadata"]["uid"]}, "another object would be patched"
        live["spec"] = _merged(live["spec"], copy.deepcopy(patch["spec"]))
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        self.refuse.pop(kind.name, None)
        return copy.deepcopy(live)

    async def merge_status(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Body:
        self.writes.append(f"STATUS {kind.name} {name}")
        self.before_status()
        live = self.objects.get(Key(kind.name, namespace, name))
        if live is None:
            raise ApiError(404, "NotFound", f"{kind.plural} {name} not found")
        if patch["metadata"]["uid"] != live["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "the uid differs")
        assert set(patch) == {"metadata", "status"}, "only the status is written"
        status = {**live.get("status", {}), **copy.deepcopy(patch["status"])}
        live["status"] = {field: value for field, value in status.items() if value is not None}
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(live)

    async def create(
        self, kind: Kind, namespace: str, manifest: Mapping[str, Any], *, within_seconds: float | None = None
    ) -> Body:
        assert kind.name == "Event", "everything else is applied"
        assert within_seconds == EVENT_LIMIT_SECONDS, "no worker waits for an Event as long as for other writes"
        self.writes.append(f"EVENT {manifest['type']} {manifest['reason']}")
        return dict(manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        self.writes.append(f"DELETE {kind.name} {name}")
        key = Key(kind.name, namespace, name)
        assert self.objects[key]["metadata"]["uid"] == uid, "another object of that name would be deleted"
        del self.objects[key]

    @staticmethod
    def _key(body: Body) -> Key:
        assert body["kind"] in BY_NAME, f"unknown kind {body['kind']}"
        return Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result
