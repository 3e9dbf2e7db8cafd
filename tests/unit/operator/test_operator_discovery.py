from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from ropewalk_operator.discovery import Discovery, Target, list_tools, plain
from ropewalk_operator.facts import Discovered, Tool
from ropewalk_operator.kinds import Key

KEY = Key("MCPServer", "default", "math")
FOUND = Discovered((Tool("add", "adds", "sha256:1"),), "v", "math", "1")
TARGET = Target("http://pod:8000/mcp", "pod-1/0", "hash-1")


class Asked:
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.told: list[Key] = []
        self.now = 0.0
        self.answer: Discovered | Exception = FOUND
        self.discovery = Discovery(self.told.append, every_seconds=600, clock=lambda: self.now, ask=self._ask)

    async def _ask(self, url: str) -> Discovered:
        self.urls.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def look(self, target: Target | None = TARGET) -> None:
        """Look, and wait for the answer if that asked."""
        self.discovery.look(KEY, target)
        task = self.discovery._records[KEY].task
        if task is not None:
            await task


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def test_a_server_is_asked_once_for_the_same_pods(asked: Asked) -> None:
    assert asked.discovery.look(KEY, TARGET).pending
    await asked.look()
    view = asked.discovery.look(KEY, TARGET)
    assert (view.discovered, view.error, view.pending, view.next_in_seconds) == (FOUND, None, False, 600)
    assert asked.urls == ["http://pod:8000/mcp"]
    assert asked.told == [KEY]


async def test_other_pods_are_asked_and_what_is_known_of_the_same_spec_holds_meanwhile(asked: Asked) -> None:
    await asked.look()
    other = Target("http://pod2:8000/mcp", "pod-2/0", "hash-1")
    assert asked.discovery.look(KEY, other).discovered == FOUND
    await asked.look(other)
    assert len(asked.urls) == 2


async def test_another_spec_makes_what_is_known_void(asked: Asked) -> None:
    await asked.look()
    assert asked.discovery.look(KEY, Target("u", "pod-2/0", "hash-2")).pending


async def test_without_a_ready_pod_nothing_is_asked_and_what_is_known_holds(asked: Asked) -> None:
    assert asked.discovery.look(KEY, None).pending
    await asked.look()
    asked.now = 10_000
    assert asked.discovery.look(KEY, None).discovered == FOUND
    assert len(asked.urls) == 1


async def test_a_server_is_asked_now_and_then(asked: Asked) -> None:
    await asked.look()
    asked.now = 601
    await asked.look()
    assert len(asked.urls) == 2


async def test_a_failure_is_asked_again_with_growing_delays_and_keeps_what_was_known(asked: Asked) -> None:
    await asked.look()
    asked.answer = ConnectionError("refused")
    asked.now = 601
    delays = []
    for _ in range(3):
        await asked.look()
        view = asked.discovery.look(KEY, TARGET)
        assert view.error == "tools/list at http://pod:8000/mcp failed: refused"
        assert view.discovered == FOUND
        assert view.next_in_seconds is not None
        delays.append(view.next_in_seconds)
        asked.now += view.next_in_seconds
    assert delays == pytest.approx([0.5, 1.0, 2.0])


async def test_a_server_that_is_gone_is_forgotten(asked: Asked) -> None:
    await asked.look()
    asked.discovery.forget(KEY)
    assert asked.discovery.look(KEY, None).pending


def test_errors_are_told_by_their_innermost_words() -> None:
    assert plain(ExceptionGroup("unhandled errors", [ExceptionGroup("more", [ValueError("the point")])])) == "the point"
    assert plain(TimeoutError()) == "no answer within 5 s"
    assert plain(ValueError()) == "ValueError"
    assert len(plain(ValueError("x" * 10_000))) <= 500


@contextlib.contextmanager
def serving(*, description: str) -> Iterator[str]:
    """A real MCP server with one tool."""
    mcp = MCPServer("math", version="7")

    @mcp.tool(description=description)
    def add(a: float, b: float) -> float:
        return a + b

    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = mcp.streamable_http_app(stateless_http=True, json_response=True, host="0.0.0.0")
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            thread.join()


async def test_the_tools_of_a_real_server_are_listed_and_their_hash_follows_their_description() -> None:
    with serving(description="Adds.") as url:
        first = await list_tools(url)
        again = await list_tools(url)
    with serving(description="Adds two numbers.") as url:
        other = await list_tools(url)
    assert first == again
    assert [(tool.name, tool.description) for tool in first.tools] == [("add", "Adds.")]
    assert (first.server_name, first.server_version) == ("math", "7")
    assert first.protocol_version
    assert first.tools[0].hash.startswith("sha256:")
    assert other.tools[0].hash != first.tools[0].hash


async def test_a_server_that_refuses_or_is_no_mcp_server_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Exception) as error:  # noqa: PT011 - whatever the library raises is turned into words
        await list_tools(f"http://127.0.0.1:{port}/mcp")
    assert plain(error.value)


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> None:
    monkeypatch.setattr("ropewalk_operator.discovery.TIME_LIMIT_SECONDS", 0.01)

    async def silent(_url: str) -> Discovered:
        await asyncio.Event().wait()
        return FOUND

    asked.discovery._ask = silent
    await asked.look()
    assert "no answer within" in str(asked.discovery.look(KEY, TARGET).error)
