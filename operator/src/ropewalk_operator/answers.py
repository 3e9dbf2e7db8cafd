"""What pods say at /ready, asked in the background: no worker waits for one that takes its time or never answers.

Never asks the same pod twice at once, and never more than some at a time: the others have their turn after those.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from ropewalk_operator.kinds import Key
from ropewalk_operator.pods import Pod

PATIENCE_SECONDS = 0.1
"""Who has something to say at once is heard at once; a silent pod holds a worker up for no longer."""
FRESH_SECONDS = 1.0
"""So long an answer is good: whoever is told of it must not ask anew, or a pod that never says the same would have no
end of it."""
AT_ONCE = 64
REMEMBERED = 4096

Ask = Callable[[str, int | None], Awaitable[list[str]]]


class Answers:
    """Asks by `ask`, and calls `tell` with the owner of a pod whose answer came late and says something new.

    Make it inside the event loop.
    """

    def __init__(self, ask: Ask, tell: Callable[[Key], None]) -> None:
        self._ask = ask
        self._tell = tell
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._late: set[str] = set()
        self._said: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._clock = asyncio.get_running_loop().time

    async def ready(self, pod: Pod) -> list[str]:
        """The reasons that the pod gave last for not being ready; none where it gave none, or has not answered yet."""
        # This start of this pod: addresses are given to other pods again.
        life = f"{pod.uid}/{pod.restarts}"
        at, said = self._said.get(life, (float("-inf"), []))
        if self._clock() - at < FRESH_SECONDS:
            return said
        if life not in self._asking:
            self._asking[life] = asyncio.create_task(self._hear(life, pod))
        done, _ = await asyncio.wait({self._asking[life]}, timeout=PATIENCE_SECONDS)
        if not done:
            self._late.add(life)
        return self._words(life)

    async def _hear(self, life: str, pod: Pod) -> None:
        before, said = self._words(life), []
        try:
            async with self._gate:
                said = await self._ask(pod.ip or "", pod.bridge_port)
        finally:
            del self._asking[life]
            is_late = life in self._late
            self._late.discard(life)
        self._said.pop(life, None)
        if said:
            self._said[life] = (self._clock(), said)
            if len(self._said) > REMEMBERED:
                self._said.popitem(last=False)
        if is_late and said != before:
            self._tell(Key(pod.owner_kind, pod.namespace, pod.owner_name))

    def _words(self, life: str) -> list[str]:
        return self._said.get(life, (0.0, []))[1]
