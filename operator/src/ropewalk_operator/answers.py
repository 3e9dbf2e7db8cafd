"""What pods say at /ready, asked in the background: no worker waits for one that takes its time or never answers.

Never asks the same pod twice at once, and never more than some at a time: the others have their turn after those.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ropewalk_operator.kinds import Key
from ropewalk_operator.pods import Pod

PATIENCE_SECONDS = 0.1
"""Who has something to say at once is heard at once; a silent pod holds a worker up for no longer."""
FRESH_SECONDS = 1.0
"""So long an answer is good: whoever is told of it must not ask anew, or a pod that never says the same would have no
end of it."""
FORGOTTEN_SECONDS = 60.0
"""Who is not ready is looked at every half minute at least. So who has not been looked at for so long was ready, and
what he said before is about another time."""
AT_ONCE = 64
REMEMBERED = 4096

Ask = Callable[[str, int | None], Awaitable[list[str]]]


@dataclass(slots=True)
class _Said:
    at: float
    looked_at: float
    words: list[str]


class Answers:
    """Asks by `ask`, and calls `tell` with the owner of a pod whose answer came late and says something new.

    Make it inside the event loop.
    """

    def __init__(self, ask: Ask, tell: Callable[[Key], None]) -> None:
        self._ask = ask
        self._tell = tell
        self._waiting: OrderedDict[str, Pod] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._late: set[str] = set()
        self._said: OrderedDict[str, _Said] = OrderedDict()
        self._clock = asyncio.get_running_loop().time

    async def ready(self, pod: Pod) -> list[str]:
        """The reasons that the pod gave last for not being ready; none where it gave none, or has not answered yet."""
        # This start of this pod: addresses are given to other pods again.
        life = f"{pod.uid}/{pod.restarts}"
        now = self._clock()
        said = self._said.get(life)
        if said is not None and now - said.looked_at > FORGOTTEN_SECONDS:
            del self._said[life]
        elif said is not None:
            said.looked_at = now
            if now - said.at < FRESH_SECONDS:
                return said.words
        if life not in self._asking:
            # Also where it waits already: its address may be known only now.
            self._waiting[life] = pod
            self._ask_next()
        # Whoever has not been asked yet has nothing to say, and to wait for thousands of those takes minutes.
        question = self._asking.get(life)
        if question is None or not (await asyncio.wait({question}, timeout=PATIENCE_SECONDS))[0]:
            self._late.add(life)
        return self._words(life)

    def _ask_next(self) -> None:
        while self._waiting and len(self._asking) < AT_ONCE:
            life, pod = self._waiting.popitem(last=False)
            self._asking[life] = asyncio.create_task(self._hear(life, pod))

    async def _hear(self, life: str, pod: Pod) -> None:
        before, words = self._words(life), []
        try:
            words = await self._ask(pod.ip or "", pod.bridge_port)
        finally:
            del self._asking[life]
            self._ask_next()
            is_late = life in self._late
            self._late.discard(life)
        now = self._clock()
        former = self._said.pop(life, None)
        self._said[life] = _Said(now, former.looked_at if former is not None else now, words)
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        if is_late and words != before:
            self._tell(Key(pod.owner_kind, pod.namespace, pod.owner_name))

    def _words(self, life: str) -> list[str]:
        said = self._said.get(life)
        return said.words if said is not None else []
