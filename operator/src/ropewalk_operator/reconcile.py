"""One reconcile: read what is known, render, apply, observe, judge, report. The visible list of steps.

Level-triggered: it looks at the world as it is and never at what happened. With nothing to do it writes nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ropewalk_operator import api, names, observe, pod_events, status
from ropewalk_operator.apply import Applier, Outcome, Writer, may_take
from ropewalk_operator.cache import Cache
from ropewalk_operator.changes import news
from ropewalk_operator.checks import DELETION_BLOCKED, DISCOVERY_FAILED
from ropewalk_operator.children import Child
from ropewalk_operator.deletions import Deletions
from ropewalk_operator.discovery import Discovery, View
from ropewalk_operator.facts import Facts, Workload, workload
from ropewalk_operator.kinds import AUTOSCALER, CLAIM, DEPLOYMENT, MCP_SERVER, MODEL, SERVICE, Key, Kind
from ropewalk_operator.prompts import Prompts
from ropewalk_operator.references import chosen_model, named_servers
from ropewalk_operator.render.agent import agent_children
from ropewalk_operator.render.claim import Claimed, claimed_of, why_kept
from ropewalk_operator.render.mcpserver import mcp_children
from ropewalk_operator.render.pod import config_hash
from ropewalk_operator.targets import admitted, agents_target, server_target
from ropewalk_operator.users import Users

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 1.0
LOOK_AGAIN_AT_MOST_SECONDS = 30.0
BLOCKED_SECONDS = 10.0


class Connection(Writer, pod_events.Reader, Protocol):
    """Reading and writing."""


class Enqueue(Protocol):
    """Has a resource looked at; what a user has just changed is urgent."""

    def __call__(self, key: Key, *, urgent: bool = False) -> None:
        """Have it looked at soon."""


@dataclass(frozen=True)
class Options:
    """What the renderers need from the operator's settings."""

    agent_image: str
    stdio_image: str
    pull_policy: str
    scrapers: Mapping[str, Any] = field(default_factory=dict)
    fixed_user: bool = True


