"""Histories as bytes and back, without loss: JSON, and what is no JSON (an image's bytes) beside it. No I/O."""

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any, cast

from ropewalk_agent.sessions import Message


def encoded(messages: tuple[Message, ...]) -> bytes:
    """Return the messages as two lines of JSON: a marker, and the messages with `{marker: base64}` for bytes.

    The marker is made up for this one text, so that nothing a model or a user writes can be taken for it.
    """
    marker = secrets.token_hex(16)

    def coded(value: object) -> dict[str, str]:
        if isinstance(value, bytes):
            return {marker: base64.b64encode(value).decode()}
        raise TypeError(f"a message holds a {type(value).__name__}, which no session store can keep")

    body = json.dumps(messages, default=coded, separators=(",", ":"))
    return f"{json.dumps(marker)}\n{body}".encode()


def decoded(text: bytes) -> tuple[Message, ...]:
    """Return the messages again; raises ValueError for a text that `encoded` did not make."""
    first, _, body = text.partition(b"\n")
    marker = json.loads(first)
    if not isinstance(marker, str):
        raise ValueError("the first line is no marker")
    messages = json.loads(body, object_hook=_restored(marker) if marker.encode() in body else None)
    if not isinstance(messages, list):
        raise ValueError("the second line is no list of messages")
    return tuple(cast(list[Message], messages))


def _restored(marker: str) -> Callable[[dict[str, Any]], Any]:
    def restored(value: dict[str, Any]) -> Any:
        return base64.b64decode(value[marker]) if marker in value else value

    return restored
