"""What the Kubernetes server refuses, and what it says when the API server refuses, fails or is gone. Over the wire."""

import asyncio

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

import mcp_kube_api as kube
from mcp_kube_server import Server
from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_kubernetes.api import Access, KubeApi


async def test_a_pod_that_does_not_exist_is_not_found(kubernetes: Server) -> None:
    said = await kubernetes.refused("pod_management", action="get", namespace="default", name="gone")
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
    kubernetes: Server, tool: str, arguments: dict[str, object], words: str
) -> None:
    said = await kubernetes.refused(tool, **arguments)
    assert said.startswith("INVALID_INPUT: ")
    assert words in said
    assert kubernetes.api.requests == []


async def test_a_selector_that_the_api_server_refuses_is_invalid_input(kubernetes: Server) -> None:
    said = await kubernetes.refused("pod_management", action="list", label_selector="a=(b")
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
    kubernetes: Server, arguments: dict[str, object], words: str
) -> None:
    kubernetes.api.rules = set()
    said = await kubernetes.refused("pod_management", **arguments)
    assert said.startswith("FORBIDDEN: this server may not")
    assert words in said


async def test_logs_that_are_not_granted_name_the_sub_resource(kubernetes: Server) -> None:
    kubernetes.api.rules = {("get", "pods", "*")}
    kubernetes.api.pods = [kube.pod("web-1")]
    said = await kubernetes.refused("logs_retrieval", namespace="default", pod="web-1")
    assert "the verb 'get' on 'pods/log' by a Role in namespace default" in said


async def test_credentials_that_are_not_accepted_are_forbidden(kubernetes: Server) -> None:
    await kubernetes.start(token="stale")
    said = await kubernetes.refused("pod_management", action="list")
    assert said.startswith("FORBIDDEN: the API server does not accept this server's credentials")
    assert "stale" not in said


@pytest.mark.parametrize("tool", ["cluster_info", "pod_management"])
async def test_an_api_server_that_never_answers_is_given_up(kubernetes: Server, tool: str) -> None:
    kubernetes.api.instead = kube.silence
    await kubernetes.start(timeout_seconds=0.05)
    arguments = {"action": "list"} if tool == "pod_management" else {}
    said = await kubernetes.refused(tool, **arguments)
    assert said.startswith("UPSTREAM_TIMEOUT: the API server did not")
    assert "within 0.05 s" in said


async def test_a_token_that_never_comes_is_given_up(kubernetes: Server) -> None:
    async def never(_: Configuration) -> None:
        await asyncio.Event().wait()

    client = ApiClient(Configuration(host=kubernetes.api.url))
    client.configuration.refresh_api_key_hook = never
    client.configuration.api_key = {"BearerToken": "old"}
    api = KubeApi(client, timeout_seconds=0.05)
    with pytest.raises(CodedError, match="UPSTREAM_TIMEOUT: the API server did not list pods in the cluster within"):
        await api.get("/api/v1/pods", Access("list", "pods"))
    await api.close()


async def test_an_api_server_that_stops_in_the_middle_is_given_up(kubernetes: Server) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"items": [')
        return await kube.silence(request)

    kubernetes.api.instead = half
    await kubernetes.start(timeout_seconds=0.2)
    said = await kubernetes.refused("pod_management", action="list")
    assert said.startswith("UPSTREAM_TIMEOUT: ")


async def test_an_api_server_that_is_gone_is_unavailable(kubernetes: Server) -> None:
    kubernetes.api.url = "http://127.0.0.1:1"
    said = await kubernetes.refused("pod_management", action="list")
    assert said.startswith("UPSTREAM_UNAVAILABLE: the API server cannot be reached to list pods in the cluster")


@pytest.mark.parametrize(
    ("status", "code"), [(429, "RATE_LIMITED"), (500, "UPSTREAM_UNAVAILABLE"), (503, "UPSTREAM_UNAVAILABLE")]
)
async def test_an_api_server_that_fails_says_why_under_a_code(kubernetes: Server, status: int, code: str) -> None:
    async def fails(_: web.Request) -> web.StreamResponse:
        return kube.status(status, "Failure", "etcd is on holiday")

    kubernetes.api.instead = fails
    said = await kubernetes.refused("pod_management", action="list")
    assert said.startswith(f"{code}: ")
    assert "etcd is on holiday)" in said


@pytest.mark.parametrize("text", ["<html>a proxy</html>", "[]", "[" * 100_000])
async def test_an_answer_that_is_no_json_object_is_invalid(kubernetes: Server, text: str) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    kubernetes.api.instead = page
    said = await kubernetes.refused("pod_management", action="list")
    assert said.startswith("UPSTREAM_INVALID: ")
    assert "not a JSON object" in said


async def test_an_answer_without_end_is_not_read_to_its_end(kubernetes: Server) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(b" " * 2**20)
        return response

    kubernetes.api.instead = flood
    said = await kubernetes.refused("pod_management", action="list")
    assert said.startswith("INVALID_INPUT: the answer to list pods in the cluster is larger than")
