"""Fifteen ways to break an Agent, in real pods of the local cluster: what it says of each, and how soon that shows."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from kubernetes import client, config, watch

from cluster.layout import REPOSITORY, Layout
from e2e_breakages import TOO_LONG, Breakage, break_all, breakages, label_nodes, let_go
from e2e_cluster import Json, Workspace, agent, install_chart, kubectl

_NAMESPACE = "ropewalk-truth"
_WAIT_SECONDS = 300


@dataclass
class Seen:
    """What a watch saw of the Agents, each by its name, and when, as time.monotonic() tells it."""

    first: dict[str, float] = field(default_factory=dict)
    broken: dict[str, tuple[float, Json]] = field(default_factory=dict)
    """Its condition, once that had the reason and told what it must."""
    seconds: float = 0.0
    """How long was waited for the last of them."""


def run() -> list[tuple[str, str, str]]:
    """Rows of (cause, time, condition, reason and message, and the time within which it shall show)."""
    install_chart()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = Workspace(_NAMESPACE)
    ways = breakages()
    space.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE, "labels": labels}})
    try:
        space.kubectl("apply", "-f", str(REPOSITORY / "examples" / "demo-model"))
        space.kubectl("rollout", "status", "deployment/demo-model", "--timeout=60s")
        seen = Seen()
        watching = threading.Thread(target=_watch, args=(ways, seen), daemon=True)
        watching.start()
        began = break_all(space, ways)
        waits = time.monotonic()
        watching.join(_WAIT_SECONDS)
        seen.seconds = time.monotonic() - waits
        seen.first.update(began)
        return [*(_row(way, seen) for way in ways), _refused(space)]
    finally:
        label_nodes("")
        let_go(space)
        kubectl("delete", "namespace", _NAMESPACE)


def _watch(ways: list[Breakage], seen: Seen) -> None:
    """Note when each Agent first says what is wrong with it, until all have."""
    api = client.CustomObjectsApi(config.new_client_from_config(str(Layout.default().kubeconfig)))
    where = ("ropewalk.dev", "v1alpha1", _NAMESPACE, "agents")
    events = watch.Watch().stream(api.list_namespaced_custom_object, *where, timeout_seconds=2 * _WAIT_SECONDS)
    wanted = {way.name: way for way in ways}
    for event in cast(Iterator[Json], events):
        now, name = time.monotonic(), event["object"]["metadata"]["name"]
        way = wanted[name]
        seen.first.setdefault(name, now)
        for condition in event["object"].get("status", {}).get("conditions", []):
            is_it = (condition["type"], condition["reason"]) == (way.condition, way.reason)
            if is_it and all(words in condition["message"] for words in way.words):
                seen.broken.setdefault(name, (now, condition))
        if len(seen.broken) == len(ways):
            return


def _row(way: Breakage, seen: Seen) -> tuple[str, str, str]:
    goal = f"≤ {way.within_seconds:.0f} s"
    if way.name not in seen.broken:
        # Less than the time that there was: the watch has ended with an error, which stands above.
        return way.what, f"NOT SHOWN in {seen.seconds:.0f} s", goal
    at, said = seen.broken[way.name]
    # The ends of pods' names are made up by Kubernetes.
    message = re.sub(rf"({way.name}-agent)-[0-9a-z]+-[0-9a-z]{{5}}\b", r"\1-…", said["message"])
    figure = f"{at - seen.first[way.name]:.1f} s: {way.condition}={said['status']} `{way.reason}`: {message}"
    return way.what, figure, goal


def _refused(space: Workspace) -> tuple[str, str, str]:
    began = time.monotonic()
    try:
        space.apply(agent(TOO_LONG))
    except AssertionError as error:
        message = str(error).partition("Invalid value: ")[2].partition(": ")[2].strip()
        return (
            "its name is too long",
            f"{time.monotonic() - began:.1f} s: refused by the API server: {message}",
            "≤ 1 s",
        )
    raise RuntimeError(f"the API server took a name of {len(TOO_LONG)} characters")
