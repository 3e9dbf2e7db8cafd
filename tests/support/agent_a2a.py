"""An agent that is talked to by A2A: the a2a-sdk's own client, and what it was told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, Task, TextPart

from agent_server import RunningAgent

CARD = "/.well-known/agent-card.json"


@asynccontextmanager
async def talking(agent: RunningAgent, *, streaming: bool) -> AsyncIterator[Client]:
    """The SDK's client, made from the agent's card."""
    async with httpx.AsyncClient(timeout=10) as http:
        card = await A2ACardResolver(http, str(agent.client.base_url)).get_agent_card()
        yield ClientFactory(ClientConfig(httpx_client=http, streaming=streaming)).create(card)


def said(text: str, context: str | None = "c", **fields: Any) -> Message:
    part = Part(root=TextPart(text=text))
    return Message(role=Role.user, message_id="m", parts=[part], context_id=context, **fields)


async def sent(client: Client, message: Message) -> tuple[Task, list[Any]]:
    """The task at the end, and the updates before."""
    task, updates = None, []
    async for event in client.send_message(message):
        assert isinstance(event, tuple)
        task, update = event
        updates.append(update)
    assert task is not None
    return task, updates


def texts(task: Task) -> list[str]:
    return [part.root.text for a in task.artifacts or () for part in a.parts if isinstance(part.root, TextPart)]


def count(agent: RunningAgent, outcome: str) -> float | None:
    labels = {"endpoint": "/a2a", "outcome": outcome}
    return agent.metrics.registry.get_sample_value("ropewalk_agent_requests_total", labels)


async def rpc(agent: RunningAgent, method: str, params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await agent.client.post("/a2a", json=body)
    assert answer.status_code == 200
    return dict(answer.json())
