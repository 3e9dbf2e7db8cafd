"""Lists of pods: what is wrong comes first, and what was not looked at is said. Over the wire."""

import pytest

import mcp_kube_api as kube
from mcp_kube_server import Server


async def test_list_shows_the_pods_of_one_namespace(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1"), kube.pod("coredns-1", "kube-system"), kube.pod("proxy-1", "kube-system")]
    text, data = await kubernetes.call("pod_management", action="list", namespace="kube-system")
    assert [pod["name"] for pod in data["pods"]] == ["coredns-1", "proxy-1"]
    assert text.splitlines()[:2] == [
        "Nothing is wrong: all 2 pods in namespace kube-system are ready; no warnings in the last hour.",
        "2 pods in namespace kube-system:",
    ]
    assert text.splitlines()[3].split() == ["coredns-1", "1/1", "Running", "2", "2d", "node-1"]
    assert "containers" not in data["pods"][0]


async def test_list_without_namespace_shows_all_with_their_namespaces(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1"), kube.pod("coredns-1", "kube-system")]
    text, data = await kubernetes.call("pod_management", action="list")
    assert data["total"] == 2
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["NAMESPACE", "default", "kube-system"]


async def test_list_is_bounded_and_says_how_many_there_are(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod(f"web-{number}") for number in range(7)]
    text, data = await kubernetes.call("pod_management", action="list", namespace="default", limit=3)
    assert len(data["pods"]) == 3
    assert data["total"] == 7
    assert "7 pods in namespace default, 3 of them shown" in text


async def test_list_by_labels_does_not_claim_a_total_that_nobody_counted(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod(f"web-{number}") for number in range(501)] + [kube.pod("dns-1")]
    text, data = await kubernetes.call("pod_management", action="list", label_selector="app=web", limit=3)
    assert len(data["pods"]) == 3
    assert "total" not in data
    assert "only the first 500 pods were looked at" in text


async def test_pods_that_were_not_looked_at_are_not_said_to_be_ready(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod(f"web-{number}") for number in range(501)]
    text, data = await kubernetes.call("pod_management", action="list", limit=1)
    assert text.splitlines()[:2] == [
        "All 500 pods that were looked at in all namespaces are ready; no warnings in the last hour.",
        "Note: only the first 500 pods were looked at; name a namespace, or narrow label_selector",
    ]
    assert data["total"] == 501


async def test_very_many_broken_pods_are_counted_and_not_all_told(kubernetes: Server) -> None:
    waiting = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    broken = {"conditions": [], "containerStatuses": [waiting]}
    kubernetes.api.pods = [kube.pod("fine"), *(kube.pod(f"web-{number}", status=broken) for number in range(60))]
    text, data = await kubernetes.call("pod_management", action="list", limit=60)
    assert text.startswith("60 of 61 pods in all namespaces are not ready: web-0 (ImagePullBackOff), ")
    assert len(data["health"]["attention"]) == 50
    assert "Note: 10 more pods need attention; name a namespace, or narrow label_selector" in text
    assert "fine" not in {pod["name"] for pod in data["pods"]}


async def test_an_empty_namespace_is_said_to_be_empty(kubernetes: Server) -> None:
    text, data = await kubernetes.call("pod_management", action="list", namespace="empty")
    assert text == "There are no pods in namespace empty; no warnings in the last hour."
    assert data["pods"] == []


async def test_a_list_starts_with_what_is_wrong_and_shows_those_pods_first(kubernetes: Server) -> None:
    broken = {
        "name": "main",
        "ready": False,
        "restartCount": 9,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-01-02T23:59:00Z"}},
    }
    kubernetes.api.pods = [
        kube.pod("web-1"),
        kube.pod("web-2", status={"conditions": [], "containerStatuses": [broken]}),
        kube.pod("dns-1", "kube-system"),
    ]
    kubernetes.api.events = [
        kube.event("web-2", "2026-01-02T23:50:00Z", "Back-off restarting failed container"),
        kube.event("web-2", "2026-01-02T20:50:00Z", "too long ago"),
        kube.event("dns-1", "2026-01-02T23:50:00Z", "of another namespace", namespace="kube-system"),
    ]
    text, data = await kubernetes.call("pod_management", action="list", namespace="default", limit=1)
    assert text.splitlines()[:3] == [
        "1 of 2 pods in namespace default is not ready: web-2 (CrashLoopBackOff); 1 warning in the last hour.",
        "  web-2 in default: not ready for 2d: container main is waiting (CrashLoopBackOff, back-off 5m0s restarting); "
        "its last run: terminated (OOMKilled, exit code 137)",
        "  10m ago Pod/web-2 in default: BackOff (x3): Back-off restarting failed container",
    ]
    assert [pod["name"] for pod in data["pods"]] == ["web-2"]
    assert data["health"]["attention"][0]["status"] == "CrashLoopBackOff"
    assert data["health"]["warnings"][0]["about"] == "Pod/web-2"


async def test_a_list_by_labels_shows_the_warnings_about_these_pods_only(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1"), kube.pod("db-1")]
    kubernetes.api.events = [kube.event(name, "2026-01-02T23:50:00Z", f"of {name}") for name in ("web-1", "db-1")]
    text, _ = await kubernetes.call("pod_management", action="list", namespace="default", label_selector="app=web")
    assert "of web-1" in text
    assert "of db-1" not in text


async def test_a_list_without_the_right_to_events_says_so_beside_its_verdict(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1")]
    kubernetes.api.rules = {("list", "pods", "default")}
    text, data = await kubernetes.call("pod_management", action="list", namespace="default")
    assert text.splitlines()[0] == "The only pod in namespace default is ready; warnings may not be read."
    assert "the verb 'list' on 'events' by a Role in namespace default" in text
    assert "warnings" not in data["health"]


async def test_a_server_for_some_namespaces_lists_and_counts_those(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1", "shop"), kube.pod("web-2", "blog"), kube.pod("dns-1", "kube-system")]
    kubernetes.api.rules = {
        (verb, what, name) for verb in ("list",) for what in ("pods", "events") for name in ("shop", "blog")
    }
    await kubernetes.start(namespaces=("shop", "blog"))
    text, data = await kubernetes.call("pod_management", action="list")
    assert {pod["name"] for pod in data["pods"]} == {"web-1", "web-2"}
    assert text.startswith("Nothing is wrong: all 2 pods in namespaces shop, blog are ready")
    text, data = await kubernetes.call("cluster_info")
    assert (data["namespaces"], data["pod_count"]) == (["shop", "blog"], 2)
    assert "verb 'list' on 'nodes' by a ClusterRole" in text
    assert "only these namespaces are looked at" in text


async def test_a_server_for_some_namespaces_does_without_the_one_that_it_may_not_read(kubernetes: Server) -> None:
    kubernetes.api.pods = [kube.pod("web-1", "shop"), kube.pod("web-2", "blog")]
    kubernetes.api.rules = {("list", "pods", "shop")}
    await kubernetes.start(namespaces=("shop", "blog"))
    text, data = await kubernetes.call("pod_management", action="list")
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
    kubernetes: Server, tool: str, arguments: dict[str, object]
) -> None:
    await kubernetes.start(namespaces=("shop", "blog"))
    said = await kubernetes.refused(tool, **arguments)
    assert said.startswith(
        "FORBIDDEN: namespace is 'kube-system', which this server does not look at; use one of shop, blog"
    )
    assert kubernetes.api.requests == []
