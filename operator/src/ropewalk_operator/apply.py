"""The only writer: server-side apply of children, pruning, status patches and Kubernetes Events.

A child is applied only when what is wanted has changed, or when the live object no longer holds it. Never takes over
an object that something else controls. Every step can be repeated, and none depends on what an earlier process
remembered.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Protocol

from ropewalk_operator import drift, names
from ropewalk_operator.api import API_VERSION
from ropewalk_operator.cache import Cache
from ropewalk_operator.children import Child, child, version_of
from ropewalk_operator.handover import hand_over_replicas
from ropewalk_operator.kinds import AUTOSCALER, BY_NAME, CHILDREN, DEPLOYMENT, EVENT, KEPT, Key, Kind
from ropewalk_operator.kube import ApiError
from ropewalk_operator.manifest import Manifest, digest
from ropewalk_operator.times import timestamp

logger = logging.getLogger(__name__)

EVENTS_REMEMBERED = 2048
EVENT_QUIET_SECONDS = 60.0
EVENT_LIMIT_SECONDS = 2.0
"""No worker waits longer for what is only told: Events may have an etcd of their own that is away."""
EVENT_MESSAGE_CHARACTERS = 1000


class Writer(Protocol):
    """What is needed of the connection; tests bring a strict one."""

    async def get(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> dict[str, Any] | None:
        """The object or None."""

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        manifest: Mapping[str, Any],
        *,
        only_if_new: bool = False,
        manager: str = names.FIELD_MANAGER,
    ) -> dict[str, Any]:
        """Server-side apply by `manager`; the object as it is then. `only_if_new`: ApiError 409 where there is one."""

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch; the object as it is then."""

    async def merge_status(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch of the status; the object as it is then."""

    async def create(
        self, kind: Kind, namespace: str, manifest: Mapping[str, Any], *, within_seconds: float | None = None
    ) -> dict[str, Any]:
        """Create an object."""

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this uid."""


@dataclass
class Outcome:
    """What became of the children."""

    taken: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Applied:
    """What the last apply of a child left behind, or the last version that was found to be right."""

    uid: str
    desired_hash: str
    version: int
    tolerated: bytes | None = None
    """Content that an admission webhook turned our apply into: putting it back again and again would never end."""


class Applier:
    """Writes through `writer` and keeps `cache` up to date with the answers."""

    def __init__(self, writer: Writer, cache: Cache) -> None:
        self._writer = writer
        self._cache = cache
        self._applied: dict[Key, _Applied] = {}
        self._said: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def apply_children(self, owner: names.Owner, manifests: Sequence[Manifest]) -> Outcome:
        """Make the children so, claims before the others and the Deployment after them, and remove the owner's
        children that are not among them, but for those that hold data.

        Raises ApiError where trying again may help; a refusal is an outcome.
        """
        outcome = Outcome()
        claims = [manifest for manifest in manifests if manifest["kind"] in KEPT]
        others = [manifest for manifest in manifests if manifest["kind"] not in (*KEPT, "Deployment")]
        last = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
        wanted = {_key(manifest) for manifest in manifests}
        surplus = [key for key in self._cache.children_of(owner.uid) if key not in wanted and key.kind not in KEPT]
        # While it is there, it would undo the number of replicas that the Deployment gets instead.
        autoscalers = [key for key in surplus if key.kind == AUTOSCALER.name]
        least = next((each["spec"]["minReplicas"] for each in others if each["kind"] == AUTOSCALER.name), None)
        for phase in (claims, others, last):
            # Pods that start with old settings would keep them, so the Deployment waits until all else is right. A pod
            # of the old Deployment that restarts with the new settings needs their volume, so the settings wait too.
            if not (outcome.taken or outcome.refused or outcome.waiting):
                await _all(self._prune(key) for key in autoscalers if phase is last)
                await _all(self._apply_child(owner, manifest, outcome, least) for manifest in phase)
        if surplus and not (outcome.taken or outcome.refused or outcome.waiting):
            await _all(self._prune(key) for key in surplus if key not in autoscalers)
        return outcome

    async def patch_status(self, body: Mapping[str, Any], patch: Mapping[str, Any]) -> set[Key] | None:
        """Write the changed fields of a status; None where the object is gone.

        Returns the keys to look at: resources that go by this status, and the object itself when its user has changed
        it meanwhile. The watch will not name them: it brings a version that is known by then.
        """
        metadata = body["metadata"]
        kind = BY_NAME[body["kind"]]
        merge = {"metadata": {"uid": metadata["uid"]}, "status": patch}
        try:
            answer = await self._writer.merge_status(kind, metadata["namespace"], metadata["name"], merge)
        except ApiError as error:
            if error.status == 404:
                return None
            # Also a 409: whether it was replaced, or changed at the wrong moment, the next look at it will tell.
            raise
        concerned = self._cache.see(body["kind"], answer)
        facets = ("generation", "deletionTimestamp")
        if all(answer["metadata"].get(facet) == metadata.get(facet) for facet in facets):
            concerned.discard(Key(body["kind"], metadata["namespace"], metadata["name"]))
        return concerned

    async def tell(self, body: Mapping[str, Any], type_: str, reason: str, message: str, now: float) -> None:
        """Record a Kubernetes Event about a resource, the same words at most once a minute; best effort.

        `now`: epoch seconds.
        """
        metadata = body["metadata"]
        said = (metadata["uid"], reason, message)
        # A clock that was set back by an hour must not silence it for an hour.
        if abs(now - self._said.get(said, -EVENT_QUIET_SECONDS)) < EVENT_QUIET_SECONDS:
            return
        self._said[said] = now
        self._said.move_to_end(said)
        if len(self._said) > EVENTS_REMEMBERED:
            self._said.popitem(last=False)
        time = timestamp(now)
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": body["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": type_,
            "reason": reason,
            "message": message[:EVENT_MESSAGE_CHARACTERS],
            "source": {"component": names.FIELD_MANAGER},
            "reportingComponent": names.FIELD_MANAGER,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        try:
            await self._writer.create(EVENT, metadata["namespace"], event, within_seconds=EVENT_LIMIT_SECONDS)
        except ApiError as error:
            logger.debug("an event was not recorded", extra={"fields": {"reason": reason, "error": str(error)}})

    def forget(self, name: str, namespace: str) -> None:
        """Drop what is remembered of the children with this name."""
        for kind in CHILDREN:
            self._applied.pop(Key(kind.name, namespace, name), None)

    async def _apply_child(self, owner: names.Owner, manifest: Manifest, outcome: Outcome, least: int | None) -> None:
        is_autoscaled = manifest["kind"] == DEPLOYMENT.name and "replicas" not in manifest["spec"]
        try:
            await self._make_so(owner, manifest, outcome, least if is_autoscaled else None)
        except ApiError as error:
            if not error.is_refusal:
                raise
            outcome.refused.append(f"{_shown(_key(manifest))}: {error.message}")

    async def _make_so(self, owner: names.Owner, manifest: Manifest, outcome: Outcome, least: int | None) -> None:
        """`least`: of a Deployment whose replicas an autoscaler sets, how many it begins with."""
        key = _key(manifest)
        kind = BY_NAME[key.kind]
        desired_hash = intern(digest(manifest))
        stamped = _stamped(manifest, desired_hash)
        live = self._cache.children.get(key)
        was_seen = live is not None
        answer: dict[str, Any] | None = None
        if live is None:
            answer, live = await self._apply_new(kind, key, stamped if least is None else _begun(manifest, least))
        if live is not None and live.deleting and key.kind in KEPT and live.owner_uid == owner.uid:
            # It goes when no pod uses it, and that may take a change of the Deployment. Then it is made anew.
            return
        if live is not None and (problem := _obstacle(live, owner)) is not None:
            getattr(outcome, problem).append(_shown(key))
            return
        if live is not None and was_seen and await self._is_right(live, manifest, desired_hash):
            return
        if least is not None:
            await hand_over_replicas(self._writer, key, least)
        if answer is None or least is not None:
            answer = await self._apply(kind, key, stamped, live.uid if live is not None else None)
        if was_seen and "template" in manifest.get("spec", {}):
            answer = await self._without_additions(kind, key, manifest, answer)
        before = self._applied.get(key)
        self._cache.see(key.kind, answer)
        self._remember(key, manifest, desired_hash, answer)
        # The same wish as before, and yet there was something to do: somebody had changed or deleted the child.
        if before is not None and before.desired_hash == desired_hash and before.version != version_of(answer):
            outcome.corrected.append(_shown(key))

    async def _apply_new(self, kind: Kind, key: Key, manifest: Manifest) -> tuple[dict[str, Any] | None, Child | None]:
        """Apply what the watches do not show; or else return what is there already.

        They do not show what others own, which an apply would take over, and they lag behind.
        """
        try:
            return await self._writer.apply(kind, key.namespace, key.name, manifest, only_if_new=True), None
        except ApiError as error:
            if error.status != 409:
                raise
            conflict = error
        found = await self._writer.get(kind, key.namespace, key.name, metadata_only=True)
        if found is None:
            # It is gone again, or there was none. Whoever makes one just now must not lose it.
            raise conflict
        return None, child(key.kind, found)

    async def _apply(self, kind: Kind, key: Key, manifest: Manifest, uid: str | None) -> dict[str, Any]:
        """`uid`: of the object that is there; None where the watches show none."""
        try:
            return await self._writer.apply(kind, key.namespace, key.name, manifest)
        except ApiError as error:
            if uid is None or error.status != 422 or "spec" not in manifest:
                raise
        # A port renumbered by hand is another port to server-side apply: ours would be added beside it, under a name
        # that is taken. A merge patch replaces whole lists, and then there is nothing left in the way.
        patch = {"metadata": {"uid": uid}, "spec": manifest["spec"]}
        await self._writer.merge(kind, key.namespace, key.name, patch)
        return await self._writer.apply(kind, key.namespace, key.name, manifest)

    async def _without_additions(
        self, kind: Kind, key: Key, manifest: Manifest, answer: dict[str, Any]
    ) -> dict[str, Any]:
        before = self._applied.get(key)
        is_webhook = before is not None and before.tolerated is not None
        if is_webhook or drift.contains(answer, _compared(manifest)):
            return answer
        # Containers and fields that others have added are theirs to server-side apply. Tried once: what is there again
        # in the answer comes from an admission webhook.
        spec = drift.replacement(answer["spec"], manifest["spec"])
        return await self._writer.merge(
            kind, key.namespace, key.name, {"metadata": {"uid": answer["metadata"]["uid"]}, "spec": spec}
        )

    async def _is_right(self, live: Child, manifest: Manifest, desired_hash: str) -> bool:
        if live.desired_hash != desired_hash:
            return False
        applied = self._applied.get(live.key)
        is_known = applied is not None and applied.uid == live.uid and applied.desired_hash == desired_hash
        if is_known and applied is not None and applied.version == live.version:
            return True
        content = live.content
        if content is None:
            found = await self._writer.get(BY_NAME[live.key.kind], live.key.namespace, live.key.name)
            if found is None:
                return False
            self._cache.see(live.key.kind, found)
            content = child(live.key.kind, found).content
        tolerated = applied.tolerated if applied is not None and is_known else None
        if content is None or not (content == tolerated or drift.contains(json.loads(content), _compared(manifest))):
            return False
        self._applied[live.key] = _Applied(live.uid, desired_hash, live.version, tolerated)
        return True

    def _remember(self, key: Key, manifest: Manifest, desired_hash: str, answer: dict[str, Any]) -> None:
        tolerated = None if drift.contains(answer, _compared(manifest)) else child(key.kind, answer).content
        if tolerated is not None:
            logger.warning("the API server changed what was applied", extra={"fields": {"object": str(key)}})
        self._applied[key] = _Applied(answer["metadata"]["uid"], desired_hash, version_of(answer), tolerated)

    async def _prune(self, key: Key) -> None:
        live = self._cache.children.get(key)
        # Somebody else may have deleted it since it was found to be too many.
        if live is not None and not live.deleting:
            await self._writer.delete(BY_NAME[key.kind], key.namespace, key.name, live.uid)
        self._applied.pop(key, None)


def may_take(live: Child, owner: names.Owner) -> bool:
    """Whether the child is the owner's, or nobody's and made for an owner of this name."""
    # Without a controller, with our stamp and the labels of this very owner: orphaned by a delete with
    # --cascade=orphan, or stripped by hand. It is taken back. A copy under another name is somebody else's.
    is_orphan = not live.owner_uid and bool(live.desired_hash) and live.labelled_for == _owner_key(owner)
    return live.owner_uid == owner.uid or is_orphan


def _obstacle(live: Child, owner: names.Owner) -> str | None:
    """The list of the outcome that the child belongs to, when it cannot be applied now."""
    if not may_take(live, owner):
        is_former = live.owner == _owner_key(owner)
        return "waiting" if is_former else "taken"
    return "waiting" if live.deleting else None


def _owner_key(owner: names.Owner) -> Key:
    return Key(owner.kind, owner.namespace, owner.name)


def _shown(key: Key) -> str:
    return f"{key.kind} {key.name}"


def _key(manifest: Manifest) -> Key:
    return Key(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _stamped(manifest: Manifest, desired_hash: str) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {names.DESIRED_HASH: desired_hash}}}


def _begun(manifest: Manifest, replicas: int) -> Manifest:
    """The Deployment of an autoscaled owner as it is created: its autoscaler may take a while to look at it.

    Its stamp is not the one of what is wanted, so that an operator that ends here finds that it has not finished.
    """
    begun = {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}
    return _stamped(begun, digest(begun))


def _compared(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    kept = {key: metadata[key] for key in ("labels", "ownerReferences")}
    return {
        "metadata": kept,
        **{key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")},
    }


async def _all(coroutines: Any) -> None:
    """Run them at once and wait for all, so that none is left writing behind the caller's back; then raise the first
    error.
    """
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
