"""A constant stream of queries to an agent, each of which demands a call of one tool; every answer is checked."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from waiting import until

RIGHT, UNAVAILABLE = "right", "unavailable"
_ASKERS = 4
_PAUSE_SECONDS = 0.02


@dataclass
class Queries:
    """How each query ended: RIGHT, UNAVAILABLE (the model was told so), or what came instead."""

    outcomes: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def more(self, count: int, outcome: str = RIGHT, *, seconds: float = 60) -> None:
        """Wait until so many further queries have ended so. Raises AssertionError after so many seconds."""
        before = self.outcomes.count(outcome)
        until(
            lambda: self.outcomes.count(outcome) >= before + count,
            f"{count} more queries end {outcome}; so far {self.counted()}",
            seconds,
        )

    def counted(self) -> dict[str, int]:
        """How often each outcome came."""
        return dict(Counter(self.outcomes))


@contextmanager
def constant_queries(
    url: str, *, people: int = _ASKERS, kept_connections: bool = True, session: str = ""
) -> Iterator[Queries]:
    """Let some people ask for sums, each the next one as soon as the last is answered; ends with the block.

    Each keeps a connection or makes one for each query; with `session` each goes on with a session of its own.
    """
    seen, done, numbers = Queries(), threading.Event(), itertools.count(1)
    limits = httpx.Limits(max_keepalive_connections=None if kept_connections else 0)

    def keep_asking(person: int) -> None:
        more = {"session_id": f"{session}-{person}"} if session else {}
        with httpx.Client(base_url=url, timeout=30, limits=limits) as client:
            while not done.wait(_PAUSE_SECONDS):
                began = time.monotonic()
                seen.outcomes.append(_outcome(client, next(numbers), more))
                seen.slowest_seconds = max(seen.slowest_seconds, time.monotonic() - began)

    askers = [threading.Thread(target=keep_asking, args=(person,)) for person in range(people)]
    for asker in askers:
        asker.start()
    try:
        yield seen
    finally:
        done.set()
        for asker in askers:
            asker.join()


def _outcome(client: httpx.Client, number: int, more: dict[str, str]) -> str:
    try:
        answer = client.post("/query", json={"query": f"What is {number} plus 1000000?", **more})
    except httpx.HTTPError as error:
        return repr(error)
    if answer.status_code != 200:
        return f"HTTP {answer.status_code}: {answer.text}"
    said = str(answer.json()["response"])
    if re.search(rf"\b{number} \+ 1000000 = {number + 1000000}\b", said):
        return RIGHT
    return UNAVAILABLE if re.search(r"MCP server [\w-]+ is unavailable", said) else f"answered {said}"
