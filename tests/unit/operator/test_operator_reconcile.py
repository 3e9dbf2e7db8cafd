"""Reconciliation as a table: a row is a sentence, the world before, and the wanted writes; any other write fails."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from operator_world import FakeApiServer, agent, mcp_server, pod
from ropewalk_operator.apply import Applier
from ropewalk_operator.cache import Cache
from ropewalk_operator.discovery import Discovery
from ropewalk_operator.facts import Discovered, Tool
from ropewalk_operator.kinds import Key
from ropewalk_operator.kube import ApiError
from ropewalk_operator.reconcile import Options, Reconciler

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z, when the pods of operator_world are created
AGENT = Key("Agent", "default", "calc")
SERVER = Key("MCPServer", "default", "math")
AGENT_CHILDREN = ["ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "Deployment"]
TOOLS = Discovered((Tool("add", "adds", "sha256:1"),), "2025-11-25", "math", "1.0")


@dataclass
class World:
    """The fakes around one reconciler."""

    api: FakeApiServer = field(default_factory=FakeApiServer)
    cache: Cache = field(default_factory=Cache)
    now: float = NOW
    reasons: list[str] = field(default_factory=list)
    pressed: bool = False
    asked: list[str] = field(default_factory=list)
    answer: Discovered | Exception = TOOLS
    told: list[Key] = field(default_factory=list)
    woken: list[Key] = field(default_factory=list)
    _ask_ready: Any = None

    def __post_init__(self) -> None:
        async def ask_ready(_ip: str) -> list[str]:
            return self.reasons

        async def ask(url: str) -> Discovered:
            self.asked.append(url)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        self.discovery = Discovery(self.told.append, every_seconds=600, clock=lambda: self.now, ask=ask)
        self.applier = Applier(self.api, self.cache)
        self.restart(ask_ready)

    def restart(self, ask_ready: Any = None) -> None:
        """A new process: nothing is remembered but what the API server holds."""
        if ask_ready is None:
            self.cache = Cache()
            self.api.fill(self.cache)
            self.applier = Applier(self.api, self.cache)
            ask_ready = self._ask_ready
        self._ask_ready = ask_ready
        self.reconciler = Reconciler(
            cache=self.cache,
            applier=self.applier,
            connection=self.api,
            discovery=self.discovery,
            ask_ready=ask_ready,
            options=Options("ropewalk.dev/agent:0.1.0", "IfNotPresent"),
            enqueue=self.woken.append,
            is_pressed=lambda: self.pressed,
            clock=lambda: self.now,
        )

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


@pytest.fixture
def world() -> World:
    return World()


def created(*kinds: str, name: str = "calc-agent") -> list[str]:
    return [f"APPLY {kind} {name}" for kind in kinds]


# Rows: a sentence, what happens to a settled Agent "calc" with its MCPServer "math", and the wanted writes.
@dataclass(frozen=True)
class Row:
    sentence: str
    happens: Callable[[World], None]
    wanted: list[str]


def spec(**fields: Any) -> Callable[[World], None]:
    def edit(world: World) -> None:
        def change(body: dict[str, Any]) -> None:
            body["spec"].update(fields)
            body["metadata"]["generation"] += 1

        world.change("Agent", "calc", change)

    return edit


def by_hand(kind: str, change: Callable[[dict[str, Any]], None]) -> Callable[[World], None]:
    return lambda world: world.change(kind, "calc-agent", change)


def being_deleted(world: World) -> None:
    world.change("Agent", "calc", lambda body: body["metadata"].update(deletionTimestamp="now"))
    world.lose("Deployment", "calc-agent")


def gone(world: World) -> None:
    world.lose("Agent", "calc")
    world.lose("Service", "calc-agent")


STATUS = "STATUS Agent calc"
CORRECTED = "EVENT Normal DriftCorrected"

ROWS = [
    Row("in the steady state nothing is written", lambda _: None, []),
    Row("a restart of the operator writes nothing", World.restart, []),
    Row(
        "an edited system prompt changes the settings file and rolls the pods",
        spec(systemPrompt="Be brief."),
        [*created("ConfigMap", "Deployment"), STATUS],
    ),
    Row("scaling writes the Deployment only", spec(replicas=3), [*created("Deployment"), STATUS]),
    Row("suspending scales the Deployment down", spec(suspend=True), [*created("Deployment"), STATUS]),
    Row(
        "a service account of the user's own replaces the child",
        spec(pod={"serviceAccountName": "mine"}),
        [*created("Deployment"), "DELETE ServiceAccount calc-agent", STATUS],
    ),
    Row(
        "a deleted Deployment comes back",
        lambda world: world.lose("Deployment", "calc-agent"),
        [*created("Deployment"), CORRECTED],
    ),
    Row(
        "an image changed by hand is put back",
        by_hand("Deployment", lambda body: body["spec"]["template"]["spec"]["containers"][0].update(image="evil")),
        [*created("Deployment"), CORRECTED],
    ),
    Row(
        "settings changed by hand are put back",
        by_hand("ConfigMap", lambda body: body["data"].update({"agent.json": "{}"})),
        [*created("ConfigMap"), CORRECTED],
    ),
    Row(
        "a Service whose selector was widened is put back",
        by_hand("Service", lambda body: body["spec"]["selector"].update(extra="x")),
        [*created("Service"), CORRECTED],
    ),
    Row(
        "a label that was removed is put back",
        by_hand("NetworkPolicy", lambda body: body["metadata"]["labels"].pop("app.kubernetes.io/name")),
        [*created("NetworkPolicy"), CORRECTED],
    ),
    Row(
        "a child that lost its owner is taken back",
        by_hand("Service", lambda body: body["metadata"].pop("ownerReferences")),
        [*created("Service"), CORRECTED],
    ),
    Row(
        "a stamp that speaks of another wish makes the child be written anew",
        by_hand("Service", lambda body: body["metadata"]["annotations"].update({"ropewalk.dev/desired-hash": "old"})),
        [*created("Service"), CORRECTED],
    ),
    Row(
        "what others add to a child is left alone",
        by_hand("Service", lambda body: body["metadata"].setdefault("annotations", {}).update({"other": "1"})),
        [],
    ),
    Row(
        "an MCPServer that goes away stops what is new and leaves what runs",
        lambda world: world.lose("MCPServer", "math"),
        [STATUS, "EVENT Warning McpServerNotFound"],
    ),
    Row(
        "a spec that is invalid stops what is new and leaves what runs",
        spec(model={"provider": "openai", "id": "m"}),
        [STATUS, "EVENT Warning InvalidSpec"],
    ),
    Row(
        "a moved MCPServer changes the settings, the policy and the pods",
        lambda world: world.change("MCPServer", "math", lambda body: body["spec"].update(port=9000)),
        created("ConfigMap", "NetworkPolicy", "Deployment"),
    ),
    Row(
        "an MCPServer that is no longer ready is reported",
        lambda world: world.put(mcp_server(ready=False)),
        [STATUS],
    ),
    Row(
        "an Agent that is being deleted gets nothing back",
        being_deleted,
        [],
    ),
    Row(
        "an Agent that is gone gets nothing back",
        gone,
        [],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
async def test_reconcile_writes_what_the_row_wants_and_no_more(row: Row, world: World) -> None:
    world.put(mcp_server(ready=True))
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle()
    row.happens(world)
    await world.reconciler.reconcile(AGENT)
    assert sorted(world.api.writes) == sorted(row.wanted)


async def test_a_new_agent_gets_its_children_and_a_status_with_the_deployment_after_the_others(world: World) -> None:
    world.put(agent())
    await world.reconciler.reconcile(AGENT)
    assert sorted(world.api.writes[:4]) == sorted(created(*AGENT_CHILDREN[:4]))
    assert world.api.writes[4:] == [*created("Deployment"), STATUS]


async def test_under_pressure_the_children_of_others_go_before_the_first_status(world: World) -> None:
    world.put(agent())
    world.pressed = True
    assert await world.reconciler.reconcile(AGENT) == 0.0
    assert STATUS not in world.api.writes
    world.pressed = False
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes[-1] == STATUS


async def test_an_agent_whose_mcp_server_is_missing_gets_no_child_until_it_exists(world: World) -> None:
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS, "EVENT Warning McpServerNotFound"]
    assert '"math"' in world.condition("Accepted")["message"]
    concerned = world.cache.see("MCPServer", world.api.put(mcp_server()))
    assert AGENT in concerned
    await world.reconciler.reconcile(AGENT)
    assert set(created(*AGENT_CHILDREN)) <= set(world.api.writes)
    assert world.condition("Accepted")["status"] == "True"
    assert world.condition("ToolsReady")["status"] == "False"


async def test_children_are_made_without_asking_first_whether_they_are_there(world: World) -> None:
    world.put(agent())
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == []


async def test_a_child_that_the_watches_have_not_shown_yet_is_applied_all_the_same(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.cache.children.clear()
    world.applier.forget("calc-agent", "default")
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == created("ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "Deployment")


@pytest.mark.parametrize("kind", AGENT_CHILDREN)
async def test_an_object_of_somebody_else_is_never_taken_over(kind: str, world: World) -> None:
    foreign = {"kind": kind, "metadata": {"name": "calc-agent", "namespace": "default"}}
    world.api.put(foreign)  # The watches have not shown it.
    before = world.api.objects[Key(kind, "default", "calc-agent")]
    world.put(agent())
    await world.reconciler.reconcile(AGENT)
    assert f"APPLY {kind} calc-agent" not in world.api.writes
    assert world.api.objects[Key(kind, "default", "calc-agent")] is before
    assert world.condition("Accepted")["reason"] == "ChildNameTaken"
    assert f"{kind} calc-agent" in world.condition("Accepted")["message"]


async def test_a_copy_of_a_child_is_not_taken_for_an_orphan(world: World) -> None:
    world.put(agent())
    await world.settle()
    copied = world.api.objects[Key("Service", "default", "calc-agent")]
    metadata = {key: value for key, value in copied["metadata"].items() if key not in ("ownerReferences", "uid")}
    world.put({**copied, "metadata": {**metadata, "name": "copy-agent"}})
    world.put(agent("copy"))
    key = Key("Agent", "default", "copy")
    await world.reconciler.reconcile(key)
    assert "APPLY Service copy-agent" not in world.api.writes
    assert world.condition("Accepted", key)["reason"] == "ChildNameTaken"


async def test_children_of_a_deleted_agent_of_the_same_name_are_waited_for(world: World) -> None:
    world.put(agent())
    await world.settle()
    reborn = agent()
    reborn["metadata"]["uid"] = "another"
    world.put(reborn)
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS]
    assert world.condition("Available")["reason"] == "WaitingForDeletion"


async def test_a_refused_child_is_reported_in_the_api_servers_words_and_the_deployment_waits(world: World) -> None:
    world.put(agent())
    world.api.refuse["Service"] = ApiError(403, "Forbidden", "exceeded quota: services=1")
    assert await world.reconciler.reconcile(AGENT) is not None
    assert "APPLY Deployment calc-agent" not in world.api.writes
    assert world.condition("Available")["reason"] == "ChildRefused"
    assert "exceeded quota" in world.condition("Ready")["message"]


async def test_a_list_that_server_side_apply_cannot_put_back_is_replaced_as_a_whole(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.change("Service", "calc-agent", lambda body: body["spec"]["ports"][0].update(port=9999))
    world.api.refuse["Service"] = ApiError(422, "Invalid", "spec.ports[1].name: Duplicate value")
    await world.reconciler.reconcile(AGENT)
    service = "Service calc-agent"
    assert world.api.writes == [f"APPLY {service}", f"MERGE {service}", f"APPLY {service}", CORRECTED]
    assert world.api.objects[Key("Service", "default", "calc-agent")]["spec"]["ports"][0]["port"] == 8080


async def test_an_api_server_that_is_down_is_an_error_to_be_retried(world: World) -> None:
    world.put(agent())
    world.api.refuse["ConfigMap"] = ApiError(503, "Unavailable", "no")
    with pytest.raises(ApiError):
        await world.reconciler.reconcile(AGENT)


@pytest.mark.parametrize(
    "change",
    [
        lambda pod_spec: pod_spec["containers"].append({"name": "sidecar", "image": "x"}),
        lambda pod_spec: pod_spec.update(initContainers=[{"name": "first", "image": "x"}]),
        lambda pod_spec: pod_spec.update(hostNetwork=True),
        lambda pod_spec: pod_spec["containers"][0].update(command=["evil"]),
    ],
    ids=["sidecar", "init container", "host network", "command"],
)
async def test_what_somebody_adds_to_a_pod_template_is_taken_away(
    change: Callable[[dict[str, Any]], None], world: World
) -> None:
    world.put(agent())
    await world.settle()
    key = Key("Deployment", "default", "calc-agent")
    before = world.api.objects[key]["spec"]
    wanted = copy.deepcopy(before)
    world.change("Deployment", "calc-agent", lambda body: change(body["spec"]["template"]["spec"]))
    world.api.keep_additions = True
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == ["APPLY Deployment calc-agent", "MERGE Deployment calc-agent", CORRECTED]
    assert world.api.objects[key]["spec"] == wanted
    world.api.writes.clear()
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_what_an_admission_webhook_changes_is_not_fought(world: World) -> None:
    world.put(agent())
    apply = world.api.apply

    async def mutating(kind: Any, namespace: str, name: str, manifest: Any, **options: bool) -> dict[str, Any]:
        await apply(kind, namespace, name, manifest, **options)
        stored = world.api.objects[Key(kind.name, namespace, name)]
        if kind.name == "Deployment":
            stored["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror/agent"
        return {**stored}

    world.api.apply = mutating  # type: ignore[method-assign]
    await world.settle()
    world.change("Deployment", "calc-agent", lambda body: body.update(status={"observedGeneration": 0}))
    assert await world.reconciler.reconcile(AGENT) is None
    assert world.api.writes == []
    world.change("Deployment", "calc-agent", lambda body: body["spec"].update(replicas=7))
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [*created("Deployment"), CORRECTED], "a person's change is still put back"


async def test_an_agent_whose_pod_is_ready_is_ready_and_says_so_once(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == [STATUS, "EVENT Normal Ready"]
    assert world.condition("Ready")["status"] == "True"
    world.api.writes.clear()
    world.now += 100
    await world.reconciler.reconcile(AGENT)
    assert world.api.writes == []


async def test_a_pod_that_is_not_ready_is_asked_why_and_quoted(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.settle()
    world.reasons = ["mcp server math: connecting since 10:00 (connection refused)"]
    body = next(body for key, body in world.api.objects.items() if key.kind == "Pod")
    body["status"]["conditions"][1]["status"] = "False"
    world.put(body)
    assert await world.reconciler.reconcile(AGENT) == 1.0
    assert "connection refused" in world.condition("Ready")["message"]
    assert world.condition("Available")["reason"] == "NotReady"


async def test_the_events_of_a_pod_that_hangs_in_creation_are_quoted(world: World) -> None:
    world.put(agent())
    await world.settle()
    deployment = world.api.objects[Key("Deployment", "default", "calc-agent")]
    config_hash = deployment["spec"]["template"]["metadata"]["annotations"]["ropewalk.dev/config-hash"]
    stuck = pod(config_hash=config_hash, state={"waiting": {"reason": "ContainerCreating"}})
    world.put(stuck)
    message = 'MountVolume.SetUp failed for volume "model-key": secret "key" not found'
    world.api.events = [{"type": "Warning", "reason": "FailedMount", "message": message, "lastTimestamp": "2026"}]
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == [], "a pod that has just begun is not asked about"
    world.now += 3
    await world.reconciler.reconcile(AGENT)
    assert world.condition("Available")["reason"] == "FailedMount"
    assert 'secret "key" not found' in world.condition("Ready")["message"]


async def test_a_system_prompt_from_a_config_map_is_read_once_for_each_version(world: World) -> None:
    prompts = {"kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": "default"}, "data": {"calc": "Add."}}
    world.put(prompts)
    world.put(agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "calc"}}))
    await world.settle()
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == []
    changed = {**prompts, "data": {"calc": "Subtract."}}
    assert world.cache.see("ConfigMap", world.api.put(changed)) == {AGENT}
    await world.reconciler.reconcile(AGENT)
    assert world.api.reads == ["GET ConfigMap prompts"]
    assert "Subtract." in world.api.objects[Key("ConfigMap", "default", "calc-agent")]["data"]["agent.json"]


@pytest.mark.parametrize(
    ("data", "said"), [(None, "not found"), ({}, 'has no key "calc"'), ({"calc": ""}, "has nothing in the key")]
)
async def test_a_system_prompt_that_is_not_there_is_reported(
    data: dict[str, str] | None, said: str, world: World
) -> None:
    if data is not None:
        world.put({"kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": "default"}, "data": data})
    world.put(agent(systemPromptFrom={"configMapKeyRef": {"name": "prompts", "key": "calc"}}))
    assert await world.reconciler.reconcile(AGENT) is not None
    assert world.condition("Accepted")["reason"] == "SystemPromptNotFound"
    assert said in world.condition("Accepted")["message"]
    assert not any(write.startswith("APPLY") for write in world.api.writes)


async def discovered(world: World) -> None:
    """Reconcile until the tools have been asked for."""
    await world.reconciler.reconcile(SERVER)
    record = world.discovery._records[SERVER]
    if record.task is not None:
        await record.task
    await world.reconciler.reconcile(SERVER)


async def test_an_mcp_server_is_ready_once_its_pod_has_listed_its_tools(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "Unknown"
    world.rolled_out(SERVER)
    await discovered(world)
    assert world.asked == ["http://10.0.0.9:8000/mcp"]
    assert world.told == [SERVER]
    assert world.condition("Ready", SERVER)["status"] == "True"
    assert world.api.objects[SERVER]["status"]["tools"] == [{"name": "add", "description": "adds", "hash": "sha256:1"}]
    assert "EVENT Normal ToolsDiscovered" in world.api.writes
    world.api.writes.clear()
    world.now += 100
    await world.reconciler.reconcile(SERVER)
    assert world.api.writes == []


async def test_another_path_of_the_same_pods_is_asked_for_its_tools(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await discovered(world)

    def move(body: dict[str, Any]) -> None:
        body["spec"]["path"] = "/other"
        body["metadata"]["generation"] += 1

    world.change("MCPServer", "math", move)
    await world.reconciler.reconcile(SERVER)
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "Unknown"
    await discovered(world)
    assert world.asked == ["http://10.0.0.9:8000/mcp", "http://10.0.0.9:8000/other"]
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"


async def test_an_invalid_spec_keeps_address_and_selector_of_what_runs(world: World) -> None:
    world.put(agent())
    await world.settle()
    spec(model={"provider": "openai", "id": "m"})(world)
    await world.reconciler.reconcile(AGENT)
    status = world.api.objects[AGENT]["status"]
    assert status["conditions"][0]["reason"] == "InvalidSpec"
    assert status["url"] == "http://calc-agent.default.svc:8080"
    assert status["selector"] == "ropewalk.dev/agent=calc"


async def test_a_rollout_and_a_suspension_are_no_warnings(world: World) -> None:
    world.put(agent())
    await world.settle()
    world.rolled_out()
    await world.settle()
    spec(systemPrompt="Be brief.")(world)
    await world.reconciler.reconcile(AGENT)
    assert "EVENT Normal Progressing" in world.api.writes
    await world.settle()
    world.rolled_out()
    await world.settle()
    world.now += 100
    spec(suspend=True)(world)
    await world.reconciler.reconcile(AGENT)
    assert "EVENT Normal Suspended" in world.api.writes


async def test_a_restart_lists_the_tools_again_and_writes_nothing(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await discovered(world)
    world.api.writes.clear()
    world.discovery._records.clear()
    world.restart()
    world.now += 100
    await discovered(world)
    assert len(world.asked) == 2
    assert world.api.writes == []


async def test_an_mcp_server_that_does_not_list_its_tools_says_why_and_is_asked_again(world: World) -> None:
    world.answer = ConnectionError("connection refused")
    world.put(mcp_server(remote={"url": "https://tools.example.com/mcp"}))
    await discovered(world)
    assert world.condition("ToolsDiscovered", SERVER)["reason"] == "DiscoveryFailed"
    assert "connection refused" in world.condition("Ready", SERVER)["message"]
    world.answer = TOOLS
    world.now += 1
    await discovered(world)
    assert world.condition("Ready", SERVER)["status"] == "True"
    assert not any(key.kind == "Deployment" for key in world.api.objects)


async def test_an_mcp_server_whose_only_pod_goes_away_is_not_ready(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)
    world.rolled_out(SERVER)
    await discovered(world)
    world.lose("Pod", next(key.name for key in world.api.objects if key.kind == "Pod"))
    await world.reconciler.reconcile(SERVER)
    assert world.condition("Ready", SERVER)["status"] == "False"
    assert world.condition("ToolsDiscovered", SERVER)["status"] == "True"


async def test_an_image_server_that_becomes_remote_loses_its_children(world: World) -> None:
    world.put(mcp_server())
    await world.settle(SERVER)

    def move(body: dict[str, Any]) -> None:
        body["spec"] = {"remote": {"url": "https://tools.example.com/mcp"}}
        body["metadata"]["generation"] += 1

    world.change("MCPServer", "math", move)
    await world.reconciler.reconcile(SERVER)
    deleted = sorted(write for write in world.api.writes if write.startswith("DELETE"))
    assert deleted == [
        f"DELETE {kind} math-mcp" for kind in ("Deployment", "NetworkPolicy", "Service", "ServiceAccount")
    ]


async def test_agents_are_looked_at_when_the_operator_itself_reports_a_change_of_their_server(world: World) -> None:
    world.put(mcp_server())
    world.put(agent(mcpServers=[{"name": "math"}]))
    await world.settle(SERVER)
    world.woken.clear()
    world.rolled_out(SERVER)
    await world.reconciler.reconcile(SERVER)
    assert AGENT in world.woken


async def test_an_edit_that_arrives_together_with_the_status_is_not_lost(world: World) -> None:
    world.put(agent())
    edited = agent(systemPrompt="Be brief.")
    edited["metadata"]["generation"] = 2
    world.api.before_status = lambda: world.api.put(edited)
    await world.reconciler.reconcile(AGENT)
    assert world.woken == [AGENT], "the watch brings nothing newer than what the answer has brought"
    assert world.api.objects[AGENT]["status"]["observedGeneration"] == 1
