"""Many clients on few sessions for some minutes: is every history whole and in order, and does memory stay flat?"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx

from bench.serving import Served, serving

_CLIENTS, _SESSIONS = 200, 50
_SECONDS = float(os.environ.get("BENCH_SOAK_SECONDS") or 300)
_WARM_UP = 0.2
"""The part of the time after which memory counts."""


@dataclass
class _Seen:
    statuses: Counter[int] = field(default_factory=Counter)
    shown: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    """By session, the questions that each turn's model was shown; the last of them is the turn's own."""
    memory: list[float] = field(default_factory=list)


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    settings = {"BENCH_MODEL_ANSWER": "questions", "BENCH_MODEL_SECONDS": "0.005"}
    with serving(["-m", "bench.servers", "ropewalk"], environment=settings) as agent:
        seen = asyncio.run(_soak(agent))
    turns = seen.statuses[200]
    wrong = sum(_disorder(shown) for shown in seen.shown.values())
    others = {status: count for status, count in seen.statuses.items() if status not in (200, 429)}
    growth = max(seen.memory) / seen.memory[0] - 1
    what = f"{_CLIENTS} clients on {_SESSIONS} sessions for {_SECONDS:.0f} s"
    return [
        (
            f"{what}: turns out of order or lost",
            f"{wrong} of {turns} ({seen.statuses[429]} × 429, others: {others or 'none'})",
            "0",
        ),
        (f"{what}: memory after warm-up", f"{seen.memory[0]:.0f} MiB, + {growth * 100:.1f} % at most", "flat"),
    ]


async def _soak(agent: Served) -> _Seen:
    seen = _Seen()
    ends = time.monotonic() + _SECONDS
    limits = httpx.Limits(max_connections=_CLIENTS, max_keepalive_connections=_CLIENTS)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{agent.port}", limits=limits, timeout=60) as client:
        clients = (_client(client, number, ends, seen) for number in range(_CLIENTS))
        await asyncio.gather(_watch_memory(agent, ends, seen), *clients)
    return seen


async def _client(client: httpx.AsyncClient, number: int, ends: float, seen: _Seen) -> None:
    session, asked = f"session-{number % _SESSIONS}", 0
    while time.monotonic() < ends:
        asked += 1
        body = {"query": f"{number}/{asked}", "session_id": session}
        answer = await client.post("/query", json=body)
        seen.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            seen.shown[session].append(json.loads(answer.json()["response"]))
        elif answer.status_code == 429:
            await asyncio.sleep(0.05)


async def _watch_memory(agent: Served, ends: float, seen: _Seen) -> None:
    await asyncio.sleep(_SECONDS * _WARM_UP)
    while time.monotonic() < ends:
        seen.memory.append(agent.pss_mib())
        await asyncio.sleep(1)


def _disorder(shown: list[list[str]]) -> int:
    """How many turns of a session do not fit into one order that all turns agree on.

    Each turn names its own question and those before it, as far as the window reaches. In a whole history each question
    but the first follows exactly one other, and no two follow the same.
    """
    before = {questions[-1]: questions[-2] if len(questions) > 1 else None for questions in shown}
    followed = Counter(before.values())
    twice = sum(count - 1 for count in followed.values())
    order = {question: position for position, question in enumerate(_chain(before))}
    lost = len(shown) - len(order)
    crossed = sum(
        any(order.get(b, -1) != order.get(a, -1) + 1 for a, b in itertools.pairwise(questions))
        for questions in shown
        if questions[0] in order
    )
    return twice + lost + crossed


def _chain(before: dict[str, str | None]) -> list[str]:
    """The questions in the order in which each names the one before, from the first that follows none."""
    after = {previous: question for question, previous in before.items()}
    chain: list[str] = []
    question = after.get(None)
    while question is not None and len(chain) <= len(before):
        chain.append(question)
        question = after.get(question)
    return chain
