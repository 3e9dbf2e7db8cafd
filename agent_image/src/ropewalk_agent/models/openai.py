"""openai and openai-compatible: the chat completions API, by OpenAI's own client."""

import inspect
from typing import Any

from ropewalk_agent import spans
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import CONNECT_SECONDS, RETRIES, BuiltModel, KeyFile, TryKey, asked, trust


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; a parameter that the client does not know goes into the body of the request as it is."""
    import httpx
    import openai
    from strands.models.openai import OpenAIModel

    http = openai.DefaultAsyncHttpxClient(
        timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
        verify=trust(config.base_url),
        event_hooks={"request": [spans.propagate]},
        follow_redirects=False,
    )
    client = openai.AsyncOpenAI(
        # The client insists on a key; a compatible server without one ignores it.
        api_key=key.read() or "none",
        base_url=config.base_url,
        max_retries=RETRIES,
        http_client=http,
    )
    # The client imports this part only when it is asked for: now, rather than in somebody's first request.
    accepted = inspect.signature(client.chat.completions.create).parameters

    def refresh_key() -> None:
        client.api_key = key.read() or "none"

    params = with_extra_body(config.parameters, frozenset(accepted))
    model = OpenAIModel(client=client, model_id=config.id, params=params)
    try_key = trial(http, str(client.base_url), key, config.parameters)
    return BuiltModel(model, key, refresh_key, client.close, try_key=try_key)


def trial(http: Any, base_url: str, key: KeyFile, parameters: dict[str, Any]) -> TryKey:
    """Return how the key is tried: with the headers and the query that a chat would bring.

    A gateway may serve chats and no list of models, and refuse that one with 401. So a refusal counts only where a chat
    is refused as well; one without a model and messages costs nothing, because nobody can answer it.
    """

    async def try_key() -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {key.read()}", **parameters.get("extra_headers", {})}
        request = {"headers": headers, "params": parameters.get("extra_query", {})}
        status, words = await asked(http, "GET", f"{base_url}models", **request)
        if status != 401:
            return status, words
        return await asked(http, "POST", f"{base_url}chat/completions", json={}, **request)

    return try_key


def with_extra_body(parameters: dict[str, Any], accepted: frozenset[str]) -> dict[str, Any]:
    """Return the parameters with those that the client does not accept in `extra_body`, which it sends as it is."""
    known = {name: value for name, value in parameters.items() if name in accepted}
    others = {name: value for name, value in parameters.items() if name not in accepted}
    if others:
        known["extra_body"] = {**known.get("extra_body", {}), **others}
    return known