class Reconciler:
    """`clock` gives seconds since the epoch, `server_clock` those of the API server, and `uptime` some that never go
    back; `is_pressed` tells whether other resources wait that a user has just changed.

    Everything that talks to the outside is an argument.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        applier: Applier,
        connection: Connection,
        discovery: Discovery,
        ask_ready: observe.AskReady,
        options: Options,
        enqueue: Enqueue,
        is_pressed: Callable[[], bool],
        clock: Callable[[], float],
        uptime: Callable[[], float],
        server_clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._applier = applier
        self._pod_events = pod_events.PodEvents(connection, enqueue)
        self._discovery = discovery
        self._ask_ready = ask_ready
        self._options = options
        self._enqueue = enqueue
        self._is_pressed = is_pressed
        self._clock = clock
        self._server_clock = server_clock
        self._deletions = Deletions(uptime)
        self._users = Users(cache)
        self._prompts = Prompts(cache, connection)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one resource up to date; the seconds after which to look again, or None.

        Raises ApiError to be retried.
        """
        body = self._cache.resources.get(key)
        if body is None or key.namespace in self._cache.left_out:
            self._forget(key)
            return None
        now = self._clock()
        previous = body.get("status") or {}
        if "deletionTimestamp" in body["metadata"]:
            # Children that the garbage collector deletes must not come back.
            return await self._deleted(key, body, previous, now)
        if key.kind == MODEL.name:
            facts, outcome, again = _model(key, body), Outcome(), None
            new = status.model_status(facts, previous, now)
        elif key.kind == MCP_SERVER.name:
            facts, outcome, again = await self._mcp_server(key, body)
            new = status.mcp_status(facts, previous, now)
        else:
            facts, outcome, again = await self._agent(key, body)
            new = status.agent_status(facts, previous, now)
        if not previous and self._is_pressed():
            # Many are new at once: the children of the others go first, then what there is to say of this one.
            return 0.0
        if not self._is_outdated(key, body):
            await self._report(key, body, new, outcome, now)
        return again

    async def _deleted(
        self, key: Key, body: Mapping[str, Any], previous: Mapping[str, Any], now: float
    ) -> float | None:
        metadata = body["metadata"]
        wait = self._deletions.wait_seconds(key, metadata["uid"], metadata.get("finalizers") or ())
        is_told = any(c["reason"] == DELETION_BLOCKED for c in previous.get("conditions") or ())
        if wait <= 0 or is_told:
            # What has been said once is said anew as finalizers come and go.
            new = status.blocked_deletion_status(key.kind, metadata, previous, now)
            await self._report(key, body, new, Outcome(), now)
        return wait if wait > 0 else None

    async def _agent(self, key: Key, body: Mapping[str, Any]) -> tuple[Facts, Outcome, float | None]:
        facts = self._blank(key, body)
        try:
            agent = api.agent(body)
        except api.InvalidSpec as error:
            return replace(facts, invalid=str(error)), Outcome(), None
        claim = self._claim(key, agent)
        named = named_servers(agent, self._cache, self._discovery.known)
        chosen = chosen_model(agent, self._cache)
        facts = replace(
            facts,
            generation=agent.generation,
            url=names.agent_url(agent),
            selector=names.selector_text(agent),
            replicas=agent.wanted_replicas,
            autoscaled=agent.is_autoscaled,
            suspended=agent.suspend,
            note=_said_of(claim, agent),
            servers=named.views,
            model=chosen.model.id if chosen.model else facts.model,
            missing_model=chosen.missing,
            missing_servers=named.missing,
            invalid="; ".join(said for said in (chosen.invalid, named.invalid) if said) or None,
            clashes=named.clashes,
        )
        prompt, problem = await self._prompts.of(key, agent)
        facts = replace(facts, prompt_problem=problem)
        if facts.invalid or facts.missing_servers or chosen.model is None or prompt is None:
            # Nothing new is applied. What runs goes on running.
            return facts, Outcome(), BLOCKED_SECONDS if problem else None
        manifests = agent_children(
            agent,
            model=chosen.model,
            system_prompt=prompt,
            servers=named.servers,
            image=self._options.agent_image,
            pull_policy=self._options.pull_policy,
            claimed=_claimed(claim) if claim else None,
            fixed_user=self._options.fixed_user,
        )
        facts, outcome, again = await self._apply_and_observe(key, agent, facts, manifests)
        for server in self._users.see(key, named.servers, facts):
            self._enqueue(server)
        return facts, outcome, again

    async def _mcp_server(self, key: Key, body: Mapping[str, Any]) -> tuple[Facts, Outcome, float | None]:
        facts = self._blank(key, body)
        try:
            server = api.mcp_server(body)
        except api.InvalidSpec as error:
            return replace(facts, invalid=str(error)), Outcome(), None
        facts = replace(
            facts,
            generation=server.generation,
            url=names.mcp_url(server),
            selector="" if server.remote else names.selector_text(server),
            replicas=server.wanted_replicas,
            autoscaled=server.is_autoscaled,
            remote=server.remote is not None,
            needs_agent=server.is_asked_with_secrets,
        )
        manifests = mcp_children(
            server,
            stdio_image=self._options.stdio_image,
            pull_policy=self._options.pull_policy,
            sticky=self._is_sticky(key, server),
            scrapers=self._options.scrapers,
            fixed_user=self._options.fixed_user,
        )
        facts, outcome, again = await self._apply_and_observe(key, server, facts, manifests)
        facts, due = self._with_tools(key, server, body, facts)
        return facts, outcome, _earliest(again, due)

    def _with_tools(
        self, key: Key, server: api.MCPServer, body: Mapping[str, Any], facts: Facts
    ) -> tuple[Facts, float | None]:
        """What is known of its tools, which are asked for where that is due, and when it is due again."""
        if server.is_asked_with_secrets:
            target = agents_target(server, self._users.pods(key))
        else:
            target = server_target(server, facts)
        view = self._discovery.look(key, target)
        if server.is_asked_with_secrets and target is None and view.error is not None:
            # Whoever failed to reach it is gone, and says nothing any more.
            view = View(view.discovered, pending=view.discovered is None)
        # After a restart nobody has answered yet; what the status says of this generation still holds.
        said = _said_before(body, facts.url) if view.pending else {}
        failed = said.get("reason") == DISCOVERY_FAILED and target is not None
        known = replace(
            facts,
            discovered=admitted(view.discovered, server.tools) if view.discovered else None,
            discovery_error=said["message"] if failed else view.error,
            discovery_pending=view.pending and said.get("status") != "True",
            asked_agents=tuple(pod.agent for pod in target.agents) if target else (),
        )
        return known, view.next_in_seconds

    def _is_sticky(self, key: Key, server: api.MCPServer) -> bool:
        """Whether a session of the server is known to one of its pods only."""
        if server.stdio and server.stdio.session_mode == "perSession":
            return True
        if (known := self._discovery.known(key)) is not None:
            return known.has_session
        # After a restart nothing has been asked yet: the Service stays as it is.
        service = self._own(SERVICE, key)
        if service is None or service.content is None:
            return False
        return bool(json.loads(service.content)["spec"].get("sessionAffinity") == "ClientIP")

    async def _apply_and_observe(
        self, key: Key, owner: names.Owner, facts: Facts, manifests: list[dict[str, Any]]
    ) -> tuple[Facts, Outcome, float | None]:
        outcome = await self._applier.apply_children(owner, manifests)
        facts = replace(
            facts,
            taken=tuple(outcome.taken),
            waiting=tuple(outcome.waiting),
            refused=tuple(outcome.refused),
            config_hash=config_hash(manifests),
            deployment=self._deployment(key) if manifests else None,
            replicas=self._scaled_to(key, owner, facts.replicas),
            autoscaler_idle=self._autoscaler_idle(key, owner),
            pods=tuple(self._cache.pods_of(key)),
        )
        again: float | None = None
        if outcome.taken or outcome.waiting or outcome.refused:
            again = BLOCKED_SECONDS
        elif asked := [pod for pod in facts.fresh_pods if not pod.ready and (pod.creating or pod.running)]:
            # Of the others the watch tells all there is; these are asked until they are ready.
            now = self._server_clock()
            extra = await observe.extra_trouble(asked, self._pod_events, self._ask_ready, now)
            facts = replace(facts, extra_trouble=extra)
            age = now - min(pod.created for pod in asked)
            again = min(max(LOOK_AGAIN_SECONDS, age / 10), LOOK_AGAIN_AT_MOST_SECONDS)
        return facts, outcome, again

    def _blank(self, key: Key, body: Mapping[str, Any]) -> Facts:
        previous = body.get("status") or {}
        return Facts(
            kind=key.kind,
            name=key.name,
            generation=body["metadata"]["generation"],
            # What runs goes on running at its address, and is counted by its selector, also when the spec is invalid.
            url=previous.get("url", ""),
            selector=previous.get("selector", ""),
            model=previous.get("model", ""),
            deployment=self._deployment(key),
            pods=tuple(self._cache.pods_of(key)),
            discovery_pending=True,
        )

    def _own(self, kind: Kind, key: Key) -> Child | None:
        """The child of this kind, unless what has its name is another's, be it of a former owner of this name."""
        child = self._cache.children.get(Key(kind.name, key.namespace, names.child_of(key.kind, key.name)))
        body = self._cache.resources.get(key)
        if child is None or body is None or child.owner != key:
            return None
        return child if child.owner_uid == body["metadata"]["uid"] else None

    def _deployment(self, key: Key) -> Workload | None:
        child = self._own(DEPLOYMENT, key)
        return workload(child.generation, child.status) if child is not None else None

    def _scaled_to(self, key: Key, owner: names.Owner, asked: int) -> int:
        """How many pods there shall be: with autoscaling, what the Deployment says."""
        deployment = self._own(DEPLOYMENT, key)
        has = deployment.replicas if owner.is_autoscaled and deployment is not None else None
        return asked if has is None else has

    def _autoscaler_idle(self, key: Key, owner: names.Owner) -> str:
        child = self._own(AUTOSCALER, key)
        return str(child.status["idle"]) if owner.is_autoscaled and child is not None else ""

    def _claim(self, key: Key, agent: api.Agent) -> Child | None:
        child = self._cache.children.get(Key(CLAIM.name, key.namespace, names.child(agent)))
        return child if child is not None and may_take(child, agent) else None

    async def _report(
        self, key: Key, body: Mapping[str, Any], new: status.Status, outcome: Outcome, now: float
    ) -> None:
        previous = body.get("status") or {}
        patch = status.changed(previous, new)
        if patch is not None:
            concerned = await self._applier.patch_status(body, patch)
            if concerned is None:
                return
            for other in concerned:
                # Its own key is among them only where its user has changed it meanwhile.
                self._enqueue(other, urgent=other == key)
            self._log(key, previous, new)
        for type_, reason, message in news(previous, new, outcome.corrected):
            await self._applier.tell(body, type_, reason, message, now)

    def _is_outdated(self, key: Key, body: Mapping[str, Any]) -> bool:
        """Replaced or deleted meanwhile, and in the queue again: the judgement is about something else."""
        latest = self._cache.resources.get(key)
        return latest is None or latest["metadata"]["uid"] != body["metadata"]["uid"]

    def _log(self, key: Key, previous: Mapping[str, Any], new: status.Status) -> None:
        old = {c["type"]: c for c in previous.get("conditions") or ()}
        for condition in new["conditions"]:
            if old.get(condition["type"], {}).get("status") != condition["status"]:
                said = {name: condition[name] for name in ("type", "status", "reason", "message")}
                logger.info("condition changed", extra={"fields": {"object": str(key), "condition": said}})

    def _forget(self, key: Key) -> None:
        self._deletions.forget(key)
        if key.kind == MODEL.name:
            return
        for server in self._users.forget(key):
            self._enqueue(server)
        self._applier.forget(names.child_of(key.kind, key.name), key.namespace)
        self._prompts.forget(key)
        if key.kind == MCP_SERVER.name:
            self._discovery.forget(key)


