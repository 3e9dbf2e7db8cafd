"""The two servers that bench.throughput compares, each in a process of its own, with the same scripted model.

`ropewalk` is the agent as it is shipped; only the model is exchanged. `recipe` is what people usually write: FastAPI,
a thread pool with one worker, and the synchronous Agent call in it.
"""

from __future__ import annotations

import os
import sys
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
    """Answers at once, always the same: what is left is the cost of everything around a model."""

    def update_config(self, **model_config: Any) -> None:
        """Nothing to update."""

    def get_config(self) -> dict[str, Any]:
        """No settings."""
        return {}

    async def structured_output(self, *_: Any, **__: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Not asked for here."""
        raise NotImplementedError
        yield {}

    async def stream(self, *_: Any, **__: Any) -> AsyncIterable[Any]:
        """One short text and its usage."""
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": "The answer is 42."}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}
        usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
        yield {"metadata": {"usage": usage, "metrics": {"latencyMs": 0}}}


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
    import asyncio

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


if __name__ == "__main__":
    sys.exit({"ropewalk": ropewalk, "recipe": recipe}[sys.argv[1]]())
