"""The tools of the Kubernetes server: what they take, what they ask the API server, and what they answer."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

from mcp_types import CallToolResult, ToolAnnotations
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_kubernetes import cluster, pods
from ropewalk_mcp_kubernetes.api import Access, KubeApi

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_LOG_CHARACTERS = 65_536
_MAX_NODES = 100
_MAX_NAMESPACES = 100


class Logs(BaseModel):
    """The newest lines that a container has written."""

    namespace: str
    pod: str
    container: str | None = None
    lines: int
    log: str
    truncated: bool = Field(description="Whether lines that were asked for are left out")


def _checked(what: str, value: str, pattern: re.Pattern[str]) -> str:
    """Refuse what is no name before it becomes part of a path."""
    if not value:
        raise CodedError("INVALID_INPUT", f"{what} is missing; name one")
    if not pattern.fullmatch(value):
        raise CodedError(
            "INVALID_INPUT",
            f"{what} is {value[:100]!r}; use lower case letters, digits and '-', as Kubernetes names do",
        )
    return value


class KubernetesTools:
    """The three tools, over one connection to the API server."""

    def __init__(self, api: KubeApi, allow_delete: bool, now: Callable[[], datetime]) -> None:
        self._api = api
        self._allow_delete = allow_delete
        self._now = now

    async def close(self) -> None:
        """Close the connections to the API server."""
        await self._api.close()

    async def cluster_info(self) -> Annotated[CallToolResult, cluster.ClusterInfo]:
        """Show the Kubernetes cluster: version, nodes with readiness and capacity, namespaces, number of pods."""
        answers = await asyncio.gather(
            self._api.get("/version", Access("get", "/version")),
            self._api.get("/api/v1/nodes", Access("list", "nodes"), limit=_MAX_NODES),
            self._api.get("/api/v1/namespaces", Access("list", "namespaces"), limit=_MAX_NAMESPACES),
            self._api.get("/api/v1/pods", Access("list", "pods"), limit=1),
            return_exceptions=True,
        )
        notes = []
        for answer in answers:
            if isinstance(answer, CodedError) and answer.code == "FORBIDDEN":
                notes.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
        version, nodes, namespaces, all_pods = (None if isinstance(item, BaseException) else item for item in answers)
        info = cluster.ClusterInfo(version=str((version or {}).get("gitVersion", "unknown")), notes=notes or None)
        if nodes:
            info.nodes, info.node_count = [cluster.node(item) for item in nodes["items"]], cluster.total(nodes)
        if namespaces:
            info.namespaces = [item["metadata"]["name"] for item in namespaces["items"]]
            info.namespace_count = cluster.total(namespaces)
        if all_pods:
            info.pod_count = cluster.total(all_pods)
        return result(cluster.text(info), info)

    async def pod_management(
        self,
        *,
        action: Annotated[
            Literal["list", "get", "describe", "delete"],
            Field(
                description="list pods; get one; describe one with its events; delete one (only where it is allowed)"
            ),
        ],
        namespace: Annotated[str, Field(description="The namespace; list without one lists all namespaces")] = "",
        name: Annotated[str, Field(description="The pod's name, for get, describe and delete")] = "",
        label_selector: Annotated[
            str, Field(description="For list: only pods with these labels, such as app=web", max_length=1000)
        ] = "",
        limit: Annotated[int, Field(description="For list: at most so many pods", ge=1, le=500)] = 100,
    ) -> Annotated[CallToolResult, pods.PodManagement]:
        """List, get, describe or delete the pods that run in a Kubernetes namespace."""
        if action == "list":
            return await self._list(namespace, label_selector, limit)
        _checked("namespace", namespace, _LABEL)
        _checked("name", name, _SUBDOMAIN)
        if action == "delete":
            return await self._delete(namespace, name)
        return await self._show(namespace, name, with_events=action == "describe")

    async def _list(self, namespace: str, label_selector: str, limit: int) -> CallToolResult:
        path = "/api/v1/pods"
        if namespace:
            path = f"/api/v1/namespaces/{_checked('namespace', namespace, _LABEL)}/pods"
        query: dict[str, Any] = {"labelSelector": label_selector} if label_selector else {}
        listed = await self._api.get(path, Access("list", "pods", namespace), limit=limit, **query)
        found = [pods.summary(item) for item in listed["items"]]
        answer = pods.PodManagement(action="list", pods=found, total=cluster.total(listed))
        # The API server does not count what is left where a selector narrows the list.
        more = bool(listed.get("metadata", {}).get("continue"))
        if more and answer.total == len(found):
            answer.total, answer.notes = None, [f"more than {limit} pods match; raise limit, or narrow label_selector"]
        text = pods.list_text(found, answer.total or len(found), namespace, self._now())
        return result("\n".join([text, *(answer.notes or [])]), answer)

    async def _show(self, namespace: str, name: str, *, with_events: bool) -> CallToolResult:
        found = await self._api.get(
            f"/api/v1/namespaces/{namespace}/pods/{name}", Access("get", "pods", namespace, name)
        )
        pod = pods.detail(found)
        answer = pods.PodManagement(action="describe" if with_events else "get", pod=pod)
        if with_events:
            try:
                listed = await self._api.get(
                    f"/api/v1/namespaces/{namespace}/events",
                    Access("list", "events", namespace),
                    fieldSelector=f"involvedObject.kind=Pod,involvedObject.name={name}",
                    limit=500,
                )
                uid = found["metadata"].get("uid")
                # An earlier pod may have had the same name, as those of a StatefulSet do.
                pod.events = pods.events([item for item in listed["items"] if item["involvedObject"].get("uid") == uid])
            except CodedError as error:
                if error.code != "FORBIDDEN":
                    raise
                answer.notes = [str(error)]
        return result("\n".join([pods.detail_text(pod, self._now()), *(answer.notes or [])]), answer)

    async def _delete(self, namespace: str, name: str) -> CallToolResult:
        if not self._allow_delete:
            raise CodedError(
                "FORBIDDEN",
                f"pod {name} in namespace {namespace} is left alone: this server does not delete. To allow it, start "
                "it with --allow-delete (in an MCPServer: spec.args) or ROPEWALK_ALLOW_DELETE=true, and grant its "
                "ServiceAccount the verb 'delete' on 'pods'",
            )
        deleted = await self._api.delete(
            f"/api/v1/namespaces/{namespace}/pods/{name}", Access("delete", "pods", namespace, name)
        )
        text = f"Deleted pod {name} in namespace {namespace}."
        if deleted.get("kind") != "Pod":
            return result(text, pods.PodManagement(action="delete"))
        pod = pods.summary(deleted)
        if pod.owner:
            text += f" It belongs to {pod.owner}, which may replace it."
        return result(text, pods.PodManagement(action="delete", pod=pod))

    async def logs_retrieval(
        self,
        *,
        namespace: Annotated[str, Field(description="The pod's namespace")],
        pod: Annotated[str, Field(description="The pod's name")],
        container: Annotated[str, Field(description="The container; needed where the pod has several")] = "",
        tail_lines: Annotated[int, Field(description="At most so many of the newest lines", ge=1, le=2000)] = 100,
        since_seconds: Annotated[
            int, Field(description="Only lines of the last so many seconds; 0: all", ge=0, le=31_536_000)
        ] = 0,
        previous: Annotated[bool, Field(description="The run before the last restart, to see why it ended")] = False,
    ) -> Annotated[CallToolResult, Logs]:
        """Read the logs of a pod: the newest lines that a container wrote."""
        _checked("namespace", namespace, _LABEL)
        _checked("pod", pod, _SUBDOMAIN)
        query: dict[str, Any] = {"tailLines": tail_lines}
        if container:
            query["container"] = _checked("container", container, _LABEL)
        if since_seconds:
            query["sinceSeconds"] = since_seconds
        if previous:
            query["previous"] = "true"
        log, complete = await self._api.text(
            f"/api/v1/namespaces/{namespace}/pods/{pod}/log", Access("get", "pods/log", namespace, pod), **query
        )
        cut = len(log) > _MAX_LOG_CHARACTERS
        if cut:
            # The newest lines are the ones that matter, and half a line would mislead.
            log = log[-_MAX_LOG_CHARACTERS:].partition("\n")[2] or log[-_MAX_LOG_CHARACTERS:]
        answer = Logs(
            namespace=namespace,
            pod=pod,
            container=container or None,
            lines=len(log.splitlines()),
            log=log,
            truncated=cut or not complete,
        )
        head = f"{answer.lines} lines of pod {pod} in namespace {namespace}"
        if not answer.lines:
            return result(f"Pod {pod} in namespace {namespace} has written no such lines.", answer)
        if cut:
            head += f" (the newest {_MAX_LOG_CHARACTERS} characters; ask for fewer lines to see whole ones)"
        if not complete:
            head += " (the newest are missing, for the log is too large; use fewer tail_lines)"
        return result(f"{head}:\n{log}", answer)


def kubernetes_server(tools: KubernetesTools, registry: CollectorRegistry) -> ToolServer:
    """Return the server with its three tools."""

    @asynccontextmanager
    async def connected(_: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await tools.close()

    instructions = "The state of this Kubernetes cluster: nodes, pods, logs."
    server = ToolServer("ropewalk-kubernetes", instructions, registry, connected)
    reads = ToolAnnotations(read_only_hint=True)
    server.add_tool(tools.cluster_info, annotations=reads)
    server.add_tool(tools.pod_management, annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True))
    server.add_tool(tools.logs_retrieval, annotations=reads)
    return server
