"""Models that stand in for one another: when one fails before its first content, the next is asked in the same turn.

After content has been sent on there is no going back: half an answer is not told twice. A turn stays with the model
that answered it, so that one model sees its own tool calls through; the next turn begins with the first model again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from strands.models.model import Model

from ropewalk_agent import turn_spans
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import BuiltModel, KeyFile
from ropewalk_agent.models.failures import FALL_BACK, ModelsFailed, failure_of

if TYPE_CHECKING:
    from prometheus_client import Counter

_log = logging.getLogger("ropewalk.models")


@dataclass(frozen=True, slots=True)
class ModelChain(BuiltModel):
    """Several models in the place of one; `model` is the first."""

    parts: tuple[BuiltModel, ...]
    names: tuple[str, ...]
    first_content_seconds: float
    """How long each but the last may take to its first content: an equal share of the turn's time."""
    fallbacks: "Counter"

    def for_turn(self, fell_back: Callable[[int], None]) -> Model:
        """See BuiltModel.for_turn."""
        return FallbackModel(self, fell_back)

    def secrets(self) -> tuple[str, ...]:
        """Return what no message may hold: the keys of all, as a message may tell of several."""
        return tuple(secret for part in self.parts for secret in part.secrets())


def chain(
    parts: Sequence[BuiltModel], configs: Sequence[ModelConfig], timeout_seconds: float, fallbacks: "Counter"
) -> BuiltModel:
    """Return one BuiltModel for all; `fallbacks` is counted by the labels of the model that failed and the next."""

    def refresh_key() -> None:
        for part in parts:
            part.refresh_key()

    async def close() -> None:
        async with contextlib.AsyncExitStack() as stack:  # closes all, even where one fails to
            for part in parts:
                stack.push_async_callback(part.close)

    return ModelChain(
        model=parts[0].model,
        key=KeyFile(None),
        refresh_key=refresh_key,
        close=close,
        parts=tuple(parts),
        names=tuple(f"{config.provider}/{config.id}" for config in configs),
        first_content_seconds=timeout_seconds / len(parts),
        fallbacks=fallbacks,
    )


class FallbackModel(Model):
    """The models of a chain, for one turn."""

    def __init__(self, chain: ModelChain, fell_back: Callable[[int], None]) -> None:
        self._chain = chain
        self._fell_back = fell_back
        self._at = 0
        self._foreign: int | None = None
        self._failed: list[tuple[str, Exception]] = []

    def update_config(self, **model_config: Any) -> None:
        """Pass on to the model that is asked now."""
        self._model.update_config(**model_config)

    def get_config(self) -> Any:
        """Return the settings of the model that is asked now."""
        return self._model.get_config()

    def structured_output(self, *arguments: Any, **options: Any) -> Any:
        """Pass on to the model that is asked now."""
        return self._model.structured_output(*arguments, **options)

    @property
    def _model(self) -> Model:
        return self._chain.parts[self._at].model

    async def stream(self, messages: Any, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """Yield the chunks of the first model that begins to answer.

        Raises ModelsFailed when a model fails that no other may stand in for, or after its first content.
        """
        while True:
            is_last = self._at == len(self._chain.parts) - 1
            began = False
            turn_spans.model_asked(*self._chain.names[self._at].split("/", 1))
            asked = self._model.stream(self._comprehensible(messages), *arguments, **options)
            async with aclosing(cast(AsyncGenerator[Any, None], asked)) as chunks:
                try:
                    for chunk in await _until_content(chunks, None if is_last else self._chain.first_content_seconds):
                        began = True
                        yield chunk
                    async for chunk in chunks:
                        yield chunk
                    return
                except Exception as error:
                    self._failed.append((self._chain.names[self._at], error))
                    if began or is_last or failure_of(error).kind not in FALL_BACK:
                        raise ModelsFailed(self._failed) from error
                    self._next(error)

    def _next(self, error: Exception) -> None:
        names = self._chain.names
        self._chain.fallbacks.labels(names[self._at], names[self._at + 1]).inc()
        fields = {"from": names[self._at], "to": names[self._at + 1], "reason": failure_of(error).kind}
        _log.warning("a model has failed and the next is asked", extra={"fields": fields})
        self._at += 1
        self._foreign = None
        self._fell_back(self._at)

    def _comprehensible(self, messages: list[Any]) -> list[Any]:
        """Return the messages without the thoughts of earlier turns, which may be those of another model.

        Providers sign them, and refuse the signatures of others. The model's own, in this turn, it wants to see again.
        """
        if self._foreign is None:
            self._foreign = len(messages)
        return [_without_thoughts(message) for message in messages[: self._foreign]] + messages[self._foreign :]


async def _until_content(chunks: AsyncIterator[Any], seconds: float | None) -> list[Any]:
    """Return the chunks up to the first with content; raises TimeoutError when that takes too long."""
    seen: list[Any] = []
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                seen.append(chunk)
                if _is_content(chunk):
                    break
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no content within {seconds or 0:g} s") from error
    return seen


def _is_content(chunk: dict[str, Any]) -> bool:
    return bool("contentBlockDelta" in chunk or chunk.get("contentBlockStart", {}).get("start"))


def _without_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    content = [block for block in message["content"] if "reasoningContent" not in block]
    for i, block in enumerate(content):
        if "reasoningSignature" in block.get("toolUse", {}):
            unsigned = {name: value for name, value in block["toolUse"].items() if name != "reasoningSignature"}
            content[i] = {**block, "toolUse": unsigned}
    return {**message, "content": content or [{"text": "(no text)"}]}
