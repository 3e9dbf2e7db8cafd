"""A whole agent over real HTTP, and a real MCP server that can die and come back, both on loopback ports."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from mcp.server.mcpserver import MCPServer

from agent_models import ScriptedModel, built
from ports import free_port
from ropewalk_agent.app import create_app
from ropewalk_agent.config import AgentConfig, parse
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import turns
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.tracing import Tracing
from ropewalk_agent.transport import Protocol
from waiting import eventually, until


def agent_document(**changes: Any) -> dict[str, Any]:
    """Return a valid agent.json as a dict, with top-level fields replaced."""
    model = {"provider": "openai-compatible", "id": "scripted", "baseURL": "http://127.0.0.1:9/v1"}
    return {"formatVersion": 1, "name": "tested", "systemPrompt": "You are tested.", "model": model, **changes}


def agent_config(**changes: Any) -> AgentConfig:
    """Return a valid AgentConfig, with top-level fields replaced."""
    return parse(agent_document(**changes))


@dataclass
class RunningAgent:
    """An agent that answers at `client`'s base URL."""

    client: httpx.AsyncClient
    runtime: Runtime
    model: ScriptedModel
    metrics: Metrics

    async def query(self, text: str, **fields: Any) -> httpx.Response:
        """POST /query."""
        return await self.client.post("/query", json={"query": text, **fields})

    async def until(self, path: str, status: int, *, saying: str = "") -> httpx.Response:
        """GET until the answer has this status and this text in its body."""

        async def look() -> httpx.Response:
            answer = await self.client.get(path)
            seen = f"{answer.status_code} {answer.text}"
            assert answer.status_code == status, seen
            assert saying in answer.text, seen
            return answer

        return await eventually(look, f"{path} answers {status} {saying}")


@asynccontextmanager
async def running_agent(
    model: ScriptedModel | None, /, *, wait: bool = True, traces: Tracing | None = None, **changes: Any
) -> AsyncIterator[RunningAgent]:
    """Run an agent with this model and these fields of agent.json until the block ends; None is the model they name."""
    config, metrics = agent_config(**changes), Metrics()
    runtime = Runtime(config, metrics, build_model=None if model is None else lambda *_: built(model))
    port = free_port()
    options: dict[str, Any] = {"http": Protocol, "ws": "websockets-sansio", "ws_max_size": turns.LARGEST_BODY}
    options |= {"ws_per_message_deflate": False, "log_config": None, "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(create_app(config, runtime, metrics, traces), port=port, **options))
    serving = asyncio.create_task(server._serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        try:
            await eventually(lambda: server.started)
            agent = RunningAgent(client, runtime, model or ScriptedModel(), metrics)
            if wait:
                await agent.until("/ready", 200)
            yield agent
        finally:
            await client.aclose()
            server.should_exit = True
            await serving


class LoopbackMcpServer:
    """A real MCP server over streamable HTTP, in a thread of its own; keeps its port when it comes back."""

    def __init__(self, server: MCPServer) -> None:
        self._server = server
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._uvicorn: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve; returns when the port is open."""
        app = self._server.streamable_http_app(stateless_http=True, json_response=True, host="127.0.0.1")
        config = uvicorn.Config(app, port=self.port, log_config=None, ws="none", timeout_graceful_shutdown=0)
        self._uvicorn = server = uvicorn.Server(config)
        self._thread = thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started or not thread.is_alive(), f"the MCP server at {self.url} starts", 20)
        if not server.started:
            raise RuntimeError(f"the MCP server at {self.url} did not start")

    def stop(self) -> None:
        """Die at once, with all connections."""
        if self._uvicorn is not None and self._thread is not None:
            self._uvicorn.should_exit = self._uvicorn.force_exit = True
            self._thread.join(5)
            self._uvicorn = self._thread = None
