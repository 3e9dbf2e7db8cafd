"""The agent as a process of its own: what it imports, how it refuses bad settings, how it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from unittest.mock import AsyncMock

import httpx
import pytest

from agent_server import agent_config, agent_document
from ports import free_port
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.runtime import Runtime
from waiting import eventually

QUERY = (
    b"POST /query HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nX-Request-Id: asked-by-a-busy-client\r\n"
    b'Content-Length: 14\r\n\r\n{"query": "a"}'
)
SOURCES = Path(__file__).parents[3] / "agent_image" / "src"
PROVIDERS: dict[str, dict[str, str]] = {
    "openai-compatible": {"baseURL": "http://127.0.0.1:9/v1"},
    "openai": {},
    "anthropic": {},
    "bedrock": {"region": "eu-central-1"},
}


def environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES), "ROPEWALK_HOST": "127.0.0.1", **variables}


def write_config(folder: Path, provider: str, fields: dict[str, str]) -> Path:
    model = {"provider": provider, "id": "m", **fields}
    if provider in ("openai", "anthropic"):
        (folder / "key").write_text("k")
        model["apiKeyFile"] = str(folder / "key")
    file = folder / "agent.json"
    file.write_text(
        json.dumps(
            agent_document(model=model, mcpServers=[{"name": "x", "url": "http://127.0.0.1:9/mcp", "required": False}])
        )
    )
    return file


@asynccontextmanager
async def process(
    folder: Path, provider: str, *arguments: str, fields: dict[str, str] | None = None, drain_seconds: float = 5
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    port = free_port()
    variables = environment(
        ROPEWALK_CONFIG_FILE=str(write_config(folder, provider, fields or PROVIDERS[provider])),
        ROPEWALK_PORT=str(port),
        ROPEWALK_DRAIN_SECONDS=str(drain_seconds),
    )
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, *(arguments or ("-m", "ropewalk_agent")), env=variables, stdout=pipe, stderr=pipe
    )
    transport = httpx.AsyncHTTPTransport(retries=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=30) as client:

        async def is_ready_or_over() -> bool:
            return child.returncode is not None or (await client.get("/ready")).status_code == 200

        try:
            await eventually(is_ready_or_over, "the agent is ready", 60)
            yield child, client
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_agent_of_each_provider_starts_and_ends_with_0_on_sigterm(provider: str, tmp_path: Path) -> None:
    async with process(tmp_path, provider) as (child, client):
        assert (await client.get("/health")).json() == {"healthy": True}
        child.send_signal(signal.SIGTERM)
        out, err = await child.communicate()
    assert (child.returncode, err.decode()) == (0, "")
    lines = [json.loads(line) for line in out.decode().splitlines()]
    assert all(line["level"] in {"info", "warning"} for line in lines)
    assert (lines[0]["message"], lines[0]["agent"], lines[0]["namespace"]) == ("agent starting", "tested", "")


async def test_a_kept_connection_that_is_idle_is_closed_while_a_turn_goes_on_to_its_end(tmp_path: Path) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def model(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await may_answer.wait()
        writer.close()

    server = await asyncio.start_server(model, "127.0.0.1", 0)
    base = {"baseURL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}
    async with process(tmp_path, "openai-compatible", fields=base) as (child, client):
        address = client.base_url.host, client.base_url.port
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nHost: kept\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"healthy")
        turn = asyncio.create_task(client.post("/query", json={"query": "a"}))
        await asked.wait()
        child.send_signal(signal.SIGTERM)
        await reader.read()
        assert not turn.done()
        may_answer.set()
        answer = await turn
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_error")
        assert await child.wait() == 0
    writer.close()
    server.close()


@pytest.mark.parametrize("sent", [0, 100, -1], ids=["nothing", "some of the head", "all but a byte"])
async def test_a_request_that_was_on_its_way_at_sigterm_is_answered(tmp_path: Path, sent: int) -> None:
    async with process(tmp_path, "openai-compatible") as (child, client):
        address = client.base_url.host, client.base_url.port
        kept, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nHost: kept\r\n\r\n")
        assert b"200 OK" in await kept.readuntil(b"healthy")
        answer, asking = await asyncio.open_connection(*address)
        asking.write(QUERY[:sent])
        # Both are known to the server by now: it takes them in the order in which they came.
        assert (await client.get("/health")).status_code == 200
        child.send_signal(signal.SIGTERM)
        await kept.read()  # closed: from here on nobody would wait for requests, were it not for this one
        asking.write(QUERY[sent:])
        assert b"model_error" in await answer.read()
        assert await child.wait() == 0
    writer.close()
    asking.close()


async def test_a_turn_that_a_second_sigterm_ends_is_not_told_that_it_was_never_sent(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def model(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()

    server = await asyncio.start_server(model, "127.0.0.1", 0)
    base = {"baseURL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"}
    async with process(tmp_path, "openai-compatible", fields=base) as (child, client):
        turn = asyncio.create_task(client.post("/query", json={"query": "a"}))
        await asked.wait()
        child.send_signal(signal.SIGTERM)
        await eventually(partial(_is_leaving, client), "the first one has come")
        child.send_signal(signal.SIGTERM)
        answer = await turn
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "the agent shut down before its turn was finished"
        await child.wait()
    server.close()


async def _is_leaving(client: httpx.AsyncClient) -> bool:
    return "shutting down" in (await client.get("/ready")).text


async def test_a_request_that_never_comes_as_a_whole_is_refused_at_the_end_as_others_are(tmp_path: Path) -> None:
    async with process(tmp_path, "openai-compatible", drain_seconds=0.5) as (child, client):
        answer, asking = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        asking.write(QUERY[:-1])
        assert (await client.get("/health")).status_code == 200
        child.send_signal(signal.SIGTERM)
        said = await answer.read()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b'"not_ready"' in said
        assert await child.wait() == 0
    asking.close()


HANGS = """
import runpy, threading
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(threading.Event().wait)
runpy.run_module("ropewalk_agent", run_name="__main__")
"""


async def test_a_thread_that_never_returns_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    async with process(tmp_path, "openai", "-c", HANGS) as (child, _):
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            out, err = await child.communicate()
    assert (child.returncode, err.decode()) == (0, "")
    assert json.loads(out.decode().splitlines()[0])["message"] == "agent starting"


@pytest.mark.parametrize("port", ["eighty", "99999", "8080.0"])
def test_bad_settings_end_with_1_and_one_message_that_names_each_problem(tmp_path: Path, port: str) -> None:
    file = tmp_path / "agent.json"
    file.write_text('{"formatVersion": 1}')
    variables = environment(ROPEWALK_CONFIG_FILE=str(file), ROPEWALK_PORT=port)
    ended = subprocess.run(
        [sys.executable, "-m", "ropewalk_agent"], check=False, env=variables, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"the agent cannot start:\n- ROPEWALK_PORT is '{port}'")
    for problem in ("name is missing", "systemPrompt is missing", "model is missing"):
        assert problem in ended.stderr


LEAN = """
import sys
from ropewalk_agent import lean
lean.install(with_boto=False)
import ropewalk_agent.turn, ropewalk_agent.tools.mcp
import strands.models.openai, openai
openai.AsyncOpenAI(api_key="k").chat.completions
for heavy in ("botocore.session", "mcp.server", "openai.resources.images", "openai.types.image", "yaml"):
    assert heavy not in sys.modules, heavy
