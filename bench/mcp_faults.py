"""What an agent's client sees when an MCP server fails, how long that takes, and what another session sees meanwhile.

All on loopback, and all but the server that is killed in one process: the times hold what the servers' side costs, too.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer

from agent_mcp import Asked, Rogue
from agent_mcp_faults import cut_off, fifty_megabytes, five_hundred, garbage, stream_without_an_answer, unauthorized
from agent_models import Call, ScriptedModel
from agent_server import RunningAgent, running_agent
from mcp_wire import served
from ports import free_port
from waiting import eventually

_TIMES = 3
"""Fewer failures than open the breaker of a server."""
_LIMIT_SECONDS = 1
_GOAL = "the tool's error; others unharmed"
_SHOWN_CHARACTERS = 160


async def _hang(_: Asked) -> None:
    await asyncio.Event().wait()


_FAULTS: dict[str, tuple[str, Callable[[Asked], Awaitable[None]]]] = {
    "hanging": (f"hangs (limit {_LIMIT_SECONDS} s)", _hang),
    "status500": ("returns 500", five_hundred),
    "status401": ("returns 401", unauthorized),
    "garbage": ("returns garbage", garbage),
    "large": ("returns 50 MB", fifty_megabytes),
    "silent": ("ends its stream without an answer", stream_without_an_answer),
    "cut": ("cuts its answer off", cut_off),
}


class _Repeats(ScriptedModel):
    """Calls the tool that the question names, and answers with what the tool said."""

    async def stream(self, messages: Any, *more: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        last = messages[-1]["content"][-1]
        says = last["toolResult"]["content"][0]["text"] if "toolResult" in last else Call(last["text"])
        async for event in ScriptedModel([says]).stream(messages, *more, **options):
            yield event


class _Mortal:
    """An MCP server in a process of its own, which can be killed while it works, and comes back with another tool."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, tool: str) -> None:
        """Serve this tool: a call of `work` never ends, any other is answered "done"."""
        command = (sys.executable, "-m", "bench.mcp_faults", str(self.port), tool)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    async def until_it_works(self) -> None:
        """Return when a call has begun."""
        assert self._process
        assert self._process.stdout
        await self._process.stdout.readline()

    async def die(self) -> None:
        """SIGKILL."""
        assert self._process
        self._process.kill()
        await self._process.wait()


def serve(port: int, tool: str) -> None:
    """Be the server that dies: says on standard output when a call has begun."""
    program = MCPServer("mortal")

    async def work() -> str:
        if tool == "work":
            print("begun", flush=True)
            await asyncio.Event().wait()
        return "done"

    program.add_tool(work, name=tool)
    uvicorn.run(program.streamable_http_app(stateless_http=True, json_response=True), port=port, log_config=None)


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    return asyncio.run(_rows())


async def _rows() -> list[tuple[str, str, str]]:
    async with AsyncExitStack() as stack:
        servers = [_server("good", await stack.enter_async_context(served(Rogue())))]
        for name, (_, behaviour) in _FAULTS.items():
            rogue = Rogue()
            rogue.on_call = behaviour
            server = _server(name, await stack.enter_async_context(served(rogue)))
            servers.append(server | ({"toolTimeoutSeconds": _LIMIT_SECONDS} if name == "hanging" else {}))
        mortal = _Mortal()
        await mortal.start("work")
        stack.push_async_callback(mortal.die)
        servers.append(_server("mortal", f"http://127.0.0.1:{mortal.port}"))
        agent = await stack.enter_async_context(running_agent(_Repeats(), mcpServers=servers))
        rows = [await _fault(agent, what, name) for name, (what, _) in _FAULTS.items()]
        return [*rows, *await _death(agent, mortal)]


async def _fault(agent: RunningAgent, what: str, name: str) -> tuple[str, str, str]:
    """The row of a server that fails in every call, the quickest of a few."""
    seen = [await _beside_another(agent, agent.query(f"{name}_add")) for _ in range(_TIMES)]
    said, seconds, other = min(seen, key=lambda one: one[1])
    return _row(what, said, seconds, other)


async def _death(agent: RunningAgent, mortal: _Mortal) -> list[tuple[str, str, str]]:
    """Rows of a server that dies, is away, and comes back with other tools."""
    asked = asyncio.ensure_future(agent.query("mortal_work"))
    await mortal.until_it_works()
    await mortal.die()
    dead = _row("dies during a call (SIGKILL)", *await _beside_another(agent, asked))
    away = _row("is away, the next call", *await _beside_another(agent, agent.query("mortal_work")))
    began = time.perf_counter()
    await mortal.start("other")

    async def has_the_other_tool() -> bool:
        return "mortal_other" in (await agent.client.get("/tools")).text

    await eventually(has_the_other_tool, "the new tool is there", seconds=60)
    known = time.perf_counter() - began
    said, seconds, other = await _beside_another(agent, agent.query("mortal_other"))
    back = _row("is back with other tools", said, seconds, other)
    return [
        dead,
        away,
        (back[0], f"known {known:.2f} s after the start of its process; {back[1]}", "known within some seconds"),
    ]


async def _beside_another(agent: RunningAgent, asked: Awaitable[Any]) -> tuple[str, float, str]:
    """What the asker sees, after how many seconds, and what a session that uses another server sees meanwhile."""
    began = time.perf_counter()

    async def timed() -> tuple[Any, float]:
        answer = await asked
        return answer, time.perf_counter() - began

    (answer, seconds), other = await asyncio.gather(timed(), agent.query("good_add"))
    return f"{answer.status_code}: {_text(answer)}", seconds, _text(other)


def _text(answer: Any) -> str:
    body = answer.json()
    return str(body.get("response") or body.get("error", {}).get("message"))


def _row(what: str, said: str, seconds: float, other: str) -> tuple[str, str, str]:
    unharmed = "another session is answered" if other == "done" else f"ANOTHER SESSION SEES: {other}"
    figure = f"{said[:_SHOWN_CHARACTERS]}; after {seconds * 1000:.0f} ms; {unharmed}"
    return f"an MCP server {what}", figure.replace("|", "/").replace("\n", " "), _GOAL


def _server(name: str, url: str) -> dict[str, Any]:
    return {"name": name, "url": f"{url}/mcp", "prefix": f"{name}_"}


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