def _model(key: Key, body: Mapping[str, Any]) -> Facts:
    facts = Facts(kind=key.kind, name=key.name, generation=body["metadata"]["generation"])
    try:
        api.model(body)
    except api.InvalidSpec as error:
        return replace(facts, invalid=str(error))
    return facts


def _said_of(claim: Child | None, agent: api.Agent) -> str:
    """What the user should know of the agent's PersistentVolumeClaim, where the spec is right all the same."""
    if claim is None:
        return ""
    it = f"the spec is right; the PersistentVolumeClaim {claim.key.name}"
    if agent.sessions.store != "file":
        return "" if claim.deleting else f"{it} still holds the sessions of store file: delete it if nobody needs them"
    if claim.deleting:
        return f"{it} was deleted: it and its sessions go when no pod uses it any more, and an empty one follows"
    has = _claimed(claim)
    why = why_kept(agent.sessions.file.size, has) if has else ""
    return f"{it} keeps its {has.size}, {why}" if has and why else ""


def _claimed(claim: Child) -> Claimed | None:
    return claimed_of(claim.content, claim.status["phase"])


def _said_before(body: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    """What the status says of the tools of this generation at this address; empty where it says nothing."""
    previous = body.get("status") or {}
    if previous.get("url") != url:
        return {}
    said: Iterator[Mapping[str, Any]] = (c for c in previous.get("conditions") or () if c["type"] == "ToolsDiscovered")
    return next((c for c in said if c.get("observedGeneration") == body["metadata"]["generation"]), {})


def _earliest(*delays: float | None) -> float | None:
    return min((delay for delay in delays if delay is not None), default=None)
