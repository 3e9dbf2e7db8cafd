"""Judges pods: which of them need attention and why, which warnings are recent, and all of it in one line. Pure."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from ropewalk_mcp_kubernetes import pods

Json = dict[str, Any]

# As long as Kubernetes keeps events by default.
RECENT_SECONDS = 3_600
# A pod that is deleted has its grace period, then a little time to vanish.
_ENDING_SECONDS = 60
# A pod that takes longer than this to be ready has warnings that are worth reading.
_STARTING_SECONDS = 300
_MAX_WARNINGS = 15
_MAX_NAMED = 5
_MAX_MESSAGE = 300


class Attention(BaseModel):
    """A pod that somebody should look at."""

    namespace: str
    name: str
    ready: bool = Field(description="Whether it works now; then it has restarted lately")
    status: str = Field(description="One word, such as CrashLoopBackOff")
    reason: str = Field(description="What the cluster says of it")


class ObjectWarning(BaseModel):
    """Warning events of one reason about one object, the latest of them."""

    namespace: str
    about: str = Field(description="Kind and name, such as Pod/web-1")
    reason: str
    message: str
    count: int
    time: str


class Health(BaseModel):
    """What is wrong with a set of pods."""

    verdict: str = Field(description="In one line whether anything is wrong")
    attention: list[Attention] = Field(description="Pods that are not ready, or have restarted in the last hour")
    warnings: list[ObjectWarning] | None = Field(
        default=None, description="Warning events of the last hour, latest first; missing where they may not be read"
    )


def health(items: list[Json], events: list[Json] | None, where: str, now: datetime, *, is_cut: bool = False) -> Health:
    """Judge the pods of a list (`where` names it) and the Warning events around them; None: they may not be read.

    is_cut: there are more pods than these, of which nothing is known.
    """
    attention = [found for found in (_attention(item, now) for item in items) if found]
    attention.sort(key=lambda found: found.ready)
    by_uid = {item["metadata"].get("uid"): item for item in items}
    warnings = None if events is None else _warnings(events, by_uid, now)
    verdict = _verdict(items, attention, warnings, f"that were looked at {where}" if is_cut else where)
    if items and not is_cut and not attention and warnings == []:
        verdict = f"Nothing is wrong: {verdict}"
    verdict = verdict[0].upper() + verdict[1:]
    return Health(verdict=verdict, attention=attention, warnings=warnings and warnings[:_MAX_WARNINGS])


def about_these(items: list[Json], events: list[Json], *, these_only: bool) -> list[Json]:
    """Return the events without those about pods that are gone; `these_only`: without those about anything else too."""
    known = {item["metadata"].get("uid") for item in items}
    return [
        event
        for event in events
        if (about := event.get("involvedObject", {})).get("uid") in known
        or (about.get("kind") != "Pod" and not these_only)
    ]


def text(found: Health, now: datetime) -> str:
    """Return the verdict, then a line for each pod and warning behind it."""
    lines = [found.verdict]
    lines += [f"  {item.name} in {item.namespace}: {item.reason}" for item in found.attention]
    for item in found.warnings or []:
        ago, times = pods.age(item.time, now), f" (x{item.count})" if item.count > 1 else ""
        lines.append(f"  {ago} ago {item.about} in {item.namespace}: {item.reason}{times}: {item.message}")
    return "\n".join(lines)


def _is_ending(pod: Json) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _attention(pod: Json, now: datetime) -> Attention | None:
    shown = pods.summary(pod)
    ready, reason = _is_ready(pod), ""
    if pod.get("status", {}).get("phase") == "Succeeded":
        return None
    if _is_ending(pod):
        late = now.timestamp() - pods.unix_seconds(pod["metadata"]["deletionTimestamp"])
        if late < _ENDING_SECONDS:
            return None
        ready, reason = False, f"deleted, but still there {pods.age(pod['metadata']['deletionTimestamp'], now)} later"
    elif ready:
        if not (ended := _last_end(pod)) or now.timestamp() - pods.unix_seconds(ended["finishedAt"]) > RECENT_SECONDS:
            return None
        reason = (
            f"ready, but restarted {pods.age(ended['finishedAt'], now)} ago ({shown.restarts} restarts in all); "
            f"its last run: {pods.state_words({'terminated': ended})}"
        )
    else:
        reason = f"not ready for {pods.age(_since(pod), now)}: {_why(pod) or shown.status}"
    return Attention(namespace=shown.namespace, name=shown.name, ready=ready, status=shown.status, reason=reason)


def _since(pod: Json) -> str:
    """Return since when a pod has been ready, or not."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition.get("lastTransitionTime"):
            return str(condition["lastTransitionTime"])
    return str(pod["metadata"].get("creationTimestamp") or "")


