"""The connection to the API server: credentials, pooled requests and listings.

Knows addresses and HTTP, never what the objects mean. Tokens are read anew as they rotate. Nothing but a Lease is
written without asking the guard.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from ropewalk_operator import __version__, retry_after
from ropewalk_operator.guard import Guard, NotLeading
from ropewalk_operator.kinds import CONFIG_MAP, LEASE, Kind
from ropewalk_operator.names import FIELD_MANAGER, MANAGED_SELECTOR
from ropewalk_operator.server_clock import ServerClock
from ropewalk_operator.sockets import socket_that_forgets
from ropewalk_operator.streams import json_object, words
from ropewalk_operator.watch_session import METADATA_LIST_ONLY, METADATA_ONLY, Listener, WatchSession

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

REQUEST_TIMEOUT_SECONDS = 15.0
LIST_TIMEOUT_FACTOR = 4
"""A page of a listing may take so many times as long as another request."""
PAGE = 100
"""Objects in one answer of a listing: parsed, each takes some 15 KB until it has been looked at."""

NO_VERSION = "1"
"""A resourceVersion that no object has: it is etcd's revision before the first write. An apply that demands it succeeds
only where there is nothing yet."""

# A webhook stands before some objects only, be they of one namespace; its errors are 500s where it says nothing else.
_OF_A_WEBHOOK = re.compile(r"failed calling webhook|admission webhook .* denied the request")

Json = dict[str, Any]


class ApiError(Exception):
    """The API server said no, or nothing that can be used (status 0).

    `retry_after_seconds`: how long it wants to be left alone.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_trouble(self) -> bool:
        """True when nothing is said about the object: no answer, overload, a fault of the server's or of whoever judges
        its tokens.
        """
        is_of_the_server = self.status in (0, 401, 429) or self.status >= 500
        return is_of_the_server and not self.is_refusal and not _OF_A_WEBHOOK.search(self.message)

    @property
    def is_refusal(self) -> bool:
        """True when asking again would get the same answer: forbidden, invalid, over quota."""
        # A field that is none is an internal error to server-side apply.
        return self.status in (400, 403, 413, 422) or self.message.startswith("failed to create typed patch object")


