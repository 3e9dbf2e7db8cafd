"""Asks an agent as OpenAI's own client does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from agent_server import RunningAgent

QUESTION = [{"role": "user", "content": "what?"}]


@asynccontextmanager
async def asked(agent: RunningAgent, *, max_retries: int = 0) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client, which by default must not hide an error by asking again."""
    url = f"{agent.client.base_url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=max_retries, timeout=60) as client:
        yield client


async def say(client: AsyncOpenAI, messages: Any = QUESTION, **fields: Any) -> Any:
    """Ask for a completion: a ChatCompletion, or its stream."""
    return await client.chat.completions.create(model="tested", messages=messages, **fields)


async def chunks(client: AsyncOpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    """Ask for a stream and read it to its end."""
    return [chunk async for chunk in await say(client, stream=True, **fields)]


def text_of(stream: list[ChatCompletionChunk]) -> str:
    """The text of the answer that came so far."""
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
