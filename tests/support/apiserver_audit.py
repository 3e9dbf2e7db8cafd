"""What was asked of an API server, by whom and when, from its audit log: what rights are judged by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_LOG = "audit.jsonl"
_WRITES = {"create", "update", "patch", "delete"}
# Its own parts, which are of no interest and never silent.
_CONTROL_PLANE = (
    {"users": ["system:apiserver", "system:kube-controller-manager"]},
    {"userGroups": ["system:serviceaccounts:kube-system"]},
)


@dataclass(frozen=True)
class Write:
    """A write as the API server saw it."""

    author: str
    """The user agent, without its version."""
    received: datetime
    over: datetime
    what: str
    code: int

    def __str__(self) -> str:
        return f"{self.what} (received {self.received:%T.%f}, over {self.over:%T.%f}, {self.code})"

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Write:
        """From an event of the audit log."""
        target = event["objectRef"]
        what = f"{event['verb']} {target['resource']} {target.get('name', '')}"
        received, over = (datetime.fromisoformat(event[f"{at}Timestamp"]) for at in ("requestReceived", "stage"))
        author = event.get("userAgent", "").rpartition("/")[0]
        return cls(author, received, over, what, event.get("responseStatus", {}).get("code", 0))


class Right(NamedTuple):
    """One thing that a rule lets somebody do."""

    group: str
    resource: str
    verb: str


class Call(NamedTuple):
    """One request for a resource, and the HTTP status that was answered."""

    right: Right
    namespace: str
    status: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Call:
        """From an event of the audit log."""
        target = event["objectRef"]
        resource = "/".join(part for part in (target["resource"], target.get("subresource")) if part)
        right = Right(target.get("apiGroup", ""), resource, event["verb"])
        return cls(right, target.get("namespace", ""), event.get("responseStatus", {}).get("code", 0))

    def used(self) -> set[Right]:
        """The rights that it took. Who applies an object that is not there creates it, and needs the right to."""
        made = self.right.verb == "patch" and self.status == 201
        return {self.right, self.right._replace(verb="create")} if made else {self.right}


def flags(folder: Path) -> tuple[str | Path, ...]:
    """Write the policy into a folder; the flags by which an API server keeps its log there."""
    ours = [{"level": "None", **whose} for whose in _CONTROL_PLANE]
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        # A watch is seen when it begins; the end of it may never come.
        "omitStages": ["RequestReceived"],
        "rules": [*ours, {"level": "Metadata"}],
    }
    file = folder / "audit-policy.yaml"
    file.write_text(yaml.safe_dump(policy))
    # Blocking: who has an answer finds the call in the log.
    return "--audit-policy-file", file, "--audit-log-path", folder / _LOG, "--audit-log-mode", "blocking"


def writes(folder: Path, namespace: str) -> list[Write]:
    """Every write in a namespace, in the order of their ends, but for Leases: they only say that somebody lives."""
    return [
        Write.of(event)
        for event in _events(folder)
        if event["verb"] in _WRITES
        and event["objectRef"].get("namespace") == namespace
        and event["objectRef"]["resource"] != "leases"
    ]


def calls(folder: Path, user: str) -> list[Call]:
    """Every request of a user for a resource."""
    return [Call.of(event) for event in _events(folder) if event["user"]["username"] == user]


def granted(rules: Iterable[Mapping[str, Any]]) -> set[Right]:
    """What the rules of a role let its subjects do."""
    return {
        Right(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _events(folder: Path) -> list[dict[str, Any]]:
    # The last line may be half written.
    lines = (line for line in (folder / _LOG).read_text().splitlines(keepends=True) if line.endswith("\n"))
    return [event for event in map(json.loads, lines) if "objectRef" in event]
