"""The Kubernetes server over the wire, against a strict API server on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import mcp
import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from mcp_types import Tool
from prometheus_client import CollectorRegistry

import mcp_kube_api as kube
from mcp_wire import served
from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_kubernetes.api import Access, KubeApi, configuration
from ropewalk_mcp_kubernetes.server import KubernetesTools, kubernetes_server

NOW = datetime(2026, 1, 3, tzinfo=UTC)


class Server:
    """The MCP server and the API server behind it."""

    def __init__(self, api: kube.KubeApi, stack: AsyncExitStack, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.api = api
        self._stack = stack
        self._folder = folder
        self._patch = patch
        self._url = ""

    async def start(
        self,
        *,
        token: str = kube.TOKEN,
        allow_delete: bool = False,
        timeout_seconds: float = 10,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        file = self._folder / "kubeconfig"
        file.write_text(json.dumps(self.api.kubeconfig(token)))
        self._patch.setenv("KUBECONFIG", str(file))
        api = KubeApi(ApiClient(await configuration()), timeout_seconds)
        app = kubernetes_server(KubernetesTools(api, allow_delete, lambda: NOW, namespaces), CollectorRegistry()).app()
        self._url = await self._stack.enter_async_context(served(app))

    async def tools(self) -> dict[str, Tool]:
        """Return the tools by their names."""
        async with mcp.Client(f"{self._url}/mcp") as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    async def call(self, tool: str, **arguments: object) -> tuple[str, kube.Json]:
        """Return text and data of a call that must succeed."""
        failed, text, data = await self._call(tool, arguments)
        assert not failed, text
        assert data is not None
        return text, data

    async def refused(self, tool: str, **arguments: object) -> str:
        """Return the error of a call that must fail."""
        failed, text, _ = await self._call(tool, arguments)
        assert failed, text
        return text

    async def _call(self, tool: str, arguments: dict[str, object]) -> tuple[bool, str, kube.Json | None]:
        if not self._url:
            await self.start()
        async with mcp.Client(f"{self._url}/mcp") as client:
            result = await client.call_tool(tool, arguments)
        assert "hunter2" not in str(result), "an environment variable was shown"
        assert result.content[0].type == "text"
        return bool(result.is_error), result.content[0].text, result.structured_content


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube.KubeApi().served())
        yield Server(api, stack, tmp_path, monkeypatch)


async def test_cluster_info_shows_version_nodes_namespaces_and_pods(server: Server) -> None:
    server.api.nodes = [kube.node("node-1"), kube.node("node-2", Ready="False", DiskPressure="True")]
    server.api.pods = [kube.pod("web-1"), kube.pod("web-2"), kube.pod("dns", "kube-system")]
    text, data = await server.call("cluster_info")
    assert data["version"] == "v1.34.4"
    assert (data["node_count"], data["namespace_count"], data["pod_count"]) == (2, 2, 3)
    assert [node["ready"] for node in data["nodes"]] == [True, False]
    assert data["nodes"][0]["roles"] == ["control-plane"]
    assert data["nodes"][0]["capacity"] == {"cpu": "2", "memory": "4Gi", "pods": "110"}
    assert "node-2: NotReady" in text
    assert "DiskPressure: DiskPressureReason" in text
    assert "Namespaces: 2 (default, kube-system)" in text
    assert "notes" not in data


async def test_cluster_info_counts_what_it_does_not_list(server: Server) -> None:
    server.api.namespaces = [f"team-{number}" for number in range(130)]
    text, data = await server.call("cluster_info")
    assert data["namespace_count"] == 130
    assert len(data["namespaces"]) == 100
    assert "the first 100 shown" in text


async def test_cluster_info_does_without_what_it_may_not_read_and_names_the_verb(server: Server) -> None:
    server.api.rules = {("list", "pods", "*")}
    text, data = await server.call("cluster_info")
    assert data["pod_count"] == 0
    assert "nodes" not in data
    assert "verb 'list' on 'nodes' by a ClusterRole" in text
    assert len(data["notes"]) == 2


async def test_list_shows_the_pods_of_one_namespace(server: Server) -> None:
    server.api.pods = [kube.pod("web-1"), kube.pod("coredns-1", "kube-system"), kube.pod("proxy-1", "kube-system")]
    text, data = await server.call("pod_management", action="list", namespace="kube-system")
    assert [pod["name"] for pod in data["pods"]] == ["coredns-1", "proxy-1"]
    assert text.splitlines()[:2] == [
        "Nothing is wrong: all 2 pods in namespace kube-system are ready; no warnings in the last hour.",
        "2 pods in namespace kube-system:",
    ]
    assert text.splitlines()[3].split() == ["coredns-1", "1/1", "Running", "2", "2d", "node-1"]
    assert "containers" not in data["pods"][0]


async def test_list_without_namespace_shows_all_with_their_namespaces(server: Server) -> None:
    server.api.pods = [kube.pod("web-1"), kube.pod("coredns-1", "kube-system")]
    text, data = await server.call("pod_management", action="list")
    assert data["total"] == 2
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["NAMESPACE", "default", "kube-system"]


async def test_list_is_bounded_and_says_how_many_there_are(server: Server) -> None:
    server.api.pods = [kube.pod(f"web-{number}") for number in range(7)]
    text, data = await server.call("pod_management", action="list", namespace="default", limit=3)
    assert len(data["pods"]) == 3
    assert data["total"] == 7
    assert "7 pods in namespace default, 3 of them shown" in text


async def test_list_by_labels_does_not_claim_a_total_that_nobody_counted(server: Server) -> None:
    server.api.pods = [kube.pod(f"web-{number}") for number in range(501)] + [kube.pod("dns-1")]
    text, data = await server.call("pod_management", action="list", label_selector="app=web", limit=3)
    assert len(data["pods"]) == 3
    assert "total" not in data
    assert "only the first 500 pods were looked at" in text


async def test_pods_that_were_not_looked_at_are_not_said_to_be_ready(server: Server) -> None:
    server.api.pods = [kube.pod(f"web-{number}") for number in range(501)]
    text, data = await server.call("pod_management", action="list", limit=1)
    assert text.splitlines()[:2] == [
        "All 500 pods that were looked at in all namespaces are ready; no warnings in the last hour.",
        "Note: only the first 500 pods were looked at; name a namespace, or narrow label_selector",
    ]
    assert data["total"] == 501


async def test_very_many_broken_pods_are_counted_and_not_all_told(server: Server) -> None:
    waiting = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    broken = {"conditions": [], "containerStatuses": [waiting]}
    server.api.pods = [kube.pod("fine"), *(kube.pod(f"web-{number}", status=broken) for number in range(60))]
    text, data = await server.call("pod_management", action="list", limit=60)
    assert text.startswith("60 of 61 pods in all namespaces are not ready: web-0 (ImagePullBackOff), ")
    assert len(data["health"]["attention"]) == 50
    assert "Note: 10 more pods need attention; name a namespace, or narrow label_selector" in text
    assert "fine" not in {pod["name"] for pod in data["pods"]}


async def test_an_empty_namespace_is_said_to_be_empty(server: Server) -> None:
    text, data = await server.call("pod_management", action="list", namespace="empty")
    assert text == "There are no pods in namespace empty; no warnings in the last hour."
    assert data["pods"] == []


async def test_a_list_starts_with_what_is_wrong_and_shows_those_pods_first(server: Server) -> None:
    broken = {
        "name": "main",
        "ready": False,
        "restartCount": 9,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-01-02T23:59:00Z"}},
    }
    server.api.pods = [
        kube.pod("web-1"),
        kube.pod("web-2", status={"conditions": [], "containerStatuses": [broken]}),
        kube.pod("dns-1", "kube-system"),
    ]
    server.api.events = [
        kube.event("web-2", "2026-01-02T23:50:00Z", "Back-off restarting failed container"),
        kube.event("web-2", "2026-01-02T20:50:00Z", "too long ago"),
        kube.event("dns-1", "2026-01-02T23:50:00Z", "of another namespace", namespace="kube-system"),
    ]
    text, data = await server.call("pod_management", action="list", namespace="default", limit=1)
    assert text.splitlines()[:3] == [
        "1 of 2 pods in namespace default is not ready: web-2 (CrashLoopBackOff); 1 warning in the last hour.",
        "  web-2 in default: not ready for 2d: container main is waiting (CrashLoopBackOff, back-off 5m0s restarting); "
        "its last run: terminated (OOMKilled, exit code 137)",
        "  10m ago Pod/web-2 in default: BackOff (x3): Back-off restarting failed container",
    ]
    assert [pod["name"] for pod in data["pods"]] == ["web-2"]
    assert data["health"]["attention"][0]["status"] == "CrashLoopBackOff"
    assert data["health"]["warnings"][0]["about"] == "Pod/web-2"


async def test_a_list_by_labels_shows_the_warnings_about_these_pods_only(server: Server) -> None:
    server.api.pods = [kube.pod("web-1"), kube.pod("db-1")]
    server.api.events = [kube.event(name, "2026-01-02T23:50:00Z", f"of {name}") for name in ("web-1", "db-1")]
    text, _ = await server.call("pod_management", action="list", namespace="default", label_selector="app=web")
    assert "of web-1" in text
    assert "of db-1" not in text


async def test_a_list_without_the_right_to_events_says_so_beside_its_verdict(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.rules = {("list", "pods", "default")}
    text, data = await server.call("pod_management", action="list", namespace="default")
    assert text.splitlines()[0] == "The only pod in namespace default is ready; warnings may not be read."
    assert "the verb 'list' on 'events' by a Role in namespace default" in text
    assert "warnings" not in data["health"]


async def test_a_server_for_some_namespaces_lists_and_counts_those(server: Server) -> None:
    server.api.pods = [kube.pod("web-1", "shop"), kube.pod("web-2", "blog"), kube.pod("dns-1", "kube-system")]
    server.api.rules = {
        (verb, what, name) for verb in ("list",) for what in ("pods", "events") for name in ("shop", "blog")
    }
    await server.start(namespaces=("shop", "blog"))
    text, data = await server.call("pod_management", action="list")
    assert {pod["name"] for pod in data["pods"]} == {"web-1", "web-2"}
    assert text.startswith("Nothing is wrong: all 2 pods in namespaces shop, blog are ready")
    text, data = await server.call("cluster_info")
    assert (data["namespaces"], data["pod_count"]) == (["shop", "blog"], 2)
    assert "verb 'list' on 'nodes' by a ClusterRole" in text
    assert "only these namespaces are looked at" in text


async def test_a_server_for_some_namespaces_does_without_the_one_that_it_may_not_read(server: Server) -> None:
    server.api.pods = [kube.pod("web-1", "shop"), kube.pod("web-2", "blog")]
    server.api.rules = {("list", "pods", "shop")}
    await server.start(namespaces=("shop", "blog"))
    text, data = await server.call("pod_management", action="list")
    assert [pod["name"] for pod in data["pods"]] == ["web-1"]
    assert text.startswith("The only pod in namespace shop is ready")
    assert "the verb 'list' on 'pods' by a Role in namespace blog" in text


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("pod_management", {"action": "list", "namespace": "kube-system"}),
        ("pod_management", {"action": "get", "namespace": "kube-system", "name": "dns-1"}),
        ("logs_retrieval", {"namespace": "kube-system", "pod": "dns-1"}),
    ],
)
async def test_a_server_for_some_namespaces_refuses_the_others_by_itself(
    server: Server, tool: str, arguments: dict[str, object]
) -> None:
    await server.start(namespaces=("shop", "blog"))
    said = await server.refused(tool, **arguments)
    assert said.startswith(
        "FORBIDDEN: namespace is 'kube-system', which this server does not look at; use one of shop, blog"
    )
    assert server.api.requests == []


@pytest.mark.parametrize("allow_delete", [False, True])
async def test_the_tools_only_read_unless_deletion_is_allowed(server: Server, allow_delete: bool) -> None:
    await server.start(allow_delete=allow_delete)
    tools = await server.tools()
    assert list(tools) == ["cluster_info", "pod_management", "logs_retrieval"]
    only_reads = {
        name: tool.annotations is not None and tool.annotations.read_only_hint for name, tool in tools.items()
    }
    assert only_reads == {"cluster_info": True, "pod_management": not allow_delete, "logs_retrieval": True}
    assert all("\n  " not in (tool.description or "") for tool in tools.values())


async def test_get_shows_containers_and_no_events(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    text, data = await server.call("pod_management", action="get", namespace="default", name="web-1")
    assert data["pod"]["containers"][0]["state"] == "running"
    assert data["pod"]["owner"] == "ReplicaSet/web-1-rs"
    assert "events" not in data["pod"]
    assert "limits: memory=64Mi" in text


async def test_describe_shows_why_a_container_died_and_the_latest_events_of_this_pod(server: Server) -> None:
    crashed = {
        "name": "main",
        "ready": False,
        "restartCount": 9,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "message": "x" * 2000}},
    }
    server.api.pods = [kube.pod("web-1", status={"containerStatuses": [crashed]})]
    server.api.events = [
        kube.event("web-1", f"2026-01-02T00:{minute:02}:00Z", f"event {minute}") for minute in range(30, 0, -1)
    ]
    server.api.events.append(kube.event("web-1", "2026-01-02T23:00:00Z", "of an earlier pod", uid="other"))
    server.api.events.append(kube.event("web-2", "2026-01-02T23:00:00Z", "of another pod"))
    text, data = await server.call("pod_management", action="describe", namespace="default", name="web-1")
    assert data["pod"]["status"] == "CrashLoopBackOff"
    assert data["pod"]["containers"][0]["last_state"].startswith("terminated (OOMKilled, exit code 137")
    assert len(data["pod"]["containers"][0]["last_state"]) < 600
    messages = [event["message"] for event in data["pod"]["events"]]
    assert messages == [f"event {minute}" for minute in range(11, 31)]
    assert "23h ago Warning BackOff (x3): event 30" in text


async def test_describe_without_the_right_to_events_shows_the_rest_and_names_the_verb(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.rules = {("get", "pods", "default")}
    text, data = await server.call("pod_management", action="describe", namespace="default", name="web-1")
    assert data["pod"]["name"] == "web-1"
    assert "grant its ServiceAccount the verb 'list' on 'events' by a Role in namespace default" in text


async def test_delete_is_refused_without_the_flag_and_nothing_is_asked_of_the_api_server(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    said = await server.refused("pod_management", action="delete", namespace="default", name="web-1")
    assert said.startswith("FORBIDDEN: pod web-1 in namespace default is left alone")
    assert "--allow-delete" in said
    assert "ROPEWALK_ALLOW_DELETE=true" in said
    assert server.api.requests == []


async def test_delete_with_the_flag_deletes_and_names_the_owner(server: Server) -> None:
    server.api.pods = [kube.pod("web-1"), kube.pod("web-2")]
    await server.start(allow_delete=True)
    text, data = await server.call("pod_management", action="delete", namespace="default", name="web-1")
    assert [pod["metadata"]["name"] for pod in server.api.pods] == ["web-2"]
    assert text == "Deleted pod web-1 in namespace default. It belongs to ReplicaSet/web-1-rs, which may replace it."
    assert data["pod"]["status"] == "Terminating"


async def test_delete_with_the_flag_but_without_the_right_names_the_verb(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.rules = {("list", "pods", "*")}
    await server.start(allow_delete=True)
    said = await server.refused("pod_management", action="delete", namespace="default", name="web-1")
    assert said.startswith("FORBIDDEN: this server may not delete pods web-1 in namespace default")
    assert "the verb 'delete' on 'pods'" in said


async def test_logs_give_the_newest_lines(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.logs["default", "web-1", "main", False] = [f"line {number}" for number in range(500)]
    text, data = await server.call(
        "logs_retrieval", namespace="default", pod="web-1", tail_lines=2, since_seconds=600, container="main"
    )
    assert data["log"] == "line 498\nline 499\n"
    assert data["lines"] == 2
    assert data["truncated"] is False
    assert text == "2 lines of pod web-1 in namespace default:\nline 498\nline 499\n"
    assert "sinceSeconds=600" in server.api.requests[-1]


async def test_long_logs_lose_their_oldest_lines_and_say_so(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.logs["default", "web-1", "main", False] = [f"line {number} " + "x" * 1000 for number in range(500)]
    text, data = await server.call("logs_retrieval", namespace="default", pod="web-1", tail_lines=2000)
    assert len(data["log"]) <= 65_536
    assert data["log"].startswith("line ")
    assert data["log"].splitlines()[-1].startswith("line 499 ")
    assert data["truncated"] is True
    assert "the newest 65536 characters" in text


async def test_a_log_too_large_to_read_is_cut_and_says_which_end_is_missing(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.logs["default", "web-1", "main", False] = [f"{number} " + "x" * 100_000 for number in range(100)]
    text, data = await server.call("logs_retrieval", namespace="default", pod="web-1")
    assert data["truncated"] is True
    assert "the newest are missing" in text


async def test_logs_of_the_run_before_the_restart_are_read_when_asked_for(server: Server) -> None:
    server.api.pods = [kube.pod("web-1")]
    server.api.logs["default", "web-1", "main", True] = ["last words"]
    text, _ = await server.call("logs_retrieval", namespace="default", pod="web-1", previous=True)
    assert text.endswith("last words\n")


async def test_logs_without_a_container_name_the_choices(server: Server) -> None:
    containers = [{"name": "app"}, {"name": "sidecar"}]
    server.api.pods = [kube.pod("web-1", spec={"containers": containers})]
    said = await server.refused("logs_retrieval", namespace="default", pod="web-1")
    assert said.startswith("INVALID_INPUT: ")
    assert "choose one of: [app sidecar]" in said


@pytest.mark.parametrize("previous", [False, True])
async def test_logs_that_do_not_exist_are_not_found(server: Server, previous: bool) -> None:
    server.api.pods = [kube.pod("web-1")]
    said = await server.refused("logs_retrieval", namespace="default", pod="web-1", previous=previous)
    assert said.startswith("NOT_FOUND: cannot get pods/log web-1 in namespace default")


async def test_a_pod_that_does_not_exist_is_not_found(server: Server) -> None:
    said = await server.refused("pod_management", action="get", namespace="default", name="gone")
    assert said.startswith('NOT_FOUND: cannot get pods gone in namespace default: pods "gone" not found')


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("pod_management", {"action": "list", "namespace": "../../secrets"}, "namespace is '../../secrets'"),
        ("pod_management", {"action": "get", "namespace": "default", "name": "a/../b"}, "name is 'a/../b'"),
        ("pod_management", {"action": "get", "namespace": "default", "name": "x?y=1"}, "name is 'x?y=1'"),
        ("pod_management", {"action": "get", "name": "web-1"}, "namespace is missing"),
        ("pod_management", {"action": "describe", "namespace": "default"}, "name is missing"),
        ("pod_management", {"action": "exec"}, "action is 'exec'"),
        ("pod_management", {}, "action is missing"),
        ("pod_management", {"action": "list", "limit": 501}, "limit is '501'"),
        ("logs_retrieval", {"namespace": "default", "pod": "web-1", "tail_lines": 0}, "tail_lines is '0'"),
        ("logs_retrieval", {"namespace": "default", "pod": "web-1", "container": "A"}, "container is 'A'"),
        ("logs_retrieval", {"namespace": "default"}, "pod is missing"),
    ],
)
async def test_wrong_arguments_are_refused_before_the_api_server_is_asked(
    server: Server, tool: str, arguments: dict[str, object], words: str
) -> None:
    said = await server.refused(tool, **arguments)
    assert said.startswith("INVALID_INPUT: ")
    assert words in said
    assert server.api.requests == []


async def test_a_selector_that_the_api_server_refuses_is_invalid_input(server: Server) -> None:
    said = await server.refused("pod_management", action="list", label_selector="a=(b")
    assert said.startswith("INVALID_INPUT: ")
    assert "unable to parse requirement" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"action": "list", "namespace": "default"}, "the verb 'list' on 'pods' by a Role in namespace default"),
        ({"action": "list"}, "the verb 'list' on 'pods' by a ClusterRole"),
        ({"action": "get", "namespace": "default", "name": "web-1"}, "the verb 'get' on 'pods' by a Role"),
    ],
)
async def test_what_is_not_granted_is_forbidden_and_the_verb_is_named(
    server: Server, arguments: dict[str, object], words: str
) -> None:
    server.api.rules = set()
    said = await server.refused("pod_management", **arguments)
    assert said.startswith("FORBIDDEN: this server may not")
    assert words in said


async def test_logs_that_are_not_granted_name_the_sub_resource(server: Server) -> None:
    server.api.rules = {("get", "pods", "*")}
    server.api.pods = [kube.pod("web-1")]
    said = await server.refused("logs_retrieval", namespace="default", pod="web-1")
    assert "the verb 'get' on 'pods/log' by a Role in namespace default" in said


async def test_credentials_that_are_not_accepted_are_forbidden(server: Server) -> None:
    await server.start(token="stale")
    said = await server.refused("pod_management", action="list")
    assert said.startswith("FORBIDDEN: the API server does not accept this server's credentials")
    assert "stale" not in said


@pytest.mark.parametrize("tool", ["cluster_info", "pod_management"])
async def test_an_api_server_that_never_answers_is_given_up(server: Server, tool: str) -> None:
    server.api.instead = kube.silence
    await server.start(timeout_seconds=0.05)
    arguments = {"action": "list"} if tool == "pod_management" else {}
    said = await server.refused(tool, **arguments)
    assert said.startswith("UPSTREAM_TIMEOUT: the API server did not")
    assert "within 0.05 s" in said


async def test_a_token_that_never_comes_is_given_up(server: Server) -> None:
    async def never(_: Configuration) -> None:
        await asyncio.Event().wait()

    client = ApiClient(Configuration(host=server.api.url))
    client.configuration.refresh_api_key_hook = never
    client.configuration.api_key = {"BearerToken": "old"}
    api = KubeApi(client, timeout_seconds=0.05)
    with pytest.raises(CodedError, match="UPSTREAM_TIMEOUT: the API server did not list pods in the cluster within"):
        await api.get("/api/v1/pods", Access("list", "pods"))
    await api.close()


async def test_connections_are_closed_when_the_server_ends(server: Server) -> None:
    client = ApiClient(Configuration(host=server.api.url))
    tools = KubernetesTools(KubeApi(client, 10), allow_delete=False, now=lambda: NOW)
    async with served(kubernetes_server(tools, CollectorRegistry()).app()) as url, mcp.Client(f"{url}/mcp") as asking:
        await asking.call_tool("cluster_info", {})
        session = client.rest_client.pool_manager
        assert session is not None
        assert not session.closed
    assert session.closed


async def test_an_api_server_that_stops_in_the_middle_is_given_up(server: Server) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"items": [')
        return await kube.silence(request)

    server.api.instead = half
    await server.start(timeout_seconds=0.2)
    said = await server.refused("pod_management", action="list")
    assert said.startswith("UPSTREAM_TIMEOUT: ")


async def test_an_api_server_that_is_gone_is_unavailable(server: Server) -> None:
    server.api.url = "http://127.0.0.1:1"
    said = await server.refused("pod_management", action="list")
    assert said.startswith("UPSTREAM_UNAVAILABLE: the API server cannot be reached to list pods in the cluster")


@pytest.mark.parametrize(
    ("status", "code"), [(429, "RATE_LIMITED"), (500, "UPSTREAM_UNAVAILABLE"), (503, "UPSTREAM_UNAVAILABLE")]
)
async def test_an_api_server_that_fails_says_why_under_a_code(server: Server, status: int, code: str) -> None:
    async def fails(_: web.Request) -> web.StreamResponse:
        return kube.status(status, "Failure", "etcd is on holiday")

    server.api.instead = fails
    said = await server.refused("pod_management", action="list")
    assert said.startswith(f"{code}: ")
    assert "etcd is on holiday)" in said


@pytest.mark.parametrize("text", ["<html>a proxy</html>", "[]", "[" * 100_000])
async def test_an_answer_that_is_no_json_object_is_invalid(server: Server, text: str) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    server.api.instead = page
    said = await server.refused("pod_management", action="list")
    assert said.startswith("UPSTREAM_INVALID: ")
    assert "not a JSON object" in said


async def test_an_answer_without_end_is_not_read_to_its_end(server: Server) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(b" " * 2**20)
        return response

    server.api.instead = flood
    said = await server.refused("pod_management", action="list")
    assert said.startswith("INVALID_INPUT: the answer to list pods in the cluster is larger than")
