"""What bench compares, each in a process of its own: the agent beside the usual recipe, and an MCP server.

`ropewalk` is the agent as it is shipped; only the model is exchanged. `recipe` is what people usually write: FastAPI,
a thread pool with one worker, and the synchronous Agent call in it. `tools` is an MCP server written with the SDK.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel
from strands import Agent
from strands.models.model import Model

_PROMPT = "You are a calculator."


class Query(BaseModel):
    """The body of the recipe's request."""

    query: str
    session_id: str | None = None


class ScriptedModel(Model):
    """Answers after BENCH_MODEL_SECONDS (0): what is left is the cost of everything around a model.

    The text is the moment at which it is sent (time.monotonic, which all processes of a machine share), or with
    BENCH_MODEL_ANSWER=questions the questions that it was shown, as a JSON list.
    """

    _seconds = float(os.environ.get("BENCH_MODEL_SECONDS") or 0)

    def update_config(self, **model_config: Any) -> None:
        """Nothing to update."""

    def get_config(self) -> dict[str, Any]:
        """No settings."""
        return {}

    async def structured_output(self, *_: Any, **__: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Not asked for here."""
        raise NotImplementedError
        yield {}

    async def stream(self, messages: Any, *_: Any, **__: Any) -> AsyncIterable[Any]:
        """One short text and its usage."""
        if self._seconds:
            await asyncio.sleep(self._seconds)
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": self._text(messages)}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}
        usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
        yield {"metadata": {"usage": usage, "metrics": {"latencyMs": 0}}}

    def _text(self, messages: list[dict[str, Any]]) -> str:
        if os.environ.get("BENCH_MODEL_ANSWER") == "questions":
            return json.dumps([message["content"][0]["text"] for message in messages if message["role"] == "user"])
        return str(time.monotonic())


def ropewalk() -> int:
    """Serve with Ropewalk's own entry point."""
    from ropewalk_agent import models
    from ropewalk_agent.__main__ import main

    async def close() -> None:
        pass

    def build(*_: Any, **__: Any) -> models.BuiltModel:
        return models.BuiltModel(ScriptedModel(), models.KeyFile(None), lambda: None, close)

    models.build = build
    return main()


def recipe() -> int:
    """Serve with the usual recipe."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()
    pool = ThreadPoolExecutor(max_workers=1)
    model = ScriptedModel()

    def answer(query: str) -> str:
        return str(Agent(model=model, system_prompt=_PROMPT, callback_handler=None)(query))

    @app.post("/query")
    async def ask(body: Query) -> dict[str, str]:
        return {"response": await asyncio.get_running_loop().run_in_executor(pool, answer, body.query)}

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["ROPEWALK_PORT"]), log_level="warning", http="httptools")
    return 0


def tools() -> int:
    """Serve one tool at /mcp, and at /last what the last call of it looked like on the wire."""
    import uvicorn
    from mcp.server.mcpserver import MCPServer
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    mcp = MCPServer("bench")
    last: dict[str, Any] = {}

    @mcp.tool()
    def add(a: float, b: float) -> float:
        """Add two numbers."""
        return a + b

    async def plain(send: Send, data: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(data).encode()})

    def recording(app: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] in ("/ready", "/last"):
                await plain(send, last)
                return

            async def receive_and_keep() -> Message:
                message = await receive()
                body = message.get("body", b"")
                if b"tools/call" in body:
                    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                    last.update(headers=headers, body=body.decode())
                return message

            await app(scope, receive_and_keep, send)

        return call

    port = int(os.environ["ROPEWALK_PORT"])
    uvicorn.run(recording(mcp.streamable_http_app()), host="127.0.0.1", port=port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit({"ropewalk": ropewalk, "recipe": recipe, "tools": tools}[sys.argv[1]]())
