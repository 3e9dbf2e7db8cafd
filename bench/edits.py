"""Edits among many Agents: how long until the Deployments that they concern are changed.

With `bare` there is no operator, and the client changes the ConfigMaps and then the Deployments itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any

from bench.bare_client import BareClient, at_once

EDITS = 100
MODEL_SPEC = {"provider": "openai-compatible", "id": "m", "baseURL": "http://model:8080/v1"}
_MODEL, _MODEL_USERS = "shared", 500
_LONGEST_SECONDS = 900


def users(size: int) -> list[str]:
    """The Agents that use the Model."""
    return [f"agent-{number:05}" for number in range(min(size, _MODEL_USERS))]


def model() -> dict[str, Any]:
    """The Model that they share."""
    # Not what the Agents had before, or the change to it would be none.
    spec = MODEL_SPEC | {"id": "shared"}
    return {"apiVersion": "ropewalk.dev/v1alpha1", "kind": "Model", "metadata": {"name": _MODEL}, "spec": spec}


async def edit(size: int, user: BareClient, *, bare: bool) -> list[float]:
    """Seconds that each edit took; the next one is made when the Deployment has changed."""
    chosen, taken = random.Random(size), []
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    listening = asyncio.create_task(_listen(user, await user.version("Deployment"), seen))
    async with asyncio.timeout(_LONGEST_SECONDS):
        for number in range(EDITS):
            name = f"agent-{chosen.randrange(size):05}"
            before = _config_hash(await user.get("Deployment", f"{name}-agent"))
            began = time.perf_counter()
            await user.merge("Agent", name, {"spec": {"systemPrompt": f"You are calculator {number}."}})
            if bare:
                await _change(user, name, str(number))
            while True:
                deployment, after = await seen.get()
                if deployment == f"{name}-agent" and after != before:
                    break
            taken.append(time.perf_counter() - began)
    listening.cancel()
    return taken


async def share_a_model(size: int, user: BareClient) -> None:
    """Let the first Agents use one Model; return when their Deployments are changed."""
    await user.apply([model()])
    used = {"spec": {"model": None, "modelRef": {"name": _MODEL}}}
    await _until_changed(size, user, at_once(user.merge("Agent", name, used) for name in users(size)))


async def edit_model(size: int, user: BareClient, *, bare: bool) -> float:
    """Seconds from the edit of the Model until the last of its Agents' Deployments is changed."""

    async def edit() -> None:
        await user.merge("Model", _MODEL, {"spec": {"id": "another"}})
        if bare:
            await at_once(_change(user, name, "another") for name in users(size))

    return await _until_changed(size, user, edit())


async def _until_changed(size: int, user: BareClient, change: Awaitable[None]) -> float:
    """Seconds from a change, which is made now, until the Deployments of all that use the Model are another."""
    before = {each["metadata"]["name"]: _config_hash(each) for each in await user.all("Deployment")}
    left = {f"{name}-agent" for name in users(size)}
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    listening = asyncio.create_task(_listen(user, await user.version("Deployment"), seen))
    began = time.perf_counter()
    async with asyncio.timeout(_LONGEST_SECONDS):
        await change
        while left:
            deployment, after = await seen.get()
            if after != before[deployment]:
                left.discard(deployment)
    listening.cancel()
    return time.perf_counter() - began


async def _change(user: BareClient, name: str, digest: str) -> None:
    """What the operator does for an edit."""
    await user.merge("ConfigMap", f"{name}-agent", {"data": {"agent.json": digest}})
    template = {"metadata": {"annotations": {"ropewalk.dev/config-hash": digest}}}
    await user.merge("Deployment", f"{name}-agent", {"spec": {"template": template}})


async def _listen(user: BareClient, version: str, seen: asyncio.Queue[tuple[str, str]]) -> None:
    async for event in user.events("Deployment", version):
        seen.put_nowait((event["object"]["metadata"]["name"], _config_hash(event["object"])))


def _config_hash(deployment: dict[str, Any]) -> str:
    return str(deployment["spec"]["template"]["metadata"]["annotations"])
