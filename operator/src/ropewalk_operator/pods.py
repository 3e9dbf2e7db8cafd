"""Pod bodies -> the few facts that status needs.

Pure; what a pod says of its trouble is kept in its own words, bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.times import epoch

LAST_WORDS_CHARACTERS = 600
PULL_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
CHECK_THE_IMAGE = "check its name and tag, and spec.pod.imagePullSecrets where its registry wants credentials"
MAKE_ROOM = "add a node or free one, or change spec.pod: resources, nodeSelector, tolerations, affinity"
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: \w+)?:? *')
_NO_SECRET = re.compile(r'\bsecret "[^"]+" not found|\bsecret key\b|\bin Secret ', re.IGNORECASE)
_NO_CONFIG_MAP = re.compile(r'\bconfigmap "[^"]+" not found|\bconfig key\b|\bin ConfigMap ', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a pod from being ready: a CamelCase reason and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as status sees it. Times are seconds since the epoch."""

    namespace: str
    name: str
    uid: str
    owner_kind: str
    owner_name: str
    config_hash: str
    created: float
    ip: str | None
    ready: bool
    running: bool
    """The container runs, ready or not."""
    creating: bool
    """Scheduled, and the container has not been made yet: volumes may be missing."""
    deleting: bool
    restarts: int
    trouble: Trouble | None
    bridge_port: int | None = None
    """Of a stdio server, where its bridge tells at /ready what is wrong."""


def pod(body: Mapping[str, Any]) -> Pod | None:
    """The pod in `body`, or None when it belongs to no Agent or MCPServer."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    owner = next(((kind, labels[label]) for kind, label in names.OWNER_LABELS.items() if label in labels), None)
    if owner is None:
        return None
    status = body.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or []
    main: Mapping[str, Any] = next(
        (c for c in containers if c.get("name") in (names.AGENT_CONTAINER, names.MCP_CONTAINER)), {}
    )
    state = main.get("state") or {}
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_kind=owner[0],
        owner_name=owner[1],
        config_hash=(metadata.get("annotations") or {}).get(names.CONFIG_HASH, ""),
        created=epoch(metadata.get("creationTimestamp")),
        ip=status.get("podIP"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        running="running" in state,
        creating=conditions.get("PodScheduled", {}).get("status") == "True"
        and (not state or (state.get("waiting") or {}).get("reason") in ("ContainerCreating", "PodInitializing")),
        deleting="deletionTimestamp" in metadata or status.get("phase") in ("Succeeded", "Failed"),
        restarts=int(main.get("restartCount", 0)),
        trouble=_trouble(
            status, conditions, _stuck(status) or main, _containers(body), f"kubectl logs {metadata['name']}"
        ),
        bridge_port=_bridge_port(body),
    )


def _bridge_port(body: Mapping[str, Any]) -> int | None:
    for container in (body.get("spec") or {}).get("containers") or ():
        is_asked = "httpGet" in (container.get("readinessProbe") or {})
        if container.get("name") == names.MCP_CONTAINER and is_asked and container.get("ports"):
            return int(container["ports"][0]["containerPort"])
    return None


def missing(said: str) -> Trouble | None:
    """The trouble in these words of the kubelet, where it is that a Secret, a ConfigMap or a key is not there."""
    for reason, words, kind in (
        ("SecretNotFound", _NO_SECRET, "Secret"),
        ("ConfigMapNotFound", _NO_CONFIG_MAP, "ConfigMap"),
    ):
        if words.search(said):
            return Trouble(reason, f"{said}; create the {kind} with that key, and the pod goes on by itself")
    return None


def _containers(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the spec says of each container, by its name."""
    spec = body.get("spec") or {}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return {str(each.get("name", "")): each for each in containers}


def _stuck(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A container that has to run and end before the main one, and does not."""
    return next((c for c in status.get("initContainerStatuses") or () if _is_stuck(c)), None)


def _is_stuck(container: Mapping[str, Any]) -> bool:
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    reason = (state.get("waiting") or {}).get("reason")
    return not container.get("ready") and (reason in PULL_REASONS | CONFIG_REASONS or bool(ended.get("exitCode")))


def _trouble(
    status: Mapping[str, Any],
    conditions: Mapping[str, Any],
    container: Mapping[str, Any],
    containers: Mapping[str, Mapping[str, Any]],
    logs: str,
) -> Trouble | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble("Unschedulable", f"no node takes the pod: {_bounded(scheduled.get('message'))}; {MAKE_ROOM}")
    if status.get("phase") == "Failed" and status.get("reason"):
        return Trouble(
            str(status["reason"]), f"the pod was ended: {_bounded(status.get('message') or status['reason'])}"
        )
    spec = containers.get(str(container.get("name", "")), {})
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    said = _bounded(waiting.get("message"))
    if reason in PULL_REASONS:
        # Between two attempts the kubelet says the same in other words: each would be a write.
        why = _BACK_OFF.sub("", said) or "the kubelet gives no reason"
        return Trouble("ImagePullFailed", f"the image {spec.get('image')} cannot be pulled: {why}; {CHECK_THE_IMAGE}")
    if reason in CONFIG_REASONS:
        cannot = f"the container cannot be made: {said or reason}"
        return missing(cannot) or Trouble(reason, f"{cannot}; see what spec.pod adds to it")
    # A container that runs again after a crash still shows how the last one ended, until it is ready.
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended is not None and not container.get("ready"):
        return _ended(ended, int(container.get("restartCount", 0)), spec, logs)
    return None


def _ended(ended: Mapping[str, Any], restarts: int, spec: Mapping[str, Any], logs: str) -> Trouble:
    times = {0: "not restarted yet", 1: "restarted once"}.get(restarts, f"restarted {restarts} times")
    if ended.get("reason") == "OOMKilled":
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        than = f" of {limit}" if limit else ""
        message = f"the container was killed for using more memory than its limit{than}, {times}"
        return Trouble("OutOfMemory", f"{message}; raise spec.pod.resources.limits.memory")
    words = _bounded(_without_log(str(ended.get("message") or "")), tail=True)
    said = f"; its last words: {words}" if words else ""
    see = f"{logs} --previous" if restarts else logs
    return Trouble("CrashLoop", f"the container ended with exit code {ended.get('exitCode')}, {times}{said}; see {see}")


def _without_log(text: str) -> str:
    """The lines that are no log lines, where there are any: what a program prints beside its log is why it ends."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join([line for line in lines if not _is_log_line(line)] or lines)


def _is_log_line(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _bounded(text: object, *, tail: bool = False) -> str:
    plain = str(text or "").strip().removesuffix(".")
    if len(plain) <= LAST_WORDS_CHARACTERS:
        return plain
    return f"…{plain[-LAST_WORDS_CHARACTERS:]}" if tail else f"{plain[:LAST_WORDS_CHARACTERS]}…"
