"""The tools of the Kubernetes server over the wire, against a strict API server on loopback."""

import mcp
import pytest
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry

import mcp_kube_api as kube
from mcp_kube_server import NOW, Server
from mcp_wire import served
from ropewalk_mcp_kubernetes.api import KubeApi
from ropewalk_mcp_kubernetes.server import KubernetesTools, kubernetes_server


async def test_cluster_info_shows_version_nodes_namespaces_and_pods(kubernetes: Server) -> None:
    kubernetes.api.nodes = [kube.node("node-1"), kube.node("node-2", Ready="False", DiskPressure="True")]
    kubernetes.api.pods = [kube.pod("web-1"), kube.pod("web-2"), kube.pod("dns", "kube-system")]
    text, data = await kubernetes.call("cluster_info")
    assert data["version"] == "v1.34.4"
    assert (data["node_count"], data["namespace_count"], data["pod_count"]) == (2, 2, 3)
    assert [node["ready"] for node in data["nodes"]] == [True, False]
    assert data["nodes"][0]["roles"] == ["control-plane"]
    assert data["nodes"][0]["capacity"] == {"cpu": "2", "memory": "4Gi", "pods": "110"}
    assert "node-2: NotReady" in text
    assert "DiskPressure: DiskPressureReason" in text
    assert "Namespaces: 2 (default, kube-system)" in text
    assert "notes" not in data


async def test_cluster_info_counts_what_it_does_not_list(kubernetes: Server) -> None:
    kubernetes.api.namespaces = [f"team-{number}" for number in range(130)]
    text, data = await kubernetes.call("cluster_info")
    assert data["namespace_count"] == 130
    assert len(data["namespaces"]) == 100
    assert "the first 100 shown" in text


async def test_cluster_info_does_without_what_it_may_not_read_and_names_the_verb(kubernetes: Server) -> None:
    kubernetes.api.rules = {("list", "pods", "*")}
    text, data = await kubernetes.call("cluster_info")
    assert data["pod_count"] == 0
    assert "nodes" not in data
    assert "verb 'list' on 'nodes' by a ClusterRole" in text
    assert len(data["notes"]) == 2


@pytest.mark.parametrize("allow_delete", [False, True])
async def test_the_tools_only_read_unless_deletion_is_allowed(kubernetes: Server, allow_delete: bool) -> None:
    await kubernetes.start(allow_delete=allow_delete)
    tools = await kubernetes.tools()
    assert list(tools) == ["cluster_info", "pod_management", "logs_retrieval"]
    only_reads = {
        name: tool.annotations is not None and tool.annotations.read_only_hint for name, tool in tools.items()
    }
    assert only_reads == {"cluster_info": True, "pod_management": not allow_delete, "logs_retrieval": True}
    assert all("\n  " not in (tool.description or "") for tool in tools.values())


async def test_get_shows_containers_and_no_events(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    text, data = await kubernetes.call("pod_management", action="get", namespace="default", name="web-1")
    assert data["pod"]["containers"][0]["state"] == "running"
    assert data["pod"]["owner"] == "ReplicaSet/web-1-rs"
    assert "events" not in data["pod"]
    assert "limits: memory=64Mi" in text


async def test_describe_shows_why_a_container_died_and_the_latest_events_of_this_pod(kubernetes: Server) -> None:
    crashed = {
        "name": "main",
        "ready": False,
        "restartCount": 9,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "message": "x" * 2000}},
    }
    kubernetes.api.pods = [kube.pod("web-1", status={"containerStatuses": [crashed]})]
    kubernetes.api.events = [
        kube.event("web-1", f"2026-01-02T00:{minute:02}:00Z", f"event {minute}") for minute in range(30, 0, -1)
    ]
    kubernetes.api.events.append(kube.event("web-1", "2026-01-02T23:00:00Z", "of an earlier pod", uid="other"))
    kubernetes.api.events.append(kube.event("web-2", "2026-01-02T23:00:00Z", "of another pod"))
    text, data = await kubernetes.call("pod_management", action="describe", namespace="default", name="web-1")
    assert data["pod"]["status"] == "CrashLoopBackOff"
    assert data["pod"]["containers"][0]["last_state"].startswith("terminated (OOMKilled, exit code 137")
    assert len(data["pod"]["containers"][0]["last_state"]) < 600
    messages = [event["message"] for event in data["pod"]["events"]]
    assert messages == [f"event {minute}" for minute in range(11, 31)]
    assert "23h ago Warning BackOff (x3): event 30" in text


