"""What a reconcile has gathered about an Agent, MCPServer or Model: the input of every check.

Plain values, no behaviour beyond counting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ropewalk_operator.clashes import Clash
from ropewalk_operator.pods import Pod, Trouble


@dataclass(frozen=True)
class ServerView:
    """An MCPServer as an Agent that names it sees it."""

    name: str
    required: bool
    ready: bool
    """Of one that only agents can ask: whether its spec is accepted and its pods are available."""
    message: str
    needs_agent: bool = False
    """Whether only agents can ask it, so that an Agent's own pods tell whether they reach it."""


@dataclass(frozen=True)
class Workload:
    """A Deployment's own report."""

    generation: int
    observed_generation: int
    replicas: int
    updated: int
    available: int
    ready: int
    failure: str | None = None
    """Why pods could not be created: a quota or an admission refusal, in the API server's words."""
    deadline_exceeded: bool = False


@dataclass(frozen=True)
class Tool:
    """A tool that a server listed; `hash` covers name, description and input schema."""

    name: str
    description: str
    hash: str


@dataclass(frozen=True)
class LeftOut:
    """A tool that cannot be used, and why; the name is the server's."""

    name: str
    reason: str


@dataclass(frozen=True)
class Discovered:
    """What a server said of itself in a tools/list."""

    tools: tuple[Tool, ...]
    protocol_version: str
    server_name: str
    server_version: str
    has_session: bool = False
    """Whether it hands out sessions, which its other replicas may not know."""
    left_out: tuple[LeftOut, ...] = ()
    hidden: int = 0
    """How many of the tools that it listed spec.tools keeps from agents; they are not in `tools`."""
    unknown: tuple[str, ...] = ()
    """Names in spec.tools.allow that it did not list."""
    note: str = ""
    """Who said so, and who says otherwise, where agents were asked."""


@dataclass(frozen=True)
class Facts:
    """All that is known, once, before anything is judged."""

    kind: str
    name: str
    generation: int
    url: str = ""
    selector: str = ""
    replicas: int = 1
    """Pods that shall run; 0 while suspended."""
    autoscaled: bool = False
    """Whether an autoscaler sets them, which leaves a Deployment alone that somebody has scaled to 0."""
    autoscaler_idle: str = ""
    """Why the autoscaler does nothing, in its own words."""
    suspended: bool = False
    remote: bool = False
    note: str = ""
    """Something that is allowed, and that the user should know."""
    invalid: str | None = None
    model: str = ""
    """Of an Agent, its provider's name for the model."""
    missing_model: str | None = None
    missing_servers: tuple[str, ...] = ()
    prompt_problem: str | None = None
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    servers: tuple[ServerView, ...] = ()
    deployment: Workload | None = None
    config_hash: str | None = None
    pods: tuple[Pod, ...] = ()
    extra_trouble: Mapping[str, Trouble] = field(default_factory=dict)
    """By pod uid: what the pod itself does not say, such as a volume that cannot be mounted or why /ready refuses."""
    discovered: Discovered | None = None
    discovery_error: str | None = None
    discovery_pending: bool = False
    needs_agent: bool = False
    """Whether only agents can ask the server for its tools."""
    asked_agents: tuple[str, ...] = ()
    """Agents that are asked for them."""
    clashes: tuple[Clash, ...] = ()

    @property
    def fresh_pods(self) -> tuple[Pod, ...]:
        """Pods of the current spec."""
        return tuple(pod for pod in self.pods if not pod.deleting and pod.config_hash == self.config_hash)

    @property
    def fresh_ready(self) -> int:
        """How many pods of the current spec are ready."""
        return sum(pod.ready for pod in self.fresh_pods)

    @property
    def old_ready(self) -> int:
        """How many pods of earlier specs go on answering."""
        return sum(pod.ready for pod in self.pods if not pod.deleting and pod.config_hash != self.config_hash)


def workload(generation: int, status: Mapping[str, Any]) -> Workload:
    """The report in a Deployment's status."""
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    failure = conditions.get("ReplicaFailure", {})
    progress = conditions.get("Progressing", {})
    return Workload(
        generation=generation,
        observed_generation=status.get("observedGeneration", 0),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        ready=status.get("readyReplicas", 0),
        failure=str(failure.get("message") or failure.get("reason")) if failure.get("status") == "True" else None,
        deadline_exceeded=progress.get("status") == "False" and progress.get("reason") == "ProgressDeadlineExceeded",
    )
