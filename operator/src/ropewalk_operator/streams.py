"""What kopf's watching cannot stand, mended on the way to it: the session of the watches is made of these.

A lost place that is told as HTTP 410, a listing that is none, an event that breaks off, and a watch that ends as soon
as it has begun, which kopf begins again without a pause. Decides nothing about what the objects mean.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp

SHORT_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 8.0
REFUSED_SECONDS = 15.0
"""So long a refusal may be that of an API server that has just started and does not know its rules yet, or of whoever
stands before it."""
PASSING = (401, 410, 429)
"""The 4xx that are no refusals: who judges tokens may be away for long, and the others say what to do."""
WORDS_CHARACTERS = 200

AT_ONCE_BYTES = 2**16

_EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'


class Backoffs:
    """The pauses between attempts, in seconds, without an end.

    kopf gives up after the last one, and the operator would end with it, only to be started again later and later: an
    API server may be away for longer.
    """

    def __iter__(self) -> Iterator[float]:
        pause = 0.5
        while True:
            yield pause
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


class Pace:
    """When the next watch or listing of a place may begin. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[str, tuple[float, int]] = {}

    def delay(self, place: str) -> float:
        """Seconds to wait now: none, but where one short one follows another."""
        now = self._clock()
        due, streak = self._due.get(place, (float("-inf"), 0))
        if now < due:
            # Whoever was cut off while he waited has not begun.
            return due - now
        streak = streak + 1 if now - due < SHORT_SECONDS else 0
        pause = min(FIRST_PAUSE_SECONDS * float(2 ** min(streak - 1, 16)), LONGEST_PAUSE_SECONDS) if streak else 0.0
        self._due[place] = (now + pause, streak)
        return pause


class Refusals:
    """How long a place has answered with nothing but refusals. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def seconds(self, place: str, status: int) -> float:
        """How long it has been so, now that the place has answered with this status."""
        if not is_refusal(status):
            self.forget(place)
            return 0.0
        now = self._clock()
        return now - self._since.setdefault(place, now)

    def forget(self, place: str) -> None:
        """The place has not answered: who does so next may have just started."""
        self._since.pop(place, None)


def is_refusal(status: int) -> bool:
    """Whether such an answer to a listing or watch may be the same for ever: any 4xx but those that pass."""
    return 400 <= status < 500 and status not in PASSING


class Answer(aiohttp.ClientResponse):
    """An answer whose JSON may be anything: kopf begins anew then, where its own errors would end the operator."""

    async def json(self, **options: Any) -> Any:
        """The body; raises ClientPayloadError where a success is no listing."""
        if self.status >= 400:
            return await super().json(**options)
        try:
            listing = json.loads(await self.read())
        except ValueError as error:
            raise aiohttp.ClientPayloadError("the answer is not JSON") from error
        # Kubernetes writes an empty list of metadata as `null`.
        if isinstance(listing, dict) and listing.get("items") is None:
            listing["items"] = []
        if not isinstance(listing, dict) or not (
            isinstance(listing.get("metadata"), dict) and isinstance(listing["items"], list)
        ):
            raise aiohttp.ClientPayloadError("the answer is no listing")
        return listing


def only_whole_lines(response: aiohttp.ClientResponse) -> None:
    """Let a watch end before an event that breaks off."""
    response.content = _WholeLines(response.content)  # type: ignore[assignment]


async def list_anew(response: aiohttp.ClientResponse, *, is_watch: bool) -> None:
    """Make an HTTP 410 what kopf takes for a lost place: it lists anew. Raises ClientPayloadError for a listing."""
    await response.read()
    if not is_watch:
        raise aiohttp.ClientPayloadError("the version of the listing is gone")
    response.status = 200
    response.content = _Said(_EXPIRED)  # type: ignore[assignment]


class _WholeLines:
    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = bytearray()
        async for piece in self._content.iter_chunked(min(size, AT_ONCE_BYTES)):
            whole, newline, begun = piece.rpartition(b"\n")
            if newline:
                yield bytes(rest) + whole + newline
                rest = bytearray()
            rest += begun
            # Whatever else waits has its turn: a watch may bring thousands of events at once.
            await asyncio.sleep(0)


class _Said:
    def __init__(self, text: bytes) -> None:
        self._text = text

    def exception(self) -> BaseException | None:
        return None

    def set_exception(self, *_: object) -> None:
        pass

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        yield self._text


def json_object(text: bytes) -> dict[str, Any]:
    """The JSON object in it; an empty one where it is something else."""
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def words(text: bytes) -> str:
    """What an error's body says: the message of a Kubernetes Status, or how the body begins."""
    return str(json_object(text).get("message") or text[:WORDS_CHARACTERS].decode(errors="replace"))
