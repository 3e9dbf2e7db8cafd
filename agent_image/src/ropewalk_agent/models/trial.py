"""Tries the model's key before anybody's first question does, and again when a turn was refused. Costs nothing.

A provider that cannot be asked, or answers anything but a refusal, proves nothing against the key; one that cannot be
asked or is busy takes no refusal back either. Lives on the worker's loop.
"""

import asyncio
import logging
from collections.abc import Callable

from ropewalk_agent.models.built import BuiltModel
from ropewalk_agent.models.failures import KEY_REFUSED

_log = logging.getLogger("ropewalk.keys")

TRIAL_SECONDS = 2.0
"""So long a start waits for the provider's word at most."""
PAUSE_SECONDS = 10.0
"""Between two trials, however many turns are refused."""
AGAIN_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""After one refusal, after the second, and so on; a key that has changed is tried at once."""
_LOOK_SECONDS = 1.0


class KeyTrial:
    """Of one model. `changed` is told when `untried` or `problem` has changed."""

    def __init__(self, model: BuiltModel, name: str, changed: Callable[[], None]) -> None:
        self._try_key = model.try_key
        self._key = model.key
        self._name = name
        self._changed = changed
        self._doubted = asyncio.Event()
        self.untried = model.try_key is not None and bool(model.key.read())
        """Whether nothing is known of the key yet."""
        self.problem: str | None = None
        """A sentence, while the provider refuses the key."""

    def doubt(self) -> None:
        """A turn was refused for its key: try it as soon as that may be."""
        self._doubted.set()

    async def watch(self) -> None:
        """Try the key for as long as the worker lives."""
        refusals = 0
        while self._try_key is not None:
            if self._key.read():
                await self._try()
            self._doubted.clear()
            if self.problem is not None:
                await self._key_changes(AGAIN_SECONDS[min(refusals, len(AGAIN_SECONDS) - 1)])
                refusals += 1
            else:
                refusals = 0
                await asyncio.sleep(PAUSE_SECONDS)
                await self._doubted.wait()

    async def _try(self) -> None:
        before = (self.untried, self.problem)
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                status, body = await self._try_key() if self._try_key else (0, "")
        except Exception as error:  # whatever a client raises where there is no answer: the next trial may tell more
            _log.debug("a key could not be tried", extra={"fields": {"error": type(error).__name__}})
        else:
            if is_refusal(status, body):
                self.problem = self._refusal(status)
            elif not is_busy(status):
                self.problem = None
        self.untried = False
        if (self.untried, self.problem) != before:
            if self.problem is not None:
                _log.warning("the model's key is refused", extra={"fields": {"model": self._name, "status": status}})
            self._changed()

    def _refusal(self, status: int) -> str:
        return (
            f"the model {self._name} cannot be asked: its provider refused the key (status {status}); put a valid key "
            "into the Secret that apiKeySecretRef of the model names"
        )

    async def _key_changes(self, at_most: float) -> None:
        refused = self._key.read()
        for _ in range(round(at_most / _LOOK_SECONDS)):
            await asyncio.sleep(_LOOK_SECONDS)
            if self._key.read() != refused:
                return


def is_refusal(status: int, body: str) -> bool:
    """Whether this answer to a trial means that the key itself is wrong.

    A key that may only chat is refused a list of models, too: its provider says what it lacks.
    """
    said = body.lower()
    if status == 401:
        return "scope" not in said and "permission" not in said
    return status == 400 and any(sign in said for sign in KEY_REFUSED)


def is_busy(status: int) -> bool:
    """Whether this answer says nothing of the key at all, because nobody has looked at it."""
    return status in (408, 429) or status >= 500
