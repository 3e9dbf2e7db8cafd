"""SIGKILL right after each single write of a reconcile, one by one, and what the next process makes of it."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from operator_fault_world import MODEL, FaultWorld
from operator_settled import ALWAYS, SOMETIMES
from waiting import until

Step = Callable[[FaultWorld, str], None]

REDIS: dict[str, Any] = {"sessions": {"store": "redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}}
AUTOSCALING = {"minReplicas": 2, "maxReplicas": 4}
_OWN = re.compile(r'"ropewalk\.dev/(desired|config)-hash": "[^"]*"')
_MARKER = "marker"
_MADE_BY_SERVER = ("uid", "resourceVersion", "creationTimestamp", "managedFields")


def agent(prompt: str = "Be kind.", **spec: Any) -> Step:
    """The user applies an Agent."""
    return lambda world, name: world.apply_resource("Agent", name, {"systemPrompt": prompt, "model": MODEL, **spec})


def server(**spec: Any) -> Step:
    """The user applies an MCPServer."""
    return lambda world, name: world.apply_resource("MCPServer", name, {"image": "ropewalk.dev/mcp-math:1", **spec})


def user_of_server(world: FaultWorld, name: str) -> None:
    """The user applies an Agent that uses the MCPServer of the same name."""
    agent(mcpServers=[{"name": name}])(world, name)


def container_added(world: FaultWorld, name: str) -> None:
    """Somebody adds a container to the Deployment by hand."""
    template = {"spec": {"containers": [{"name": "other", "image": "x"}]}}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"{name}-agent"}}
    world.api.apply("deployments", {**body, "spec": {"template": template}})


def child_deleted(world: FaultWorld, name: str) -> None:
    """Somebody deletes a child."""
    world.api.delete("services", f"{name}-agent")


def server_deleted(world: FaultWorld, name: str) -> None:
    """The user deletes the MCPServer."""
    world.api.delete("mcpservers", name)


@dataclass(frozen=True)
class Scenario:
    """What is there before, and what is done to it."""

    name: str
    before: Sequence[Step]
    step: Step


CREATE = Scenario("create an Agent", (), agent())
UNPROTECT = Scenario("turn an Agent's NetworkPolicy off", (agent(),), agent(networkPolicy={"enabled": False}))
SCENARIOS = (
    CREATE,
    Scenario("edit an Agent", (agent(),), agent("Be brief.")),
    UNPROTECT,
    Scenario("give an Agent a second replica", (agent(**REDIS),), agent(replicas=2, **REDIS)),
    Scenario("let an Agent scale itself", (agent(replicas=2, **REDIS),), agent(autoscaling=AUTOSCALING, **REDIS)),
    Scenario("end that again", (agent(autoscaling=AUTOSCALING, **REDIS),), agent(**REDIS)),
    Scenario("add a container by hand", (agent(),), container_added),
    Scenario("delete a child by hand", (agent(),), child_deleted),
    Scenario("create an MCPServer", (), server()),
    Scenario("edit an MCPServer", (server(),), server(port=9000)),
    Scenario("create an MCPServer that an Agent waits for", (user_of_server,), server()),
    Scenario("delete an MCPServer that an Agent uses", (server(), user_of_server), server_deleted),
)


@dataclass(frozen=True)
class Run:
    """What a step led to: the writes in the order in which they came, the end state, and the time.

    `idle`: further writes that changed nothing, where a step of several writes was begun again as a whole.
    """

    writes: tuple[str, ...]
    idle: int
    state: str
    seconds: float


class KillPoints:
    """Plays scenarios in one world, each time on a resource of its own."""

    def __init__(self, world: FaultWorld) -> None:
        self._world = world
        self._numbers = itertools.count(1)
        self._edits = itertools.count(1)

    def undisturbed(self, scenario: Scenario) -> Run:
        """The run without a kill."""
        name = self._prepared(scenario)
        mark, began = len(self._world.proxy.calls), time.monotonic()
        scenario.step(self._world, name)
        until(lambda: self._writes(mark, name), f"{scenario.name}: something is written")
        return self._run(name, mark, time.monotonic() - began)

    def killed(self, scenario: Scenario, after: int, *, seen: bool, wanted: Run) -> Run:
        """The run with a kill after so many writes; `seconds` from the restart to the state of the other run.

        Raises AssertionError where that is never reached.
        """
        world, name = self._world, self._prepared(scenario)
        mark = len(world.proxy.calls)
        killed = world.proxy.kill_after(after, world.operator.kill, seen=seen)
        scenario.step(world, name)
        assert killed.wait(60), f"{scenario.name}: there was no write {after}"
        world.proxy.spare()
        began = time.monotonic()
        world.operator.start()
        until(lambda: self._state(name) == wanted.state, f"{scenario.name}: the state is reached after write {after}")
        return self._run(name, mark, time.monotonic() - began)

    def _prepared(self, scenario: Scenario) -> str:
        name = f"r{next(self._numbers):03}"
        for step in scenario.before:
            mark = len(self._world.proxy.calls)
            step(self._world, name)
            until(lambda mark=mark: self._writes(mark, name), f"{scenario.name}: it begins")  # type: ignore[misc]
            self._is_quiet()
        return name

    def _run(self, name: str, mark: int, seconds: float) -> Run:
        self._is_quiet()
        writes = self._all_writes(mark, name)
        idle = sum(1 for _, had_effect in writes if not had_effect)
        return Run(self._writes(mark, name), idle, self._state(name), seconds)

    def _is_quiet(self) -> None:
        """Return when the operator writes nothing more: while it follows an edit of another Agent, and at its end."""
        world = self._world
        while True:
            mark = len(world.proxy.calls)
            agent(f"edit {next(self._edits)}")(world, _MARKER)
            until(self._has_followed, "the operator follows an edit")
            others = [call for call in world.proxy.calls[mark:] if call.is_write and _MARKER not in call.name]
            if not others and not world.proxy.is_busy:
                return

    def _has_followed(self) -> bool:
        body = self._world.api.get("agents", _MARKER) or {}
        seen = (body.get("status") or {}).get("observedGeneration")
        return bool(seen == body["metadata"]["generation"])

    def _writes(self, mark: int, name: str) -> tuple[str, ...]:
        return tuple(write for write, had_effect in self._all_writes(mark, name) if had_effect)

    def _all_writes(self, mark: int, name: str) -> list[tuple[str, bool]]:
        """The writes since `mark`, and whether the object has another version since then."""
        versions: set[tuple[str, str]] = set()
        written = []
        for number, call in enumerate(list(self._world.proxy.calls)):
            # Not Events, which are best effort, and bear no name in their address.
            if not call.is_write or name not in call.name or not 200 <= call.status < 300:
                continue
            version = call.path.removesuffix("/status"), call.version
            if number >= mark:
                written.append((str(call).replace(name, "NAME"), call.verb == "DELETE" or version not in versions))
            versions.add(version)
        return written

    def _state(self, name: str) -> str:
        owned = {f"{name}-agent", f"{name}-mcp", name}
        found: dict[str, Any] = {}
        for plural in ("agents", "mcpservers", *ALWAYS, *SOMETIMES):
            for body in self._world.api.items(plural):
                if body["metadata"]["name"] in owned:
                    found[f"{plural} {body['metadata']['name']}"] = _comparable(body)
        return _OWN.sub("", json.dumps(found, sort_keys=True)).replace(name, "NAME")


def needless(run: Run, wanted: Run) -> list[str]:
    """Writes beyond those of a run without a kill."""
    return sorted((Counter(run.writes) - Counter(wanted.writes)).elements())


def _comparable(body: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in body["metadata"].items() if key not in _MADE_BY_SERVER}
    for reference in metadata.get("ownerReferences", ()):
        reference.pop("uid")
    kept = {**body, "metadata": metadata}
    for condition in (kept.get("status") or {}).get("conditions", ()):
        condition.pop("lastTransitionTime", None)
    for address in ("clusterIP", "clusterIPs"):
        kept.get("spec", {}).pop(address, None)
    return kept
