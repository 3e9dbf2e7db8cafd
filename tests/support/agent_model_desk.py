"""A TurnRunner on the real clients of model providers, and the settings that lead to a local server."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

import pytest

from agent_server import agent_config
from ropewalk_agent.bridge import Turn
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.models import build, chain
from ropewalk_agent.sessions.memory import MemorySessions
from ropewalk_agent.tools import Tool
from ropewalk_agent.turn import TurnRunner


def model_document(protocol: str, url: str, key_file: Path, **changes: Any) -> dict[str, Any]:
    """Return the `model` of an agent.json that reaches a server at this address, with fields replaced."""
    openai_like = protocol in ("openai", "openai-compatible", "litellm")
    return {
        "provider": protocol,
        "id": "openai/m" if protocol == "litellm" else "m",
        "baseURL": f"{url}/v1" if openai_like else url,
        "apiKeyFile": str(key_file),
        **({"region": "eu-central-1"} if protocol == "bedrock" else {}),
        **changes,
    }


class Desk:
    """A TurnRunner on real clients of one or more models, with its surroundings. Close it."""

    def __init__(self, *models: dict[str, Any], tools: tuple[Tool, ...] = (), timeout_seconds: float = 10) -> None:
        self.config = agent_config(model=models[0], fallbacks=models[1:])
        self.sessions = MemorySessions(ttl_seconds=60, max_sessions=10, clock=lambda: 0.0)
        self.metrics = Metrics()
        configs = (self.config.model, *self.config.fallbacks)
        parts = [build(config, timeout_seconds) for config in configs]
        self.built = chain(parts, configs, timeout_seconds, self.metrics.model_fallbacks)
        self.runner = TurnRunner(self.config, self.built, lambda: tools, self.sessions, self.metrics)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.built.close()

    async def told(self, query: str = "question", session: str = "s") -> AsyncGenerator[Any, None]:
        """Yield the events of a turn."""
        request = TurnRequest(query, session, "", "r", streaming=True)
        async with aclosing(self.runner.run(request, Turn(0.0))) as events:
            async for event in events:
                yield event

    async def answer(self, query: str = "question", session: str = "s") -> Answer:
        """Return the answer of a turn."""
        answer: Answer = [event async for event in self.told(query, session)][-1]
        return answer

    async def failure(self, query: str = "question") -> str:
        """Return what a turn that must fail with model_error says."""
        with pytest.raises(AgentError) as failed:
            await self.answer(query)
        assert failed.value.code == "model_error"
        return failed.value.message

    def sample(self, name: str, **labels: str) -> float | None:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels)
