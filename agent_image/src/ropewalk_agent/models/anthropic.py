"""anthropic: the messages API, by Anthropic's own client."""

import inspect
from typing import Any

from ropewalk_agent import spans
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import CONNECT_SECONDS, RETRIES, BuiltModel, KeyFile, listing, trust
from ropewalk_agent.models.openai import with_extra_body

_MAX_TOKENS = 4096
"""The protocol demands a bound; `parameters.max_tokens` sets another."""


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; a parameter that the client does not know goes into the body of the request as it is."""
    import anthropic
    import httpx
    from strands.models.anthropic import AnthropicModel

    http = anthropic.DefaultAsyncHttpxClient(
        timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
        verify=trust(config.base_url),
        event_hooks={"request": [spans.propagate]},
        follow_redirects=False,
    )
    client_args: dict[str, Any] = {"api_key": key.read(), "max_retries": RETRIES, "http_client": http}
    if config.base_url is not None:
        client_args["base_url"] = config.base_url
    parameters = dict(config.parameters)
    max_tokens = int(parameters.pop("max_tokens", _MAX_TOKENS))
    accepted = frozenset(inspect.signature(anthropic.resources.AsyncMessages.stream).parameters)
    params = with_extra_body(parameters, accepted)
    model = AnthropicModel(client_args=client_args, model_id=config.id, max_tokens=max_tokens, params=params)

    def refresh_key() -> None:
        model.client.api_key = key.read()

    url = f"{str(model.client.base_url).rstrip('/')}/v1/models?limit=1"
    version = model.client.default_headers["anthropic-version"]
    try_key = listing(http, url, lambda: {"x-api-key": key.read(), "anthropic-version": str(version)})
    return BuiltModel(model, key, refresh_key, model.client.close, try_key=try_key)
