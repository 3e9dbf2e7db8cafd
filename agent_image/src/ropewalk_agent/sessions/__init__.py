"""The protocol of a session store, and the window that keeps a history short. Knows no store and no framework.

A session belongs to the user that it was begun for: a store's key is the pair of user and session, so the same
session_id of another user is simply another session, and nobody can find out which ids others use.
"""

from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

Message = dict[str, Any]


class SessionKey(NamedTuple):
    """Names a session; `user_id` is empty where the caller named nobody."""

    user_id: str
    session_id: str


class SessionInfo(NamedTuple):
    """What can be told of a session without its content. Times are seconds since the epoch."""

    key: SessionKey
    messages: int
    created_at: float
    updated_at: float


class SessionStore(Protocol):
    """Keeps histories between turns. A history that was handed out is never changed in place by either side.

    A session that has expired, or had to go because it was used least recently, is as if it had never been. Used on the
    worker's loop only. Each method raises AgentError not_ready where the store does not answer.
    """

    def lock(self, key: SessionKey, *, wait: bool) -> AbstractAsyncContextManager[None]:
        """Hold the session against every other process that shares the store.

        Within one process the bridge keeps turns of a session apart already. Raises AgentError session_busy at once
        where another process holds it and `wait` is false. A holder that dies loses the session within a bounded time.
        """
        ...

    async def describe(self, key: SessionKey) -> SessionInfo | None:
        """Return what `list` tells of the session; None where there is none."""
        ...

    async def load(self, key: SessionKey) -> tuple[Message, ...]:
        """Return the history, oldest message first; empty for a session that is new or has expired."""
        ...

    async def save(self, key: SessionKey, messages: tuple[Message, ...]) -> None:
        """Keep the history, in place of the one before; the caller holds the session's lock.

        Raises AgentError session_busy, and keeps the one before, where the lock was lost meanwhile.
        """
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Forget the session; False where there is none."""
        ...

    async def list(self, user_id: str) -> tuple[SessionInfo, ...]:
        """Return the user's sessions, the most recently used first."""
        ...

    async def clean_up(self) -> None:
        """Forget what is too old or too much; called about once a minute."""
        ...

    async def problem(self) -> str | None:
        """Return why the store cannot be used at the moment, or None."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...

    def __len__(self) -> int:
        """How many sessions are kept, as far as this process knows."""
        ...


def is_consistent(messages: tuple[Message, ...]) -> bool:
    """Whether each tool call is answered in the very next message, and each result answers a call."""
    asked: set[str] = set()
    for message in messages:
        answered = {block["toolResult"]["toolUseId"] for block in message["content"] if "toolResult" in block}
        if answered != asked:
            return False
        asked = {block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block}
    return not asked


def windowed(messages: tuple[Message, ...], size: int) -> tuple[Message, ...]:
    """Return at most `size` of the latest messages, beginning with a question.

    A cut is made only in front of a question (a user's message that is no tool result), so a tool call is never parted
    from its result. The last question is kept with all that followed, even where that alone is more than `size`.
    """
    if len(messages) <= size:
        return messages
    questions = [i for i, message in enumerate(messages) if _is_question(message)]
    if not questions:
        return messages
    fitting = [i for i in questions if len(messages) - i <= size]
    return messages[fitting[0] if fitting else questions[-1] :]


def _is_question(message: Message) -> bool:
    return message["role"] == "user" and not any("toolResult" in block for block in message["content"])
