"""What pods say at /ready, asked in the background: no worker waits for one that takes its time or never answers.

Never asks the same pod twice at once, and never more than some at a time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 0.1
"""Who has something to say at once is heard at once; a silent pod holds a worker up for no longer."""
AT_ONCE = 64
REMEMBERED = 4096

Ask = Callable[[str, int | None], Awaitable[list[str]]]


class Answers:
    """Asks by `ask`. Make it inside the event loop."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._said: OrderedDict[str, list[str]] = OrderedDict()

    async def ready(self, life: str, ip: str, port: int | None = None) -> list[str]:
        """The reasons that the pod gave last for not being ready; none where it gave none, or has not answered yet.

        `life` names this start of this pod: addresses are given to other pods again.
        """
        if life not in self._asking and len(self._asking) < AT_ONCE:
            self._asking[life] = asyncio.create_task(self._hear(life, ip, port))
        if (task := self._asking.get(life)) is not None:
            await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
        return self._said.get(life, [])

    async def _hear(self, life: str, ip: str, port: int | None) -> None:
        try:
            said = await self._ask(ip, port)
        finally:
            del self._asking[life]
        self._said.pop(life, None)
        if said:
            self._said[life] = said
            if len(self._said) > REMEMBERED:
                self._said.popitem(last=False)
