"""Queries to an agent of several pods, at a pace that can be changed: every answer continues the right conversation."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

RIGHT = "right"
_ASKERS = 4
_TURNS = 5
_REQUEST_ID = re.compile(r',?"request_id":"[^"]*"')


@dataclass
class Pace:
    """The pause of each asker after an answer; may be changed at any time."""

    seconds: float
    outcomes: list[tuple[float, str]] = field(default_factory=list)
    """How the queries have ended, each with the pace of that time: RIGHT, or what came instead."""
    slowest_seconds: float = 0.0

    def at(self, seconds: float) -> tuple[int, Counter[str]]:
        """How many were asked at a pace, and how often what came instead of a right answer."""
        said = [each for pace, each in self.outcomes if pace == seconds]
        return len(said), Counter(each for each in said if each != RIGHT)


@contextmanager
def paced_queries(url: str, pause_seconds: float) -> Iterator[Pace]:
    """Let four ask until the end of the block: two over a kept connection, two over a new one each time.

    A conversation has five turns, and the demo model says how many there were: no pod may have forgotten one.
    """
    pace, done = Pace(pause_seconds), threading.Event()
    askers = [threading.Thread(target=_keep_asking, args=(url, number, pace, done)) for number in range(_ASKERS)]
    for asker in askers:
        asker.start()
    try:
        yield pace
    finally:
        done.set()
        for asker in askers:
            asker.join()


def _keep_asking(url: str, asker: int, pace: Pace, done: threading.Event) -> None:
    keeps = httpx.Limits(max_keepalive_connections=None if asker % 2 else 0)
    with httpx.Client(base_url=url, timeout=60, limits=keeps) as client:
        turns = 0
        while not done.is_set():
            conversation, turn = divmod(turns, _TURNS)
            began, seconds = time.monotonic(), pace.seconds
            outcome = _ask(client, f"asker-{asker}-{conversation}", turn + 1)
            pace.slowest_seconds = max(pace.slowest_seconds, time.monotonic() - began)
            pace.outcomes.append((seconds, outcome))
            # A conversation in which something went wrong says nothing of the next turn.
            turns = turns + 1 if outcome == RIGHT else (conversation + 1) * _TURNS
            _rest(pace, done)


def _rest(pace: Pace, done: threading.Event) -> None:
    """Until the pause is over, which may become shorter meanwhile."""
    began = time.monotonic()
    while time.monotonic() - began < pace.seconds and not done.wait(min(pace.seconds, 0.2)):
        pass


def _ask(client: httpx.Client, session: str, turn: int) -> str:
    try:
        answer = client.post("/query", json={"query": f"Remark {turn}.", "session_id": session})
    except httpx.HTTPError as error:
        return repr(error)
    if answer.status_code != 200:
        return f"HTTP {answer.status_code}: {_REQUEST_ID.sub('', answer.text)}"
    said = str(answer.json()["response"])
    return RIGHT if f"This is message {turn} of yours" in said else f"turn {turn} was answered {said}"
