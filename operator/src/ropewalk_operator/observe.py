"""Asks pods and the API server what pod bodies do not say: why a volume is missing, why /ready refuses.

Reads only, with time limits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from ropewalk_operator import names
from ropewalk_operator.pod_events import PodEvents
from ropewalk_operator.pods import Pod, Trouble, missing

PODS_ASKED = 3
READY_LIMIT_SECONDS = 3.0
"""A pod that has never been ready holds the answer for 1.5 s, in the hope of a better one."""
CREATING_IS_SLOW_SECONDS = 2.0
LISTENING_IS_SLOW_SECONDS = 10.0
WORDS_CHARACTERS = 1000
ANSWER_BYTES = 65536
TOOLS_BYTES = 8_000_000
"""Ten servers of 500 tools with 1 KB of description have 6 MB."""
LARGE_BYTES = 250_000
"""Parsing takes several times the size of an answer, so one large one is read at a time."""

# What agents say of themselves at /ready.
STARTING = "the agent is starting"
CANNOT_START = "the agent cannot start"
KEY_REFUSED = "its provider refused the key"


AskReady = Callable[[Pod], Awaitable[list[str]]]
"""Gives the reasons of a running pod for not being ready."""


async def extra_trouble(pods: Iterable[Pod], events: PodEvents, ask_ready: AskReady, now: float) -> dict[str, Trouble]:
    """By pod uid, what the first few of these pods have to say; `now` in seconds since the epoch, by
    the clock that stamps pods.
    """
    asked = list(pods)[:PODS_ASKED]
    answers = await asyncio.gather(*(_ask(pod, events, ask_ready, now) for pod in asked))
    return {pod.uid: answer for pod, answer in zip(asked, answers, strict=True) if answer is not None}


async def _ask(pod: Pod, events: PodEvents, ask_ready: AskReady, now: float) -> Trouble | None:
    # Made in the future: the clocks of several API servers are not the same, and tell nothing.
    if pod.creating and not 0 <= now - pod.created < CREATING_IS_SLOW_SECONDS:
        return await _from_events(pod, events)
    if not pod.running or not pod.ip:
        return None
    if pod.owner_kind == "Agent" or pod.bridge_port is not None:
        return _told(await ask_ready(pod), pod.trouble)
    if pod.trouble is None and now - pod.created >= LISTENING_IS_SLOW_SECONDS:
        return Trouble(
            "NotListening",
            "it runs, and nothing listens on spec.port; see its log, and compare the port with the image's",
        )
    return None


def _told(reasons: Sequence[str], before: Trouble | None) -> Trouble | None:
    """The trouble in what a pod says of itself; `before`: how its last container ended."""
    if not reasons or reasons[0] == STARTING:
        return None
    if before is not None and reasons[0].startswith(CANNOT_START):
        # It is about to end once more, and to say that again.
        return None
    said = "; ".join(each.removesuffix(".") for each in reasons)[:WORDS_CHARACTERS]
    reason = "ModelKeyRefused" if any(KEY_REFUSED in each for each in reasons) else "NotReady"
    return Trouble(reason, f"not ready: {said}; it becomes ready by itself once that is put right")


async def _from_events(pod: Pod, events: PodEvents) -> Trouble | None:
    said = await events.hindrance(pod)
    if said is None:
        return None
    return missing(said.message) or Trouble(said.reason, f"{said.message}; see kubectl describe pod {pod.name}")


def _first_words(reasons: Iterable[object]) -> list[str]:
    kept: list[str] = []
    left = WORDS_CHARACTERS
    for reason in reasons:
        kept.append(str(reason)[:left])
        left -= len(kept[-1]) + 1
        if left <= 0:
            break
    return kept


class AgentClient:
    """Asks agent pods at /ready and /tools. Make it inside the event loop and close it at the end."""

    def __init__(self, port: int = names.AGENT_PORT) -> None:
        self._port = port
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READY_LIMIT_SECONDS))
        self._large = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def ready(self, ip: str, port: int | None = None) -> list[str]:
        """The reasons that the pod gives for not being ready; none when it is ready or does not answer. Of many words
        the first.

        An agent's pod, or on another port a stdio server's bridge.
        """
        answer = await self._get(ip, "/ready", ANSWER_BYTES, port)
        reasons = answer.get("reasons") if isinstance(answer, dict) else None
        return _first_words(reasons) if isinstance(reasons, list) else []

    async def tools(self, ip: str) -> Any:
        """What the pod says of its MCP servers; None when it does not answer, or not what an agent does."""
        return await self._get(ip, "/tools", TOOLS_BYTES)

    async def _get(self, ip: str, path: str, most_bytes: int, port: int | None = None) -> Any:
        host = f"[{ip}]" if ":" in ip else ip
        address = f"http://{host}:{port or self._port}{path}"
        body = bytearray()
        try:
            async with AsyncExitStack() as stack:
                response = await stack.enter_async_context(self._session.get(address, allow_redirects=False))
                has_place = False
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > most_bytes:
                        return None
                    if len(body) > LARGE_BYTES and not has_place:
                        await stack.enter_async_context(self._large)
                        has_place = True
                return json.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
            return None
