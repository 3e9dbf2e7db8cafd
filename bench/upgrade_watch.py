"""What an upgrade may not change: resources, their children, and pods more than once."""

from __future__ import annotations

from collections import Counter

from e2e_cluster import Json, Workspace
from waiting import until

_RESOURCES = "agents,mcpservers"
_CHILDREN = (
    "deployments,services,configmaps,secrets,serviceaccounts,networkpolicies,persistentvolumeclaims,"
    "poddisruptionbudgets,horizontalpodautoscalers"
)


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
            was, is_now = old["spec"], new["spec"]
            found |= {
                f"spec.{key} of {name} was {was.get(key)} and is {is_now.get(key)}"
                for key in was.keys() | is_now.keys()
                if was.get(key) != is_now.get(key)
            }
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
    """Each pod that there was for a moment, and how often containers of it were restarted."""

    def __init__(self) -> None:
        self._restarts: dict[str, int] = {}
        self._known: dict[str, int] = {}

    def see(self, _event: str, pod: Json) -> None:
        """Look at a version of a pod."""
        containers = pod.get("status", {}).get("containerStatuses", ())
        self._restarts[pod["metadata"]["name"]] = sum(each["restartCount"] for each in containers)

    def forget(self) -> None:
        """Count from here on."""
        self._known = dict(self._restarts)

    def replaced(self) -> str:
        """In words: how many pods each Deployment has got since, of how many templates, and who was restarted."""
        now = dict(self._restarts)
        new = now.keys() - self._known.keys()
        # A pod is named by its Deployment, its template and something of its own.
        made = Counter(name.rsplit("-", 2)[0] for name in new)
        templates = Counter(template.rpartition("-")[0] for template in {name.rpartition("-")[0] for name in new})
        words = [f"{name} {made[name]} of {templates[name]} template(s)" for name in sorted(made)]
        words += [f"{name} RESTARTED" for name, count in sorted(now.items()) if count > self._known.get(name, 0)]
        return ", ".join(words) or "none"


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
