"""A tool call over the agent's kept connection, beside the very same request as a raw HTTP POST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx2

from bench.serving import serving

_CALLS, _ROUNDS = 200, 6
_ANSWER = "42"


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    with serving(["-m", "bench.servers", "tools"]) as server:
        mine, raw = asyncio.run(_compare(server.port))
    figure = f"{mine * 1000:.2f} ms against {raw * 1000:.2f} ms: {mine / raw:.1f} ×"
    return [(f"a tool call over a kept connection, best of {_ROUNDS} runs of {_CALLS}", figure, "≤ 2 ×")]


async def _compare(port: int) -> tuple[float, float]:
    """Seconds that a call takes through a Connection, and as a POST of what the Connection sent."""
    from ropewalk_agent.config import McpServerConfig
    from ropewalk_agent.metrics import Metrics
    from ropewalk_agent.tools.mcp import Connection

    connected = asyncio.Event()
    server = McpServerConfig(name="bench", url=f"http://127.0.0.1:{port}/mcp")
    connection = Connection(server, tool_timeout_seconds=30, metrics=Metrics(), changed=connected.set)
    connection.start()
    while not connection.tools:
        connected.clear()
        await connected.wait()
    (tool,) = connection.tools

    async def call() -> None:
        result = await tool.call({"a": 40, "b": 2})
        if result.outcome != "ok":
            raise RuntimeError(f"the call failed: {result}")

    await call()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        last = (await client.get("/last")).json()
        headers = {name: value for name, value in last["headers"].items() if name not in ("host", "content-length")}

        async def post() -> None:
            answer = await client.post("/mcp", headers=headers, content=last["body"])
            if _ANSWER not in answer.text:
                raise RuntimeError(f"the server said {answer.status_code} {answer.text}")

        pairs = [(await _seconds(call), await _seconds(post)) for _ in range(_ROUNDS)]
    await connection.stop()
    return min(mine for mine, _ in pairs), min(raw for _, raw in pairs)


async def _seconds(what: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    for _ in range(_CALLS):
        await what()
    return (time.perf_counter() - began) / _CALLS
