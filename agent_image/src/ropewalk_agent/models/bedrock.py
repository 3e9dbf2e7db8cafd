"""bedrock: the ConverseStream API, by boto3, in a thread for each call.

Without a key file, AWS' own chain of credentials is used (a service account's role, the environment), which renews
itself. With one, the file holds a Bedrock API key, which is sent as a bearer token.
"""

import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import CONNECT_SECONDS, RETRIES, BuiltModel, KeyFile

_SETTINGS = ("max_tokens", "temperature", "top_p", "stop_sequences", "additional_request_fields")
_ended: ContextVar[threading.Event | None] = ContextVar("_ended", default=None)
"""Set when nobody listens to the call any more. Its thread has a copy of the context in which the call began."""


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; a parameter that Converse does not know becomes an additional request field."""
    from botocore import UNSIGNED  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]
    from strands.models.bedrock import BedrockModel

    class StoppableBedrockModel(BedrockModel):
        """Ends the thread of a call that nobody listens to any more, at its next chunk or attempt.

        A cancel_signal given to the Agent would not do: a turn that is cancelled clears it before the thread looks.
        """

        async def stream(self, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
            ended = threading.Event()
            _ended.set(ended)
            try:
                async with aclosing(super().stream(*arguments, **{**options, "cancel_signal": ended})) as events:
                    async for event in events:
                        yield event
            finally:
                ended.set()

    settings = {name: value for name, value in config.parameters.items() if name in _SETTINGS}
    others = {name: value for name, value in config.parameters.items() if name not in _SETTINGS}
    if others:
        settings["additional_request_fields"] = {**settings.get("additional_request_fields", {}), **others}
    client_config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": 1 + RETRIES},
        **({"signature_version": UNSIGNED} if config.api_key_file is not None else {}),
    )
    model = StoppableBedrockModel(
        model_id=config.id,
        region_name=config.region,
        endpoint_url=config.base_url,
        boto_client_config=client_config,
        **settings,
    )
    model.client.meta.events.register("before-send.bedrock-runtime", _refuse_what_has_ended)
    if config.api_key_file is not None:

        def authorize(request: Any, **_: Any) -> None:
            request.headers["Authorization"] = f"Bearer {key.read()}"

        # boto3 takes a bearer token from the environment only, and only when a client is made.
        model.client.meta.events.register("before-send.bedrock-runtime", authorize)

    async def close() -> None:
        model.client.close()

    return BuiltModel(model, key, lambda: None, close)


def _refuse_what_has_ended(**_: Any) -> None:
    """Keep boto3 from another attempt at a call that nobody listens to; what is raised here it does not retry."""
    ended = _ended.get()
    if ended is not None and ended.is_set():
        raise RuntimeError("the turn has ended")