class Kube:
    """Requests to one API server. Make it by `connect` inside the event loop and close it at the end.

    Every write raises NotLeading where `guard` is not open.
    """

    def __init__(
        self,
        configuration: Configuration,
        guard: Guard,
        observe: Callable[[str, int], None] | None = None,
        *,
        agent: str = FIELD_MANAGER,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        self._guard = guard
        # Looking for a proxy or a netrc entry costs two threads for each request, and nobody has either for an API
        # server.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._agent = f"{agent}/{__version__}"
        self._rest = _Rest(configuration, lambda: None)
        # Connections of their own, so that a socket knows what it sends: a write, and the guard is asked.
        self._writes = _Rest(configuration, guard.seconds_to_send)
        self._observe = observe or (lambda _verb, _code: None)
        self.timeout_seconds = timeout_seconds
        """How long a request may take, where nothing else is said."""
        self.clock = ServerClock(time.monotonic, time.time)
        self._watching = WatchSession(self._headers, self._observe, time.monotonic)

    @classmethod
    async def connect(
        cls,
        guard: Guard,
        observe: Callable[[str, int], None] | None = None,
        *,
        agent: str = FIELD_MANAGER,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> Kube:
        """In a pod by its service account; elsewhere by KUBECONFIG or ~/.kube/config.

        `observe` gets verb and status code; `agent` names the process in the API server's audit log; a request may take
        `timeout_seconds`. Raises ApiError where there are no usable credentials.
        """
        configuration = Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            message = f"{error}; set KUBECONFIG, or run in a pod with a service account"
            raise ApiError(0, "NoCredentials", message) from error
        return cls(configuration, guard, observe, agent=agent, timeout_seconds=timeout_seconds)

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._configuration.host)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._rest.close()
        await self._writes.close()

    async def get(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> Json | None:
        """The object or its metadata alone, as it is just now; None where there is none."""
        headers = {"Accept": METADATA_ONLY} if metadata_only else {}
        try:
            return await self._request("GET", kind.path(namespace, name), headers=headers)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list_all(
        self,
        kind: Kind,
        namespace: str | None,
        query: str = "",
        *,
        metadata_only: bool = False,
        keep: Callable[[Json], Any] = lambda item: item,
    ) -> tuple[list[Any], int]:
        """What `keep` makes of every object of the kind, and the version of the listing; children and pods only where
        they are managed. Never more than a page of objects is in memory, but for what is kept, and where the
        API server has dropped the version of the pages: then all are.

        Of ConfigMaps the metadata alone is listed of all, and the content of those that are managed.
        """
        is_managed = kind.managed_only or (kind is CONFIG_MAP and not metadata_only)
        selector = f"labelSelector={MANAGED_SELECTOR}" if is_managed else ""
        headers = {"Accept": METADATA_LIST_ONLY} if metadata_only else {}
        items: list[Any] = []
        token, limit = "", f"limit={PAGE}"
        while True:
            parts = [selector, query, limit, f"continue={token}" if token else ""]
            path = f"{kind.path(namespace)}?{'&'.join(part for part in parts if part)}"
            within = self.timeout_seconds * LIST_TIMEOUT_FACTOR
            try:
                page = await self._request("GET", path, headers=headers, within_seconds=within, verb="LIST")
            except ApiError as error:
                if error.status != 410 or not limit:
                    raise
                # The pages were read too slowly, and their version is gone. In one piece none can be lost.
                items, token, limit = [], "", ""
                continue
            if not isinstance(page.get("metadata"), dict):
                raise _not_understood(f"LIST {path}", "is no listing")
            # Items of a list do not say what they are.
            named = "PartialObjectMetadata" if metadata_only else kind.name
            items.extend(keep({**item, "kind": named}) for item in page.get("items") or ())
            token = page["metadata"].get("continue") or ""
            if not token:
                return items, int(page["metadata"].get("resourceVersion") or 0)

    async def may_list(self, kind: Kind, namespace: str) -> bool:
        """Whether the kind can be listed in the namespace just now: one object is asked for. False also where there is
        no answer.
        """
        path = f"{kind.path(namespace)}?limit=1"
        try:
            await self._request("GET", path, headers={"Accept": METADATA_LIST_ONLY}, verb="LIST")
        except ApiError:
            return False
        return True

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        manifest: Mapping[str, Any],
        *,
        only_if_new: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Json:
        """Server-side apply, taking over every field that the manifest names, in the name of `manager`.

        With `only_if_new` an ApiError 409 where there is an object of this name already, whoever owns it.
        """
        if only_if_new:
            manifest = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": NO_VERSION}}
        path = f"{kind.path(namespace, name)}?fieldManager={manager}&force=true"
        return await self._request("PATCH", path, manifest, headers={"Content-Type": APPLY}, verb="APPLY")

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Json:
        """Merge patch: lists are replaced as a whole."""
        path = f"{kind.path(namespace, name)}?fieldManager={FIELD_MANAGER}"
        return await self._request("PATCH", path, patch, headers={"Content-Type": MERGE})

    async def merge_status(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Json:
        """Merge into the status subresource."""
        path = f"{kind.path(namespace, name, 'status')}?fieldManager={FIELD_MANAGER}"
        return await self._request("PATCH", path, patch, headers={"Content-Type": MERGE})

    async def create(
        self, kind: Kind, namespace: str, manifest: Mapping[str, Any], *, within_seconds: float | None = None
    ) -> Json:
        """Create an object."""
        path = f"{kind.path(namespace)}?fieldManager={FIELD_MANAGER}"
        return await self._request("POST", path, manifest, within_seconds=within_seconds)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly the object with this uid; one that is gone already is fine. ApiError 409 for another one."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", kind.path(namespace, name), body)
        except ApiError as error:
            if error.status != 404:
                raise

    async def read_lease(self, namespace: str, name: str, within_seconds: float) -> Json | None:
        """The Lease or None."""
        try:
            return await self._request("GET", LEASE.path(namespace, name), within_seconds=within_seconds, verb="LEASE")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def write_lease(self, namespace: str, name: str, manifest: Mapping[str, Any], within_seconds: float) -> Json:
        """Create a Lease, or replace the version that the manifest names: ApiError 409 where it has changed since."""
        is_new = "resourceVersion" not in manifest["metadata"]
        method, path = ("POST", LEASE.path(namespace)) if is_new else ("PUT", LEASE.path(namespace, name))
        return await self._request(method, path, manifest, within_seconds=within_seconds, verb="LEASE")

    async def served(self, group_version: str) -> frozenset[str]:
        """Plural names of the kinds that the API server serves of a group and version; none where it knows none."""
        try:
            found = await self._request("GET", f"/apis/{group_version}")
        except ApiError as error:
            if error.status == 404:
                return frozenset()
            raise
        return frozenset(resource["name"] for resource in found.get("resources") or ())

    def watch_session(self, listener: Listener) -> aiohttp.ClientSession:
        """A session for kopf. `listener` is told of each listing and watch that begins."""
        return self._watching.open(listener, self._rest.ssl_context)

    async def _headers(self) -> dict[str, str]:
        """Who asks, and with what credentials just now."""
        token = (await self._configuration.auth_settings()).get("BearerToken")
        value = token.get("value") if token else None
        return {"User-Agent": self._agent, **({"Authorization": value} if value else {})}

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        within_seconds: float | None = None,
        verb: str = "",
    ) -> Json:
        sent = {"Accept": "application/json", **(headers or {}), **await self._headers()}
        try:
            with self._connections(method, path) as (rest, left):
                response = await rest.request(  # type: ignore[no-untyped-call]
                    method,
                    self._configuration.host + path,
                    sent,
                    body,
                    _request_timeout=aiohttp.ClientTimeout(total=min(within_seconds or self.timeout_seconds, left)),
                )
                self.clock.heed(response.headers.get("Date", ""))
                text = await response.read()
        except NotLeading:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._observe(verb or method, 0)
            said = str(error) or type(error).__name__
            raise ApiError(0, "Unreachable", f"{method} {path.split('?', 1)[0]}: {said}") from error
        self._observe(verb or method, response.status)
        answer = json_object(text)
        if response.status >= 400:
            pause = retry_after.retry_after_seconds(response.headers.get(retry_after.RETRY_AFTER, ""))
            raise ApiError(response.status, str(answer.get("reason", "")), words(text), pause)
        if "metadata" not in answer and "kind" not in answer:
            raise _not_understood(f"{method} {path}", f"of {len(text)} bytes is not a JSON object")
        return answer

    @contextmanager
    def _connections(self, method: str, path: str) -> Iterator[tuple[_Rest, float]]:
        """Those that the request goes over, and how long it may take: a write no longer than this process leads for
        sure.
        """
        # The Lease is what opens the guard.
        if method == "GET" or path.startswith(f"/apis/{LEASE.group}/"):
            yield self._rest, float("inf")
            return
        with self._guard.writing() as left:
            try:
                yield self._writes, left
            except aiohttp.ClientError as error:
                if (refusal := _refusal(error)) is not None:
                    raise refusal from None
                raise


def _refusal(error: BaseException | None) -> NotLeading | None:
    """What the guard has said to the socket, where the connection has ended for that."""
    while error is not None and not isinstance(error, NotLeading):
        error = error.__cause__
    return error


def _not_understood(asked: str, what: str) -> ApiError:
    said = f"{asked.split('?', 1)[0]}: the answer {what}; see who stands between the operator and the API server"
    return ApiError(0, "NotUnderstood", said)


class _Rest(RESTClientObject):
    """Pooled connections. `ask` is called before each sending on one; an OSError of it ends the connection."""

    def __init__(self, configuration: Configuration, ask: Callable[[], object]) -> None:
        super().__init__(configuration)
        self._socket_factory = partial(socket_that_forgets, ask=ask)

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._socket_factory)
