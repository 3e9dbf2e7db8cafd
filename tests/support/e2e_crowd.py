"""People who ask an agent of the local cluster for as long as a fault lasts, more or fewer of them."""

from __future__ import annotations

import threading
from itertools import count

import httpx

MOST_ASKERS = 8


class Crowd:
    """People who ask an agent, each the next question when the last is answered and a pause is over."""

    def __init__(self, url: str, question: str = "", *, askers: int, pause_seconds: float) -> None:
        self._url = url
        self._question = question
        self.askers = askers
        self.pause_seconds = pause_seconds
        self._over = threading.Event()
        self._numbers = count(1)
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(MOST_ASKERS)]

    def become(self, askers: int, pause_seconds: float) -> None:
        """Be more or fewer, and ask more or less often."""
        self.askers, self.pause_seconds = askers, pause_seconds

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nothing more; returns when the last answer has come."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, place: int) -> None:
        with httpx.Client(base_url=self._url, timeout=90) as client:
            while not self._over.wait(self.pause_seconds if place < self.askers else 1.0):
                if place < self.askers:
                    self._ask_once(client)

    def _ask_once(self, client: httpx.Client) -> None:
        # What comes back is counted by the agent itself; the alerts are about that.
        try:
            client.post("/query", json={"query": f"{self._question} What is {next(self._numbers)} plus 1?"})
        except httpx.HTTPError:
            self._over.wait(1.0)
