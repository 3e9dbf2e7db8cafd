"""Waits for an API server that does not answer just now.

A process that ended instead would come back late: Kubernetes waits longer before each start, up to five minutes. What
stays refused, as where rights are missing, does not pass by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ropewalk_operator import streams
from ropewalk_operator.kube import ApiError

logger = logging.getLogger(__name__)

FIRST_SECONDS = 0.25
LAST_SECONDS = 4.0

T = TypeVar("T")


class Patience:
    """`sleep` takes seconds, and `clock` gives some that never go back."""

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self.waits_for = ""
        """Why there is no answer yet; empty while nothing is waited for."""

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer, once there is one. Raises the ApiError of a refusal that stays."""
        refusals = streams.Refusals(self._clock)
        seconds = FIRST_SECONDS
        while True:
            try:
                answer = await question()
            except ApiError as error:
                if refusals.seconds("", error.status) >= streams.REFUSED_SECONDS:
                    self.waits_for = ""
                    raise
                self._tell(str(error))
                await self._sleep(max(seconds, error.retry_after_seconds))
                seconds = min(seconds * 2, LAST_SECONDS)
            else:
                self._tell("")
                return answer

    def _tell(self, why: str) -> None:
        if why and why != self.waits_for:
            logger.warning("waiting for the API server", extra={"fields": {"error": why}})
        elif self.waits_for and not why:
            logger.info("the API server answers")
        self.waits_for = why
