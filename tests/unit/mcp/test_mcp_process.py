"""The servers as processes: start, help, wrong settings, SIGTERM."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ropewalk_mcp_process.sockets import listening

ROOT = Path(__file__).parents[3]


def environment(**more: str) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")}
    return plain | {"PYTHONPATH": str(ROOT / "mcp_images"), "PYTHONUNBUFFERED": "1"} | more


def run(module: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def started(module: str, *arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], env=environment(**more), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        serving = json.loads(process.stderr.readline())
        assert serving["message"] == "serving"
        yield process, serving["port"]
    finally:
        process.kill()
        process.communicate()


def test_sigterm_ends_the_server_with_exit_code_0_and_json_lines_only() -> None:
    with started("ropewalk_mcp_math", "--port", "0") as (process, port), httpx.Client() as http:
        # The connection stays open: an idle client must not hold the server up.
        assert http.get(f"http://127.0.0.1:{port}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        for line in process.stderr:
            assert {"time", "level", "logger", "message"} <= set(json.loads(line))


def test_a_client_that_listens_for_changed_tools_does_not_hold_up_the_end() -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    meta["io.modelcontextprotocol/clientInfo"] = {"name": "listener", "version": "1"}
    params = {"_meta": meta, "notifications": {"toolsListChanged": True}}
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
    headers = {"accept": "application/json, text/event-stream", "mcp-method": "subscriptions/listen"}
    headers["mcp-protocol-version"] = "2026-07-28"
    with started("ropewalk_mcp_math", "--port", "0") as (process, port), httpx.Client() as http:
        with http.stream("POST", f"http://127.0.0.1:{port}/mcp", json=listen, headers=headers) as answer:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        assert answer.status_code == 404


def test_the_port_is_taken_from_the_environment() -> None:
    with started("ropewalk_mcp_math", ROPEWALK_PORT="0") as (_, port):
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


async def test_answers_are_sent_at_once_and_on_all_addresses() -> None:
    delays: asyncio.Queue[int] = asyncio.Queue()

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        delays.put_nowait(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listening(0)
    host, port = listener.getsockname()
    assert host == "0.0.0.0"
    async with await asyncio.start_server(accepted, sock=listener):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await delays.get() == 1
        writer.close()


def test_the_kubernetes_server_starts_with_a_kubeconfig(tmp_path: Path) -> None:
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    config = {
        "clusters": [cluster],
        "users": [{"name": "u", "user": {}}],
        "contexts": [context],
        "current-context": "x",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    with started("ropewalk_mcp_kubernetes", "--port", "0", KUBECONFIG=str(file)) as (process, port):
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_the_kubernetes_server_without_credentials_says_what_to_set() -> None:
    done = run("ropewalk_mcp_kubernetes")
    assert done.returncode == 1
    said = json.loads(done.stderr)
    assert said["level"] == "error"
    assert "spec.pod.serviceAccountName" in said["message"]
    assert "KUBECONFIG" in said["message"]


@pytest.mark.parametrize("content", ["clusters: [", "", "[]"])
def test_the_kubernetes_server_with_a_kubeconfig_that_is_none_says_so(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    done = run("ropewalk_mcp_kubernetes", KUBECONFIG=str(file))
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"] == f"KUBECONFIG is {str(file)!r}, which is no kubeconfig"


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("ropewalk_mcp_math", ["--port"]),
        ("ropewalk_mcp_kubernetes", ["--port", "--allow-delete", "ROPEWALK_ALLOW_DELETE"]),
    ],
)
def test_help_names_the_options(module: str, options: list[str]) -> None:
    done = run(module, "--help")
    assert done.returncode == 0
    for option in options:
        assert option in done.stdout


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [("ROPEWALK_PORT", "http", "65535"), ("ROPEWALK_PORT", "70000", "65535"), ("ROPEWALK_ALLOW_DELETE", "yes", "true")],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    done = run("ropewalk_mcp_kubernetes", **{variable: value})
    assert done.returncode == 2
    assert f"{variable} is {value!r}" in done.stderr
    assert allowed in done.stderr
