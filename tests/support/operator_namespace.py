"""A namespace of a real API server, as a user and a kubelet use it in tests of the operator."""

from __future__ import annotations

import json
import re
from typing import Any

from apiserver import ApiServer
from waiting import until

MODEL = {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"}
KINDS = "configmap,serviceaccount,service,persistentvolumeclaim,deployment,networkpolicy"
MANAGED = "app.kubernetes.io/managed-by=ropewalk-operator"


class Namespace:
    """One test's namespace, and what a user does in it."""

    def __init__(self, server: ApiServer, name: str) -> None:
        """The namespace `name`, which is made if it is not there."""
        self._server = server
        self.name = name
        if not server.kubectl("get", "namespace", name, "-o", "name", "--ignore-not-found"):
            server.kubectl("create", "namespace", name)

    @classmethod
    def of_test(cls, server: ApiServer, test: str) -> Namespace:
        """A new one, named like the test."""
        name = re.sub("[^a-z0-9]+", "-", test.lower()).strip("-")
        return cls(server, f"{name[:25]}-{name[-25:]}".replace("--", "-"))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl here; its output, or an AssertionError with what it said."""
        return self._server.kubectl("-n", self.name, *arguments, input=stdin)

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply a resource of Ropewalk's."""
        body = {"apiVersion": "ropewalk.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def agent(self, name: str = "calc", **spec: Any) -> None:
        """Apply an Agent with these fields."""
        self.apply("Agent", name, {"systemPrompt": "You are a calculator.", "model": MODEL, **spec})

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object, or None."""
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found

    def children(self) -> set[str]:
        """All that the operator has made here, as `kind/name`."""
        text = self.kubectl("get", KINDS, "-l", MANAGED, "-o", "name")
        return set(text.split())

    def at_rest(self) -> dict[str, str]:
        """Versions of everything that the operator writes, once neither it nor Kubernetes' controllers write any more.

        No pod becomes ready meanwhile: who makes one so has to wait for what follows from it.
        """
        seen: list[dict[str, str]] = []

        def is_at_rest() -> bool:
            items = json.loads(self.kubectl("get", f"{KINDS},agents,mcpservers,models", "-o", "json"))["items"]
            names = (f"{item['kind']}/{item['metadata']['name']}" for item in items)
            seen.append(dict(zip(names, (item["metadata"]["resourceVersion"] for item in items), strict=True)))
            # Else what looks like rest may be a controller that has not had its turn.
            is_done = all(_has_its_pods(item) for item in items if item["kind"] == "Deployment")
            return is_done and len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

        until(is_at_rest, "nothing is written any more")
        return seen[-1]

    def condition(self, kind: str, name: str, type_: str) -> dict[str, Any]:
        """A condition of a resource, empty while there is none."""
        body = self.get(kind, name) or {}
        conditions = body.get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == type_), {})

    def make_ready(self, pod: str) -> None:
        """Say what a kubelet would say of a pod that is ready."""
        conditions = [{"type": type_, "status": "True"} for type_ in ("PodScheduled", "ContainersReady", "Ready")]
        container = {
            "name": "agent", "ready": True, "restartCount": 0, "image": "i", "imageID": "", "state": {"running": {}},
        }  # fmt: skip
        status = {"phase": "Running", "podIP": "127.0.0.1", "conditions": conditions, "containerStatuses": [container]}
        self.kubectl("patch", pod, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def _has_its_pods(deployment: dict[str, Any]) -> bool:
    spec, status = deployment["spec"], deployment.get("status", {})
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas")}
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == {spec["replicas"]}
