"""What every provider's module gives: a Model with its client, its key and the way to end it. Makes no call.

All of it belongs to the worker's loop.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strands.models.model import Model

_log = logging.getLogger("ropewalk.keys")

RETRIES = 2
"""How often a client asks again, where it can: three attempts in all."""
CONNECT_SECONDS = 5.0
"""How long a client waits for a connection."""


class KeyFile:
    """A mounted key; read again when the file has changed, so that a rotated Secret needs no new pod."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._key = ""
        self._before = ""
        self._unreadable = False

    def read(self) -> str:
        """Return the key, empty if there is no file; while that is away or cannot be read, the last key.

        Raises OSError or UnicodeDecodeError where the file could not be read yet.
        """
        if self._path is None:
            return ""
        try:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                key = self._path.read_text(encoding="utf-8").strip()
                self._before, self._key = self._key, key
                self._seen = (status.st_ino, status.st_mtime_ns)
            self._unreadable = False
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            if self._seen is None:
                raise
            if not self._unreadable:
                self._unreadable = True
                fields = {"file": str(self._path), "error": type(error).__name__}
                _log.warning("a key cannot be read, the last one stays in use", extra={"fields": fields})
        return self._key

    def secrets(self) -> tuple[str, ...]:
        """Return what no message may hold: the key, and the one before it, with which a turn may still be under way.

        As last read: what tells of a file that cannot be read is cleaned, too. Also as Python quotes them, for a client
        that complains of a line break in a key.
        """
        keys = [key for key in (self._key, self._before) if key]
        return (*keys, *(repr(key)[1:-1] for key in keys))


TryKey = Callable[[], Awaitable[tuple[int, str]]]
"""Status and body of the answer; raises whatever the client does where there is none."""


WORDS_BYTES = 64 * 1024
"""So much of a refusal is read: a provider's words are short."""


def listing(http: Any, url: str, headers: Callable[[], Mapping[str, str]]) -> TryKey:
    """Return how the key is tried at a provider's list of models, by its own client `http` (of httpx or httpx2)."""

    async def try_key() -> tuple[int, str]:
        return await asked(http, "GET", url, headers=headers())

    return try_key


async def asked(http: Any, method: str, url: str, **request: Any) -> tuple[int, str]:
    """Return the status and, of a refusal, the words; `request` as httpx takes it. Raises as the client `http` does."""
    async with http.stream(method, url, **request) as answer:
        if answer.status_code < 400:  # what is given can be long
            return answer.status_code, ""
        words = b""
        async for chunk in answer.aiter_bytes():
            words += chunk
            if len(words) >= WORDS_BYTES:
                break
        return answer.status_code, words[:WORDS_BYTES].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A Model that is ready for use. Call `refresh_key` before each turn; `close` when the pod ends."""

    model: "Model"
    key: KeyFile
    refresh_key: Callable[[], None]
    close: Callable[[], Awaitable[None]]
    try_key: TryKey | None = field(default=None, kw_only=True)
    """Asks the provider for what costs nothing and needs the key; None where nothing of that kind is known."""

    def for_turn(self, fell_back: Callable[[int], None]) -> "Model":
        """Return the Model for one turn; `fell_back` is told the place of each fallback that is asked, from 1."""
        return self.model

    def secrets(self) -> tuple[str, ...]:
        """Return what no message may hold."""
        return self.key.secrets()


def without_authorities() -> ssl.SSLContext:
    """Return a TLS context that trusts nobody: for plain http, where loading a trust store only costs memory.

    Should such a server redirect to https, the connection is refused rather than left unverified.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def trust(base_url: str | None) -> ssl.SSLContext | bool:
    """Return the `verify` of an HTTP client for this address; None is the provider's own, which is https."""
    return without_authorities() if base_url is not None and base_url.startswith("http://") else True


def bounded(timeout_seconds: float) -> Callable[[Any], Awaitable[None]]:
    """Return a request hook (of httpx or httpx2) that sets the time limits, whatever the library above it asks for."""

    async def bound(request: Any) -> None:
        limits = dict.fromkeys(("read", "write", "pool"), timeout_seconds)
        request.extensions["timeout"] = {**limits, "connect": CONNECT_SECONDS}

    return bound