import mcp, openai.types
assert mcp.Client.__module__ == "mcp.client.client"
assert openai.types.Image.__name__ == "Image"
assert openai.types.chat.ChatCompletion is not None
assert set(openai.resources.__all__) <= {n for n in openai.resources.__all__ if hasattr(openai.resources, n)}
for package in lean.RE_EXPORTING:
    module = sys.modules.get(package)
    for name in getattr(module, "__all__", ()):
        getattr(module, name)
try:
    strands.models.BedrockModel(model_id="x")
except ImportError as error:
    assert "not Bedrock" in str(error)
else:
    raise AssertionError("the stand-in was used")
try:
    openai.types.no_such_name
except AttributeError:
    pass
else:
    raise AssertionError("a name out of nowhere")
"""


def test_lean_imports_leave_out_the_unused_and_give_it_all_on_demand() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LEAN], check=False, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_connection_that_does_not_close_keeps_nothing_else_open(caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime(agent_config(), Metrics())
    stuck, model, sessions = AsyncMock(), AsyncMock(), AsyncMock()
    stuck.stop.side_effect = ValueError("a token")
    runtime._connections, runtime._model, runtime._sessions = (stuck,), model, sessions
    await runtime._shut()
    assert (model.close.await_count, sessions.close.await_count) == (1, 1)
    [record] = [record for record in caplog.records if record.getMessage() == "a part did not close"]
    assert record.__dict__["fields"] == {"error": "ValueError"}
    runtime._bridge._worker.close()
