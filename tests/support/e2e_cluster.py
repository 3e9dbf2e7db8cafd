"""The local cluster as the e2e tests use it: kubectl, helm, and plain HTTP to Services and pods by their addresses.

The machine is the cluster's node, so it reaches pods and Services directly; it does not know the cluster's names.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import httpx

from cluster import images
from cluster.layout import IMAGE_PREFIX, REPOSITORY, Layout
from waiting import until

Json = dict[str, Any]

SYSTEM = "ropewalk-system"
RELEASE = "ropewalk"


def image(name: str) -> str:
    """The reference of one of this checkout's images."""
    return f"{IMAGE_PREFIX}/{name}:{images.tag()}"


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Run kubectl as the cluster's administrator; its output, or an AssertionError with what it said."""
    here = Layout.default()
    return _run(str(here.bin / "kubectl"), f"--kubeconfig={here.kubeconfig}", *arguments, text=text)


def helm(*arguments: str) -> str:
    """Run helm as the cluster's administrator; what it said, errors' stream included (tests' logs come there)."""
    here = Layout.default()
    return _run(str(here.bin / "helm"), f"--kubeconfig={here.kubeconfig}", *arguments, both=True)


def install_chart(*arguments: str, chart: str = str(REPOSITORY / "charts" / "ropewalk")) -> None:
    """Install or upgrade the release with this checkout's images."""
    helm("upgrade", "--install", RELEASE, chart, "--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout=3m",
         f"--set=image.tag={images.tag()}", *arguments)  # fmt: skip


def must_be_alone() -> None:
    """Two operators in one namespace would fight. Raises RuntimeError where one works in all."""
    found = kubectl("get", "deployments", "-A", "-l", "app.kubernetes.io/name=ropewalk-operator", "-o", "json")
    for deployment in json.loads(found)["items"]:
        namespace = deployment["metadata"]["namespace"]
        env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        watched = {each["name"]: each.get("value") for each in env}.get("ROPEWALK_WATCH_NAMESPACES")
        if not watched:
            raise RuntimeError(
                f"the operator in namespace {namespace} works in all namespaces, also in those that are to be measured "
                f"with operators of their own; take it away first: helm uninstall --namespace {namespace} RELEASE"
            )


def crds() -> dict[str, Json]:
    """Ropewalk's CustomResourceDefinitions that there are, by name."""
    found = json.loads(kubectl("get", "crds", "-o", "json"))["items"]
    return {each["metadata"]["name"]: each for each in found if each["spec"]["group"] == "ropewalk.dev"}


def delete_crds(*names: str) -> None:
    """Delete some of them, which may be none, with all their resources; return when they are gone."""
    if not names:
        return
    # One whose resources were never asked for has no storage yet, and Kubernetes 1.34 may then never come to its end.
    until(lambda: kubectl("get", ",".join(names), "-A", "-o", "json"), f"{names} can be listed")
    kubectl("delete", "crd", *names, "--wait=false")
    until(lambda: not crds().keys() & set(names), f"{names} are gone", seconds=120)


@dataclass(frozen=True)
class Workspace:
    """A namespace that enforces restricted pods, with the demo model in it."""

    name: str

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl in this namespace."""
        return kubectl("--namespace", self.name, *arguments, text=text)

    def apply(self, *manifests: Json) -> None:
        """`kubectl apply` each of the manifests."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def patch(self, what: str, spec: Json) -> None:
        """Merge `spec` into the spec of a resource, such as agent/calculator."""
        self.kubectl("patch", what, "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self, *what: str) -> Json:
        """A resource, or a list of them, as JSON."""
        return dict(json.loads(self.kubectl("get", *what, "-o", "json")))

    def conditions(self, what: str, *kinds: str) -> list[Json]:
        """These of a resource, of one read; the status is "" of one that it has not, or of an older generation."""
        resource = self.get(what)
        now = {
            each["type"]: dict(each)
            for each in resource.get("status", {}).get("conditions", [])
            if each["observedGeneration"] == resource["metadata"]["generation"]
        }
        return [now.get(kind, {"status": "", "reason": "", "message": ""}) for kind in kinds]

    def condition(self, what: str, kind: str) -> Json:
        """One of `conditions`."""
        (found,) = self.conditions(what, kind)
        return found

    def wait(self, what: str, kind: str = "Ready", status: str = "True", *, seconds: float = 90) -> Json:
        """Wait until a condition has this status; the condition."""

        def look() -> Json:
            seen = self.condition(what, kind)
            assert seen["status"] == status, f"{what} {kind}={seen['status']} {seen['reason']}: {seen['message']}"
            return seen

        return until(look, f"{what} {kind}={status}", seconds=seconds)

    def pods(self, selector: str) -> list[Json]:
        """The pods of a selector that are not on their way out."""
        found = self.get("pods", "-l", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def url(self, service: str) -> str:
        """The address of a Service that this machine can reach."""
        spec = self.get(f"service/{service}")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def ask(self, agent: str, question: str, **body: object) -> Json:
        """POST /query to an agent; its answer, or an AssertionError with the error that it gave."""
        answer = httpx.post(f"{self.url(f'{agent}-agent')}/query", json={"query": question, **body}, timeout=30)
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
        return dict(answer.json())


def mcpserver(name: str = "math", **spec: object) -> Json:
    """An MCPServer; without anything else, the math server."""
    body = spec or {"image": image("mcp-math")}
    return {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": name}, "spec": body}


def agent(name: str, *servers: str | Json, **spec: object) -> Json:
    """An Agent on the demo model that uses `servers`."""
    body = {
        "systemPrompt": "You are a calculator.",
        "model": {"provider": "openai-compatible", "id": "ropewalk-demo", "baseURL": "http://demo-model:8080/v1"},
        "mcpServers": [{"name": each} if isinstance(each, str) else each for each in servers],
    }
    return {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": body | spec}


def _run(*command: str, text: str | None = None, both: bool = False) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}\n{done.stdout}"
    return done.stdout + done.stderr if both else done.stdout
