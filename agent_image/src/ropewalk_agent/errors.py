"""The errors that a client can see: a code, its HTTP status and a message. Never carries a traceback or a secret."""

from collections.abc import Iterable
from typing import Any

from ropewalk_agent.whole import whole

STATUS_OF_CODE = {
    "invalid_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "cancelled": 409,
    "session_busy": 409,
    "queue_full": 429,
    "internal": 500,
    "invalid_answer": 502,
    "model_error": 502,
    "not_ready": 503,
    "timeout": 504,
}
"""Every code of this release with its HTTP status; a code that is not here cannot be raised."""

_LONGEST_REASON = 500
_LONGEST_RAW = 10_000


class AgentError(Exception):
    """An error with one of the codes above; `retry_after_seconds` becomes a Retry-After header where it is set.

    `raw` is what the model said instead of an answer that fits, for the client that asked; never for a log.
    `begun` tells that the turn had begun, so its tools may have run: to ask again may do their work twice. Not told to
    clients.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        raw: str | None = None,
        begun: bool = False,
    ) -> None:
        message = whole(message)  # it may quote a client
        super().__init__(message)
        self.code = code
        self.status = STATUS_OF_CODE[code]
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.begun = begun
        self.raw: str | None = None if raw is None else whole(raw[:_LONGEST_RAW])

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body that clients get."""
        raw = {} if self.raw is None else {"raw": self.raw}
        return {"error": {"code": self.code, "message": self.message, **raw, "request_id": request_id}}


def internal_error() -> AgentError:
    """Return the answer to a defect of ours: only the request id leads from here to the log."""
    return AgentError("internal", "the agent failed to handle this request; its log has more under this request_id")


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return `text` on one line, shortened, with each of `secrets` blotted out."""
    line = " ".join(blotted(text, secrets).split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"


def blotted(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with each of `secrets` blotted out; the longest first, as one may be a part of another."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    return text
