"""A reconciler among fakes: the strict API server of operator_world, a clock, an MCP server that lists its tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from operator_world import FakeApiServer, pod
from ropewalk_operator.apply import Applier
from ropewalk_operator.cache import Cache
from ropewalk_operator.discovery import Discovery, Target
from ropewalk_operator.facts import Discovered, Tool
from ropewalk_operator.kinds import Key
from ropewalk_operator.pods import Pod
from ropewalk_operator.reconcile import Options, Reconciler

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z, when the pods of operator_world are created
AGENT = Key("Agent", "default", "calc")
SERVER = Key("MCPServer", "default", "math")
OPTIONS = Options("ropewalk.dev/agent:0.1.0", "ropewalk.dev/mcp-stdio:0.1.0", "IfNotPresent")
AGENT_CHILDREN = ["ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "Deployment"]
TOOLS = Discovered((Tool("add", "adds", "sha256:1"),), "2025-11-25", "math", "1.0")

STATUS = "STATUS Agent calc"
CORRECTED = "EVENT Normal DriftCorrected"


@dataclass
class World:
    """The fakes around one reconciler."""

    api: FakeApiServer = field(default_factory=FakeApiServer)
    cache: Cache = field(default_factory=Cache)
    now: float = NOW
    clock_is_off_by: float = 0.0
    """How many seconds the operator's clock on the wall is ahead of the API server's."""
    reasons: list[str] = field(default_factory=list)
    pressed: bool = False
    asked: list[str] = field(default_factory=list)
    answer: Discovered | Exception = TOOLS
    told: list[Key] = field(default_factory=list)
    woken: list[Key] = field(default_factory=list)
    options: Options = OPTIONS
    hurried: list[Key] = field(default_factory=list)
    """Those of `woken` that are urgent."""
    _ask_ready: Any = None

    def __post_init__(self) -> None:
        async def ask_ready(_pod: Pod) -> list[str]:
            return self.reasons

        async def ask(target: Target) -> Discovered:
            self.asked.append(target.url or ",".join(pod.agent for pod in target.agents))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        self.discovery = Discovery(self.told.append, every_seconds=600, clock=lambda: self.now, ask=ask)
        self.applier = Applier(self.api, self.cache)
        self.restart(ask_ready)

    async def discovered(self, key: Key = SERVER) -> None:
        """Reconcile until the server's tools have been asked for."""
        await self.reconciler.reconcile(key)
        record = self.discovery._records[key]
        if record.task is not None:
            await record.task
        await self.reconciler.reconcile(key)

    def restart(self, ask_ready: Any = None) -> None:
        """A new process: nothing is remembered but what the API server holds."""
        if ask_ready is None:
            self.cache = Cache()
            self.api.fill(self.cache)
            self.applier = Applier(self.api, self.cache)
            self.discovery._records.clear()
            ask_ready = self._ask_ready
        self._ask_ready = ask_ready
        self.reconciler = Reconciler(
            cache=self.cache,
            applier=self.applier,
            connection=self.api,
            discovery=self.discovery,
            ask_ready=ask_ready,
            options=self.options,
            enqueue=self._wake,
            is_pressed=lambda: self.pressed,
            clock=lambda: self.now + self.clock_is_off_by,
            uptime=lambda: self.now,
            server_clock=lambda: self.now,
        )

    def _wake(self, key: Key, *, urgent: bool = False) -> None:
        self.woken.append(key)
        if urgent:
            self.hurried.append(key)

    def put(self, body: dict[str, Any]) -> None:
        """Somebody else writes an object and the watch shows it."""
        self.cache.see(body["kind"], self.api.put(body))

    async def settle(self, key: Key = AGENT) -> None:
        """Reconcile until nothing is written, and forget what was written."""
        for _ in range(5):
            before = len(self.api.writes)
            await self.reconciler.reconcile(key)
            if len(self.api.writes) == before:
                break
        else:
            raise AssertionError(f"it never settles: {self.api.writes}")
        self.api.writes.clear()
        self.api.reads.clear()

    def change(self, kind: str, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Somebody edits an object by hand."""
        body = self.api.objects[Key(kind, "default", name)]
        change(body)
        self.put(body)

    def lose(self, kind: str, name: str) -> None:
        """Somebody deletes an object."""
        self.cache.lose(kind, self.api.objects.pop(Key(kind, "default", name)))

    def condition(self, type_: str, key: Key = AGENT) -> dict[str, Any]:
        conditions: list[dict[str, Any]] = self.api.objects[key]["status"]["conditions"]
        return next(each for each in conditions if each["type"] == type_)

    def rolled_out(self, key: Key = AGENT) -> None:
        """The Deployment's controller has done its work and the pod is ready."""
        name = f"{key.name}-{'agent' if key.kind == 'Agent' else 'mcp'}"
        deployment = self.api.objects[Key("Deployment", "default", name)]
        config_hash = deployment["spec"]["template"]["metadata"]["annotations"]["ropewalk.dev/config-hash"]
        generation = deployment["metadata"]["generation"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), 1)
        deployment["status"] = {"observedGeneration": generation, **counts}
        self.put(deployment)
        self.put(pod(key.name, kind=key.kind, config_hash=config_hash, ready=True))


def created(*kinds: str, name: str = "calc-agent") -> list[str]:
    """The writes that make these children."""
    return [f"APPLY {kind} {name}" for kind in kinds]


def edited(**fields: Any) -> Callable[[World], None]:
    """The user changes fields of the Agent's spec."""

    def edit(world: World) -> None:
        def change(body: dict[str, Any]) -> None:
            body["spec"].update(fields)
            body["metadata"]["generation"] += 1

        world.change("Agent", "calc", change)

    return edit
