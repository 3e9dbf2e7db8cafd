"""Provider name -> Strands Model, with one client that is shared by all turns. Makes no call by itself.

Imports a provider's library only when that provider is asked for: each costs tens of megabytes. Everything here runs
on the worker's loop, where the clients stay. The clients' own retries (two, with short pauses) are the only ones: the
turn's deadline cuts them off, and Strands' own strategy, which pauses for minutes, is switched off in turn.py.
"""

import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk_agent.config import ModelConfig

if TYPE_CHECKING:
    from strands.models.model import Model

_RETRIES = 2
_CONNECT_SECONDS = 5.0
_ANTHROPIC_MAX_TOKENS = 4096
"""Anthropic's protocol demands a bound; `parameters.max_tokens` sets another."""

_BEDROCK_SETTINGS = ("max_tokens", "temperature", "top_p", "stop_sequences", "additional_request_fields")


class KeyFile:
    """A mounted key; read again when the file has changed, so that a rotated Secret needs no new pod."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._key = ""

    def read(self) -> str:
        """Return the key, empty if there is no file; while a rotation has removed it, the last key."""
        if self._path is None:
            return ""
        try:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                self._key = self._path.read_text(encoding="utf-8").strip()
                self._seen = (status.st_ino, status.st_mtime_ns)
        except FileNotFoundError:
            pass
        return self._key


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A Model that is ready for use. Call `refresh_key` before each turn; `close` when the pod ends."""

    model: "Model"
    key: KeyFile
    refresh_key: Callable[[], None]
    close: Callable[[], Awaitable[None]]


def build(config: ModelConfig, timeout_seconds: float) -> BuiltModel:
    """Return the provider's Model; `timeout_seconds` bounds a single call to it."""
    key = KeyFile(config.api_key_file)
    if config.provider == "anthropic":
        return _anthropic(config, key, timeout_seconds)
    if config.provider == "bedrock":
        return _bedrock(config, key, timeout_seconds)
    return _openai(config, key, timeout_seconds)


def _openai(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    import httpx
    import openai
    from strands.models.openai import OpenAIModel

    options: dict[str, Any] = {"timeout": httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS)}
    if config.base_url is not None and config.base_url.startswith("http://"):
        options["verify"] = without_authorities()
    client = openai.AsyncOpenAI(
        # The client insists on a key; a compatible server without one ignores it.
        api_key=key.read() or "none",
        base_url=config.base_url,
        max_retries=_RETRIES,
        http_client=openai.DefaultAsyncHttpxClient(**options),
    )

    # The client imports this part only when it is asked for: now, rather than in somebody's first request.
    _ = client.chat.completions

    def refresh_key() -> None:
        client.api_key = key.read() or "none"

    model = OpenAIModel(client=client, model_id=config.id, params=dict(config.parameters))
    return BuiltModel(model, key, refresh_key, client.close)


def _anthropic(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    from strands.models.anthropic import AnthropicModel

    parameters = dict(config.parameters)
    max_tokens = int(parameters.pop("max_tokens", _ANTHROPIC_MAX_TOKENS))
    client_args: dict[str, Any] = {"api_key": key.read(), "timeout": timeout_seconds, "max_retries": _RETRIES}
    if config.base_url is not None:
        client_args["base_url"] = config.base_url
    model = AnthropicModel(client_args=client_args, model_id=config.id, max_tokens=max_tokens, params=parameters)

    def refresh_key() -> None:
        model.client.api_key = key.read()

    return BuiltModel(model, key, refresh_key, model.client.close)


def _bedrock(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    from botocore.config import Config  # type: ignore[import-untyped]
    from strands.models.bedrock import BedrockModel

    class StoppableBedrockModel(BedrockModel):
        """Ends the thread of a call that nobody listens to any more, at its next chunk.

        A cancel_signal given to the Agent would not do: a turn that is cancelled clears it before the thread looks.
        """

        async def stream(self, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
            ended = threading.Event()
            try:
                async with aclosing(super().stream(*arguments, **{**options, "cancel_signal": ended})) as events:
                    async for event in events:
                        yield event
            finally:
                ended.set()

    settings = {name: value for name, value in config.parameters.items() if name in _BEDROCK_SETTINGS}
    others = {name: value for name, value in config.parameters.items() if name not in _BEDROCK_SETTINGS}
    if others:
        settings["additional_request_fields"] = {**settings.get("additional_request_fields", {}), **others}
    client_config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": 1 + _RETRIES},
    )
    model = StoppableBedrockModel(
        model_id=config.id, region_name=config.region, boto_client_config=client_config, **settings
    )

    async def close() -> None:
        model.client.close()

    return BuiltModel(model, key, lambda: None, close)


def without_authorities() -> ssl.SSLContext:
    """Return a TLS context that trusts nobody: for plain http, where loading a trust store only costs memory.

    Should such a server redirect to https, the connection is refused rather than left unverified.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
