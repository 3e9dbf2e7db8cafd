"""What an upgrade may not change: resources, their children, and pods more than once."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from cluster.layout import REPOSITORY, Layout
from e2e_cluster import Json, Workspace, kubectl
from waiting import until

_RESOURCES = "agents,mcpservers"
_CHILDREN = (
    "deployments,services,configmaps,secrets,serviceaccounts,networkpolicies,persistentvolumeclaims,"
    "poddisruptionbudgets,horizontalpodautoscalers"
)
_HELM_OWNERS = ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace")


def owned(space: Workspace) -> dict[str, Json]:
    """Each Agent and MCPServer, and each object that one of them owns, by kind and name."""
    found = space.get(f"{_RESOURCES},{_CHILDREN}")["items"]
    return {
        f"{each['kind']} {each['metadata']['name']}": each
        for each in found
        if each["apiVersion"].startswith("ropewalk.dev/") or _owner_is_ours(each)
    }


def differences(before: dict[str, Json], now: dict[str, Json]) -> set[str]:
    """In words: what is gone, what is new, what is another object of the same name, which resource was written."""
    found = {f"{name} is gone" for name in before.keys() - now.keys()}
    found |= {f"{name} is new" for name in now.keys() - before.keys()}
    for name in before.keys() & now.keys():
        old, new = before[name], now[name]
        if old["metadata"]["uid"] != new["metadata"]["uid"]:
            found.add(f"{name} is another one")
        elif old["apiVersion"].startswith("ropewalk.dev/"):
            if old["spec"] != new["spec"]:
                found.add(f"spec of {name} was {old['spec']} and is {new['spec']}")
            if old["metadata"]["generation"] != new["metadata"]["generation"]:
                found.add(f"{name} was written")
    return found


def settled(space: Workspace, tag: str) -> None:
    """Wait until all resources are Ready, and only pods of the release with this tag are left."""

    def only_its_pods() -> bool:
        for deployment in space.get("deployments")["items"]:
            if _owner_is_ours(deployment):
                name, status = deployment["metadata"]["name"], deployment["status"]
                wrong = [image for image in _released_images(deployment) if not image.endswith(f":{tag}")]
                assert not wrong, f"{name} is of {wrong}"
                assert status.get("observedGeneration") == deployment["metadata"]["generation"], f"{name} has changed"
                counts = {status.get(each, 0) for each in ("replicas", "updatedReplicas", "readyReplicas")}
                assert counts == {deployment["spec"]["replicas"]}, f"{name} has {counts} pods"
        ending = [each["metadata"]["name"] for each in space.get("pods")["items"] if _is_ending(each)]
        assert not ending, f"{ending} are on their way out"
        return True

    until(only_its_pods, f"only pods of {tag} are left", seconds=300)
    for resource in space.kubectl("get", _RESOURCES, "-o", "name").split():
        space.wait(resource)


class PodsSeen:
    """Notes the name of each pod that there is for a moment."""

    def __init__(self, space: Workspace) -> None:
        self._space = space
        self._names: set[str] = set()
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        here = Layout.default()
        command = [str(here.bin / "kubectl"), f"--kubeconfig={here.kubeconfig}", "--namespace", self._space.name,
                   "get", "pods", "--watch", "--output=name"]  # fmt: skip
        self._watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self._names, "the watch names the pods")
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.terminate()
        self._watch.wait()

    def forget(self) -> None:
        """Count from here on."""
        self._known = set(self._names)

    def replaced(self) -> str:
        """In words: how many pods each Deployment has got since, of how many templates, and who was restarted."""
        new = [name.removeprefix("pod/") for name in self._names - self._known]
        # A pod is named by its Deployment, its template and something of its own.
        made = Counter(name.rsplit("-", 2)[0] for name in new)
        templates = Counter(template.rpartition("-")[0] for template in {name.rpartition("-")[0] for name in new})
        words = [f"{name} {made[name]} of {templates[name]} template(s)" for name in sorted(made)]
        words += [
            f"{pod['metadata']['name']} RESTARTED"
            for pod in self._space.get("pods")["items"]
            if any(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
        ]
        return ", ".join(words) or "none"

    def _read(self) -> None:
        assert self._watch.stdout
        for line in self._watch.stdout:
            self._names.add(line.strip())


@contextmanager
def crds_by_the_chart() -> Iterator[bool]:
    """Whether the chart is to bring the CRDs: not where somebody else has applied them, who then goes on doing so.

    Those of another release are this checkout's in the end, and that release's again. Where none were, none are left.
    """
    before = _crds()
    if before and not any(_HELM_OWNERS[0] in owners for owners in before.values()):
        yield False
        return
    try:
        yield True
    finally:
        if before:
            kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
        else:
            kubectl("delete", "crd", *_crds())
        for name, owners in before.items():
            former = [f"{key}={owners[key]}" if key in owners else f"{key}-" for key in _HELM_OWNERS]
            kubectl("annotate", "crd", name, "--overwrite", *former)


def _crds() -> dict[str, Json]:
    """Their annotations by name."""
    found = json.loads(kubectl("get", "crds", "-o", "json"))["items"]
    return {
        each["metadata"]["name"]: each["metadata"].get("annotations", {})
        for each in found
        if each["spec"]["group"] == "ropewalk.dev"
    }


def _owner_is_ours(child: Json) -> bool:
    owners = child["metadata"].get("ownerReferences", [])
    return any(each["apiVersion"].startswith("ropewalk.dev/") for each in owners)


def _released_images(deployment: Json) -> list[str]:
    """Those that the operator chooses: the agent's, and the stdio bridge's, which an init container brings."""
    pod = deployment["spec"]["template"]["spec"]
    images = [str(each["image"]) for each in [*pod.get("initContainers", []), *pod["containers"]]]
    return [each for each in images if each.rpartition(":")[0].endswith(("/agent", "/mcp-stdio"))]


def _is_ending(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]