async def test_describe_without_the_right_to_events_shows_the_rest_and_names_the_verb(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.rules = {("get", "pods", "default")}
    text, data = await kubernetes.call("pod_management", action="describe", namespace="default", name="web-1")
    assert data["pod"]["name"] == "web-1"
    assert "grant its ServiceAccount the verb 'list' on 'events' by a Role in namespace default" in text


async def test_delete_is_refused_without_the_flag_and_nothing_is_asked_of_the_api_server(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    said = await kubernetes.refused("pod_management", action="delete", namespace="default", name="web-1")
    assert said.startswith("FORBIDDEN: pod web-1 in namespace default is left alone")
    assert "--allow-delete" in said
    assert "ROPEWALK_ALLOW_DELETE=true" in said
    assert kubernetes.api.requests == []


async def test_delete_with_the_flag_deletes_and_names_the_owner(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1"), kube.pod("web-2")]
    await kubernetes.start(allow_delete=True)
    text, data = await kubernetes.call("pod_management", action="delete", namespace="default", name="web-1")
    assert [pod["metadata"]["name"] for pod in kubernetes.api.pods] == ["web-2"]
    assert text == "Deleted pod web-1 in namespace default. It belongs to ReplicaSet/web-1-rs, which may replace it."
    assert data["pod"]["status"] == "Terminating"


async def test_delete_with_the_flag_but_without_the_right_names_the_verb(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.rules = {("list", "pods", "*")}
    await kubernetes.start(allow_delete=True)
    said = await kubernetes.refused("pod_management", action="delete", namespace="default", name="web-1")
    assert said.startswith("FORBIDDEN: this server may not delete pods web-1 in namespace default")
    assert "the verb 'delete' on 'pods'" in said


async def test_logs_give_the_newest_lines(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.logs["default", "web-1", "main", False] = [f"line {number}" for number in range(500)]
    text, data = await kubernetes.call(
        "logs_retrieval", namespace="default", pod="web-1", tail_lines=2, since_seconds=600, container="main"
    )
    assert data["log"] == "line 498\nline 499\n"
    assert data["lines"] == 2
    assert data["truncated"] is False
    assert text == "2 lines of pod web-1 in namespace default:\nline 498\nline 499\n"
    assert "sinceSeconds=600" in kubernetes.api.requests[-1]


async def test_long_logs_lose_their_oldest_lines_and_say_so(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.logs["default", "web-1", "main", False] = [f"line {number} " + "x" * 1000 for number in range(500)]
    text, data = await kubernetes.call("logs_retrieval", namespace="default", pod="web-1", tail_lines=2000)
    assert len(data["log"]) <= 65_536
    assert data["log"].startswith("line ")
    assert data["log"].splitlines()[-1].startswith("line 499 ")
    assert data["truncated"] is True
    assert "the newest 65536 characters" in text


async def test_a_log_too_large_to_read_is_cut_and_says_which_end_is_missing(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.logs["default", "web-1", "main", False] = [f"{number} " + "x" * 100_000 for number in range(100)]
    text, data = await kubernetes.call("logs_retrieval", namespace="default", pod="web-1")
    assert data["truncated"] is True
    assert "the newest are missing" in text


async def test_logs_of_the_run_before_the_restart_are_read_when_asked_for(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.logs["default", "web-1", "main", True] = ["last words"]
    text, _ = await kubernetes.call("logs_retrieval", namespace="default", pod="web-1", previous=True)
    assert text.endswith("last words\n")


async def test_logs_without_a_container_name_the_choices(kubernetes: Server) -> None:
    containers = [{"name": "app"}, {"name": "sidecar"}]
    kubernetes.api.pods = [kube.pod("web-1", spec={"containers": containers})]
    said = await kubernetes.refused("logs_retrieval", namespace="default", pod="web-1")
    assert said.startswith("INVALID_INPUT: ")
    assert "choose one of: [app sidecar]" in said


@pytest.mark.parametrize("previous", [False, True])
async def test_logs_that_do_not_exist_are_not_found(kubernetes: Server, previous: bool) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    said = await kubernetes.refused("logs_retrieval", namespace="default", pod="web-1", previous=previous)
    assert said.startswith("NOT_FOUND: cannot get pods/log web-1 in namespace default")


async def test_connections_are_closed_when_the_server_ends(kubernetes: Server) -> None:
    client = ApiClient(Configuration(host=kubernetes.api.url))
    tools = KubernetesTools(KubeApi(client, 10), allow_delete=False, now=lambda: NOW)
    async with served(kubernetes_server(tools, CollectorRegistry()).app()) as url, mcp.Client(f"{url}/mcp") as asking:
        await asking.call_tool("cluster_info", {})
        session = client.rest_client.pool_manager
        assert session is not None
        assert not session.closed
    assert session.closed
