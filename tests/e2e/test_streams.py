"""Streams in real pods: what a client reads while pods come and go."""

from __future__ import annotations

import asyncio

import httpx

from e2e_cluster import Workspace, agent
from waiting import eventually, until

_CLIENTS = 50


async def _stream(client: httpx.AsyncClient) -> list[str]:
    """Ask for an answer that takes two seconds, as a stream; the names of its events."""
    question = {"query": "demo:slow=2 Say hello."}
    async with client.stream("POST", "/query", json=question, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status_code == 200, await answer.aread()
        return [line.removeprefix("event: ") async for line in answer.aiter_lines() if line.startswith("event: ")]


async def _streams_until_rolled(space: Workspace, url: str, old: str) -> list[list[str]]:
    """Keep 50 clients streaming, each over connections of its own, until the pod `old` has gone; all their streams."""
    gone = asyncio.Event()
    seen: list[list[str]] = []

    async def keep_streaming() -> None:
        while not gone.is_set():
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                seen.append(await _stream(client))

    async def roll() -> None:
        space.patch("agent/streamer", {"systemPrompt": "You are another one."})
        await asyncio.to_thread(until, lambda: old not in _pods(space), "the old pod is gone", seconds=120)
        gone.set()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CLIENTS):
            tasks.create_task(keep_streaming())
        await eventually(lambda: len(seen) >= _CLIENTS, "a stream for each client", 60)
        tasks.create_task(roll())
    return seen


def _pods(space: Workspace) -> list[str]:
    return space.kubectl("get", "pods", "-l", "ropewalk.dev/agent=streamer", "-o", "name").split()


def test_a_rolling_restart_cuts_no_stream(space: Workspace) -> None:
    space.apply(agent("streamer", concurrency=64))
    space.wait("agent/streamer")
    (old,) = _pods(space)
    seen = asyncio.run(_streams_until_rolled(space, space.url("streamer-agent"), old))
    assert len(seen) > _CLIENTS
    assert [events for events in seen if events[-1:] != ["result"]] == []