def _last_end(pod: Json) -> Json | None:
    """Return how the container that ended last did so, if one was started again."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    ends = [
        end for item in statuses if (end := (item.get("lastState") or {}).get("terminated")) and end.get("finishedAt")
    ]
    return max(ends, key=lambda end: str(end["finishedAt"]), default=None)


def _why(pod: Json) -> str:
    status = pod.get("status", {})
    said = []
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {})
        ended_well = (state.get("terminated") or {}).get("exitCode") == 0
        if container.get("ready") or container.get("started") or ended_well or "running" in state:
            continue
        said.append(f"container {container['name']} is {pods.state_words(state)}")
        if (container.get("lastState") or {}).get("terminated"):
            said.append(f"its last run: {pods.state_words(container['lastState'])}")
    if not said:
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        messages = (conditions.get(kind, {}).get("message") for kind in ("PodScheduled", "Initialized", "Ready"))
        said = [str(message) for message in (status.get("message"), *messages) if message][:1]
    return _cut("; ".join(said))


def _cut(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"


def _is_of_its_start(pod: Json, moment: str) -> bool:
    """Tell whether a warning belongs to the start of a pod that has gone well: probes fail until a program serves."""
    containers = pod.get("status", {}).get("containerStatuses", [])
    starts = [item.get("state", {}).get("running", {}).get("startedAt") for item in containers]
    if not _is_ready(pod) or not starts or not all(starts):
        return False
    ready, started = pods.unix_seconds(_since(pod)), max(pods.unix_seconds(start) for start in starts)
    return pods.unix_seconds(moment) <= ready <= started + _STARTING_SECONDS


def _warnings(events: list[Json], by_uid: dict[Any, Json], now: datetime) -> list[ObjectWarning]:
    latest: dict[tuple[str, str, str], ObjectWarning] = {}
    for item in sorted(events, key=pods.event_time):
        moment, about = pods.event_time(item), item.get("involvedObject", {})
        if item.get("type") != "Warning" or not moment or now.timestamp() - pods.unix_seconds(moment) > RECENT_SECONDS:
            continue
        if (pod := by_uid.get(about.get("uid"))) and _is_of_its_start(pod, moment):
            continue
        warning = ObjectWarning(
            namespace=item["metadata"].get("namespace", ""),
            about=f"{about.get('kind', 'Object')}/{about.get('name', '?')}",
            reason=item.get("reason", ""),
            message=_cut(str(item.get("message", ""))),
            count=pods.event_count(item),
            time=moment,
        )
        key = (warning.namespace, warning.about, warning.reason)
        if before := latest.pop(key, None):
            warning.count += before.count
        latest[key] = warning
    return list(reversed(latest.values()))


def _verdict(items: list[Json], attention: list[Attention], warnings: list[ObjectWarning] | None, where: str) -> str:
    count, plural = len(items), "" if len(items) == 1 else "s"
    broken = [found for found in attention if not found.ready]
    restarted = [found for found in attention if found.ready]
    said = []
    if not items:
        said.append(f"There are no pods {where}")
    elif broken:
        verb = "is" if len(broken) == 1 else "are"
        said.append(f"{len(broken)} of {count} pod{plural} {where} {verb} not ready: {_named(broken)}")
    else:
        states = ["ready"]
        states += ["completed"] * any(item.get("status", {}).get("phase") == "Succeeded" for item in items)
        states += ["ending"] * any(_is_ending(item) for item in items)
        subject, verb = ("the only pod", "is") if count == 1 else (f"all {count} pods", "are")
        said.append(f"{subject} {where} {verb} {' or '.join(states)}")
    if restarted:
        said.append(f"{len(restarted)} restarted in the last hour: {_named(restarted)}")
    if warnings is None:
        said.append("warnings may not be read")
    else:
        said.append(f"{len(warnings) or 'no'} warning{'' if len(warnings) == 1 else 's'} in the last hour")
    return "; ".join(said) + "."


def _named(found: list[Attention]) -> str:
    names = [f"{item.name} ({item.status})" for item in found[:_MAX_NAMED]]
    more = len(found) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
