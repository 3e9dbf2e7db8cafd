"""What the watches have seen, and who refers to what: plain dicts. Never talks to anything, never judges.

Every method that takes something new returns the keys of the Agents, MCPServers and Models that it concerns. An object
that is already known at the same or a newer version concerns nobody, so that the operator's own writes do not come back
as work.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from sys import intern
from typing import Any

from ropewalk_operator import names, pods
from ropewalk_operator.children import Body, Child, child, version_of
from ropewalk_operator.kinds import AGENT, CONFIG_MAP, MCP_SERVER, MODEL, OWNERS, POD, RESOURCES, Key

TOMBSTONE_SECONDS = 600.0
"""How long the dead are remembered. A listing that takes longer is refused: the API server compacts every five minutes
what is older than that, where its --etcd-compaction-interval does not say otherwise."""
SHARED_CHARACTERS = 100
RESOURCE_KINDS = frozenset(kind.name for kind in RESOURCES)
UNSEEN = frozenset({"args", "autoscaling", "command", "networkPolicy", "pod", "replicas"})
"""Fields of an MCPServer that say how it runs, and nothing to the Agents that use it."""


class Cache:
    """The world as last seen. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.resources: dict[Key, dict[str, Any]] = {}
        """Agents, MCPServers and Models."""
        self.children: dict[Key, Child] = {}
        self.pods: dict[Key, pods.Pod] = {}
        self.config_maps: dict[tuple[str, str], tuple[str, int]] = {}
        """Uids and versions of all ConfigMaps: enough to know when one that is referred to has changed."""
        self.synced = False
        self.left_out: set[str] = set()
        """Namespaces that are not, or not all, known: what is seen of them is not to be acted upon."""
        self._pod_versions: dict[Key, int] = {}
        self._pods_of: dict[Key, set[Key]] = defaultdict(set)
        self._children_of: dict[str, set[Key]] = defaultdict(set)
        self._agents_of_server: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._agents_of_model: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._agents_of_config_map: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._gone: dict[str, tuple[int, float]] = {}

    def see(self, kind: str, body: Body) -> set[Key]:
        """Take in an object that exists."""
        buried = self._gone.get(body["metadata"]["uid"])
        if buried is not None and version_of(body) <= buried[0]:
            return set()
        if kind in RESOURCE_KINDS:
            return self._see_resource(kind, body)
        if kind == POD.name:
            return self._see_pod(body)
        if kind == CONFIG_MAP.name:
            return self._see_config_map(body)
        return self._see_child(kind, body)

    def lose(self, kind: str, body: Body) -> set[Key]:
        """Take in that an object is gone."""
        metadata = body["metadata"]
        self._bury(metadata["uid"], version_of(body))
        key = Key(kind, metadata["namespace"], metadata["name"])
        if kind in RESOURCE_KINDS:
            known = self.resources.get(key)
            return (
                self._drop_resource(key) if known is not None and known["metadata"]["uid"] == metadata["uid"] else set()
            )
        if kind == POD.name:
            known_pod = self.pods.get(key)
            return self._drop_pod(key) if known_pod is not None and known_pod.uid == metadata["uid"] else set()
        concerned: set[Key] = set()
        if kind == CONFIG_MAP.name:
            place = (key.namespace, key.name)
            if place in self.config_maps and self.config_maps[place][0] == metadata["uid"]:
                del self.config_maps[place]
                concerned |= self._agents_of_config_map.get(place, set())
        known_child = self.children.get(key)
        if known_child is not None and known_child.uid == metadata["uid"]:
            concerned |= self._drop_child(key)
        return concerned

    def lose_others(self, kind: str, namespace: str | None, listed: set[Key], version: int) -> set[Key]:
        """A whole listing was taken in, of all namespaces or one: what is older than it and was not listed is gone."""
        concerned: set[Key] = set()
        if kind == CONFIG_MAP.name:
            concerned |= self._lose_config_maps(namespace, listed, version)
        for key in self._known(kind):
            is_listed = key in listed or namespace not in (None, key.namespace)
            if not is_listed and self._version(key) <= version:
                # Of another listing, which was answered before, a page may still arrive.
                if kind in RESOURCE_KINDS:
                    self._bury(self.resources[key]["metadata"]["uid"], version)
                    concerned |= self._drop_resource(key)
                elif kind == POD.name:
                    self._bury(self.pods[key].uid, version)
                    concerned |= self._drop_pod(key)
                else:
                    self._bury(self.children[key].uid, version)
                    concerned |= self._drop_child(key)
        return concerned

    def leave_out(self, namespace: str) -> set[Key]:
        """Drop all that is known of a namespace that cannot be watched; the resources dropped. Nothing of it is taken
        for gone: seen again, it is what it was.
        """
        self.left_out.add(namespace)
        dropped = {key for key in self.resources if key.namespace == namespace}
        for key in dropped:
            self._drop_resource(key)
        for key in [key for key in self.pods if key.namespace == namespace]:
            self._drop_pod(key)
        for key in [key for key in self.children if key.namespace == namespace]:
            self._drop_child(key)
        for place in [place for place in self.config_maps if place[0] == namespace]:
            del self.config_maps[place]
        return dropped

    def children_of(self, uid: str) -> set[Key]:
        """Keys of the children that the owner with this uid controls."""
        return set(self._children_of.get(uid, ()))

    def pods_of(self, owner: Key) -> list[pods.Pod]:
        """The pods of an Agent or MCPServer, oldest first."""
        return sorted(
            (self.pods[key] for key in self._pods_of.get(owner, ())), key=lambda each: (each.created, each.name)
        )

    def agents_of_server(self, namespace: str, name: str) -> set[Key]:
        """The Agents that name this MCPServer."""
        return set(self._agents_of_server.get((namespace, name), ()))

    def agents_of_model(self, namespace: str, name: str) -> set[Key]:
        """The Agents that name this Model."""
        return set(self._agents_of_model.get((namespace, name), ()))

    def _see_resource(self, kind: str, body: Body) -> set[Key]:
        metadata = body["metadata"]
        key = Key(kind, metadata["namespace"], metadata["name"])
        known = self.resources.get(key)
        if known is not None and known["metadata"]["uid"] == metadata["uid"] and version_of(body) <= version_of(known):
            return set()
        concerned = {key}
        if known is not None:
            self._refer(key, known, add=False)
        if kind != AGENT.name and (known is None or _shown(kind, known) != _shown(kind, body)):
            concerned |= self._users_of(key)
        slim = {k: v for k, v in metadata.items() if k != "managedFields"}
        slim.setdefault("generation", 1)
        self.resources[key] = _shared({**body, "kind": kind, "metadata": slim})
        self._refer(key, body, add=True)
        return concerned

    def _drop_resource(self, key: Key) -> set[Key]:
        self._refer(key, self.resources.pop(key), add=False)
        return {key} | self._users_of(key)

    def _users_of(self, key: Key) -> set[Key]:
        """The Agents that name this resource."""
        if key.kind == MCP_SERVER.name:
            return self.agents_of_server(key.namespace, key.name)
        return self.agents_of_model(key.namespace, key.name) if key.kind == MODEL.name else set()

    def _refer(self, key: Key, body: Body, *, add: bool) -> None:
        if key.kind != AGENT.name:
            return
        spec = body.get("spec") or {}
        targets = [(self._agents_of_server, server.get("name")) for server in spec.get("mcpServers") or ()]
        if model := (spec.get("modelRef") or {}).get("name"):
            targets.append((self._agents_of_model, model))
        if config_map := ((spec.get("systemPromptFrom") or {}).get("configMapKeyRef") or {}).get("name"):
            targets.append((self._agents_of_config_map, config_map))
        for index, name in targets:
            place = (key.namespace, name)
            if add:
                index[place].add(key)
            else:
                index[place].discard(key)
                if not index[place]:
                    del index[place]

    def _see_pod(self, body: Body) -> set[Key]:
        metadata = body["metadata"]
        key = Key(POD.name, metadata["namespace"], metadata["name"])
        version = version_of(body)
        known = self.pods.get(key)
        if known is not None and known.uid == metadata["uid"] and version <= self._pod_versions[key]:
            return set()
        seen = pods.pod(body)
        if seen == known:
            if seen is not None:
                self._pod_versions[key] = version
            return set()
        # A label changed by hand gives the pod to another owner, or to none.
        concerned = self._drop_pod(key) if known is not None else set()
        if seen is not None:
            owner = Key(seen.owner_kind, seen.namespace, seen.owner_name)
            self.pods[key] = seen
            self._pod_versions[key] = version
            self._pods_of[owner].add(key)
            concerned.add(owner)
        return concerned

    def _drop_pod(self, key: Key) -> set[Key]:
        known = self.pods.pop(key)
        self._pod_versions.pop(key, None)
        owner = Key(known.owner_kind, known.namespace, known.owner_name)
        self._pods_of[owner].discard(key)
        if not self._pods_of[owner]:
            del self._pods_of[owner]
        return {owner}

    def _see_config_map(self, body: Body) -> set[Key]:
        metadata = body["metadata"]
        place = (metadata["namespace"], metadata["name"])
        concerned: set[Key] = set()
        seen = (metadata["uid"], version_of(body))
        known = self.config_maps.get(place)
        if known is None or (known != seen and (known[0] != seen[0] or known[1] < seen[1])):
            self.config_maps[place] = seen
            concerned |= self._agents_of_config_map.get(place, set())
        is_managed = (metadata.get("labels") or {}).get(names.MANAGED_BY) == names.FIELD_MANAGER
        if is_managed or Key(CONFIG_MAP.name, *place) in self.children:
            concerned |= self._see_child(CONFIG_MAP.name, body)
        return concerned

    def _lose_config_maps(self, namespace: str | None, listed: set[Key], version: int) -> set[Key]:
        gone = [
            place
            for place, seen in self.config_maps.items()
            if namespace in (None, place[0]) and seen[1] <= version and Key(CONFIG_MAP.name, *place) not in listed
        ]
        concerned: set[Key] = set()
        for place in gone:
            self._bury(self.config_maps.pop(place)[0], version)
            concerned |= self._agents_of_config_map.get(place, set())
        return concerned

    def _see_child(self, kind: str, body: Body) -> set[Key]:
        metadata = body["metadata"]
        known = self.children.get(Key(kind, metadata["namespace"], metadata["name"]))
        newer = 1
        if known is not None and known.uid == metadata["uid"]:
            newer = version_of(body) - known.version
        if known is not None and (newer < 0 or (newer == 0 and known.packed is not None)):
            return set()
        seen = child(kind, body)
        if newer == 0 and seen.packed is None:
            return set()
        # Else it is new, or a listing brings the content of a version of which a watch has brought only the metadata.
        if known is not None and known.owner_uid != seen.owner_uid:
            self._leave_owner(known)
        self.children[seen.key] = seen
        self._children_of[seen.owner_uid].add(seen.key)
        if known is not None and seen.packed is not None and replace(known, version=seen.version) == seen:
            # Something of its status has changed that is not kept: an autoscaler writes one every 15 s.
            return set()
        # A child that lost its owner reference still concerns the owner that its name speaks of.
        return {owner for owner in (seen.owner, known.owner if known else None) if owner is not None}

    def _drop_child(self, key: Key) -> set[Key]:
        known = self.children.pop(key)
        self._leave_owner(known)
        # The name may be free now for an owner that could not have it, also where the child was somebody else's.
        return {known.owner} if known.owner is not None else self._claimants(key)

    def _leave_owner(self, known: Child) -> None:
        siblings = self._children_of[known.owner_uid]
        siblings.discard(known.key)
        if not siblings:
            del self._children_of[known.owner_uid]

    def _claimants(self, key: Key) -> set[Key]:
        places = (
            Key(kind.name, key.namespace, key.name.removesuffix(f"-{names.SUFFIXES[kind.name]}")) for kind in OWNERS
        )
        return {place for place in places if place in self.resources}

    def _known(self, kind: str) -> list[Key]:
        if kind in RESOURCE_KINDS:
            return [key for key in self.resources if key.kind == kind]
        return list(self.pods) if kind == POD.name else [key for key in self.children if key.kind == kind]

    def _version(self, key: Key) -> int:
        if key in self.resources:
            return version_of(self.resources[key])
        return self._pod_versions[key] if key in self.pods else self.children[key].version

    def _bury(self, uid: str, version: int) -> None:
        # A listing that was answered before the deletion may arrive after it: the dead stay dead. A newer version is
        # no ghost: an object whose label was removed looks deleted to the watch, and comes back when the label does.
        now = self._clock()
        self._gone.pop(uid, None)
        self._gone[uid] = (version, now)
        while now - self._gone[oldest := next(iter(self._gone))][1] > TOMBSTONE_SECONDS:
            del self._gone[oldest]


def _shared(value: Any) -> Any:
    """The same, with its words kept only once in memory, however many objects use them."""
    if isinstance(value, dict):
        return {intern(key): _shared(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    return intern(value) if type(value) is str and len(value) <= SHARED_CHARACTERS else value


def _shown(kind: str, body: Body) -> tuple[object, ...]:
    """What an Agent sees of a Model: its spec. Of an MCPServer: how it is reached, what it says of its health, and the
    names of its tools.
    """
    if kind == MODEL.name:
        return body["metadata"]["uid"], "deletionTimestamp" in body["metadata"], body.get("spec")
    spec = {key: value for key, value in (body.get("spec") or {}).items() if key not in UNSEEN}
    status = body.get("status") or {}
    conditions = [(c.get("type"), c.get("status"), c.get("message")) for c in status.get("conditions") or ()]
    tools = [tool.get("name") for tool in status.get("tools") or ()]
    return body["metadata"]["uid"], "deletionTimestamp" in body["metadata"], spec, conditions, tools
