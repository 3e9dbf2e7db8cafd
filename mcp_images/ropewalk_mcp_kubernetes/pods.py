"""What is told of a pod, as data and as text. Pure: no client, no clock; never shows environment variables."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

Json = dict[str, Any]
_MAX_EVENTS = 20
_MAX_MESSAGE = 500


class Container(BaseModel):
    """One container and its state."""

    name: str
    image: str
    ready: bool
    restarts: int
    state: str = Field(description="running, waiting or terminated, with its reason")
    last_state: str | None = Field(default=None, description="How its last run ended")
    init: bool = False
    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None


class PodEvent(BaseModel):
    """One event about a pod."""

    time: str
    type: str
    reason: str
    message: str
    count: int


class Pod(BaseModel):
    """A pod; a list has the first part only."""

    name: str
    namespace: str
    status: str = Field(description="As kubectl shows it: Running, Pending, CrashLoopBackOff, Terminating and the like")
    ready: str = Field(description="Ready containers of all, such as 1/1")
    restarts: int
    created: str
    node: str | None = None
    ip: str | None = None
    owner: str | None = Field(default=None, description="What made it, such as ReplicaSet/web-5d4")
    message: str | None = Field(default=None, description="Why it is in this status, where the cluster says so")
    labels: dict[str, str] | None = None
    conditions: dict[str, str] | None = None
    containers: list[Container] | None = None
    service_account: str | None = None
    events: list[PodEvent] | None = None


def state_words(state: Json) -> str:
    """Return a container's state in words: running, waiting or terminated, with its reason."""
    for kind in ("running", "waiting", "terminated"):
        if (detail := state.get(kind)) is not None:
            parts = [str(detail["reason"])] if detail.get("reason") else []
            if kind == "terminated":
                parts.append(f"exit code {detail.get('exitCode')}")
            if detail.get("message"):
                parts.append(str(detail["message"]).strip()[:_MAX_MESSAGE])
            return f"{kind} ({', '.join(parts)})" if parts else kind
    return "waiting (not started)"


def _reason(status: Json) -> str:
    """Return why a container does not run, or an empty string."""
    state = status.get("state", {})
    if waiting := state.get("waiting"):
        return str(waiting.get("reason") or "")
    if terminated := state.get("terminated"):
        return str(terminated.get("reason") or f"ExitCode:{terminated.get('exitCode')}")
    return ""


def _status(pod: Json) -> str:
    """Return the one word that kubectl shows under STATUS."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if status.get("reason"):
        return str(status["reason"])
    init = status.get("initContainerStatuses", [])
    for index, container in enumerate(init):
        terminated = container.get("state", {}).get("terminated")
        # A sidecar (an init container that goes on running) does not hold the others back once it has started.
        if (terminated and terminated.get("exitCode") == 0) or container.get("started"):
            continue
        reason = _reason(container)
        return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{index}/{len(init)}"
    phase = str(status.get("phase", "Unknown"))
    running = any("running" in container.get("state", {}) for container in status.get("containerStatuses", []))
    for container in status.get("containerStatuses", []):
        reason = _reason(container)
        if reason and not (reason == "Completed" and running):
            return reason
    return phase


def _container(spec: Json, status: Json, init: bool) -> Container:
    last = status.get("lastState") or {}
    resources = spec.get("resources", {})
    return Container(
        name=spec["name"],
        image=spec.get("image", ""),
        ready=status.get("ready", False),
        restarts=status.get("restartCount", 0),
        state=state_words(status.get("state", {})),
        last_state=state_words(last) if last else None,
        init=init,
        requests=resources.get("requests"),
        limits=resources.get("limits"),
    )


def summary(pod: Json) -> Pod:
    """Return what a list tells of a pod."""
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    statuses = status.get("containerStatuses", [])
    owner = next((f"{ref['kind']}/{ref['name']}" for ref in metadata.get("ownerReferences", [])), None)
    return Pod(
        name=metadata["name"],
        namespace=metadata.get("namespace", ""),
        status=_status(pod),
        ready=f"{sum(bool(item.get('ready')) for item in statuses)}/{len(spec.get('containers', []))}",
        restarts=sum(item.get("restartCount", 0) for item in statuses),
        created=metadata.get("creationTimestamp") or "",
        node=spec.get("nodeName"),
        ip=status.get("podIP"),
        owner=owner,
    )


def detail(pod: Json) -> Pod:
    """Return all that is told of a pod but its events."""
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    containers = []
    for specs, statuses, init in (
        ("initContainers", "initContainerStatuses", True),
        ("containers", "containerStatuses", False),
    ):
        by_name = {item["name"]: item for item in status.get(statuses, [])}
        containers += [_container(item, by_name.get(item["name"], {}), init) for item in spec.get(specs, [])]
    conditions = {}
    for condition in status.get("conditions", []):
        reason = ": ".join(str(condition[key]) for key in ("reason", "message") if condition.get(key))
        conditions[condition["type"]] = f"{condition['status']} ({reason})" if reason else condition["status"]
    return summary(pod).model_copy(
        update={
            "message": status.get("message"),
            "labels": metadata.get("labels", {}),
            "conditions": conditions,
            "containers": containers,
            "service_account": spec.get("serviceAccountName"),
        }
    )


def event_time(item: Json) -> str:
    """Return when an event was seen last, or an empty string."""
    series = item.get("series") or {}
    for value in (series.get("lastObservedTime"), item.get("lastTimestamp"), item.get("eventTime")):
        if value:
            return str(value)
    return str(item["metadata"].get("creationTimestamp") or "")


def event_count(item: Json) -> int:
    """Return how often an event was seen."""
    return int((item.get("series") or {}).get("count") or item.get("count") or 1)


def events(items: list[Json]) -> list[PodEvent]:
    """Return the latest 20 events, oldest first."""
    return [
        PodEvent(
            time=event_time(item),
            type=item.get("type", ""),
            reason=item.get("reason", ""),
            message=str(item.get("message", "")).strip()[:_MAX_MESSAGE],
            count=event_count(item),
        )
        for item in sorted(items, key=event_time)[-_MAX_EVENTS:]
    ]


def unix_seconds(moment: str) -> float:
    """Return a moment that Kubernetes writes as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def age(created: str, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit: 5d, 3h, 12m or 40s."""
    if not created:
        return "?"
    seconds = int(now.timestamp() - unix_seconds(created))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def list_text(pods: list[Pod], total: int, namespace: str, where: str, now: datetime) -> str:
    """Return the list as a table."""
    shown = "" if total == len(pods) else f", {len(pods)} of them shown (raise limit or give a label_selector)"
    header = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "NODE"]
    rows = [[p.name, p.ready, p.status, str(p.restarts), age(p.created, now), p.node or "-"] for p in pods]
    if not namespace:
        header, rows = ["NAMESPACE", *header], [[p.namespace, *row] for p, row in zip(pods, rows, strict=True)]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([f"{total} {'pod' if total == 1 else 'pods'} {where}{shown}:", *table])


def detail_text(pod: Pod, now: datetime) -> str:
    """Return a pod, with its containers and events, as lines."""
    lines = [
        f"Pod {pod.name} in namespace {pod.namespace}: {pod.status}, {pod.ready} containers ready, "
        f"{pod.restarts} restarts, age {age(pod.created, now)}",
        f"Node: {pod.node or 'none yet'}; IP: {pod.ip or 'none yet'}; made by: {pod.owner or 'nobody'}; "
        f"ServiceAccount: {pod.service_account or 'default'}",
    ]
    if pod.message:
        lines.append(f"Message: {pod.message}")
    if pod.labels:
        lines.append("Labels: " + ", ".join(f"{key}={value}" for key, value in pod.labels.items()))
    for item in pod.containers or []:
        kind = "Init container" if item.init else "Container"
        line = f"{kind} {item.name} ({item.image}): {item.state}, ready: {'yes' if item.ready else 'no'}"
        line += f", restarts: {item.restarts}" + (f", last run: {item.last_state}" if item.last_state else "")
        for what, amounts in (("requests", item.requests), ("limits", item.limits)):
            if amounts:
                line += f", {what}: " + " ".join(f"{key}={value}" for key, value in amounts.items())
        lines.append(line)
    if pod.conditions:
        lines.append("Conditions: " + "; ".join(f"{key}={value}" for key, value in pod.conditions.items()))
    if pod.events is not None:
        lines.append("Events:" if pod.events else "Events: none")
        lines += [
            f"  {age(item.time, now)} ago {item.type} {item.reason} (x{item.count}): {item.message}"
            for item in pod.events
        ]
    return "\n".join(lines)
