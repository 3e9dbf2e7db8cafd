"""litellm: whatever LiteLLM reaches, in process. `id` names provider and model: `openai/gpt-4o`, `groq/...`."""

import os
from typing import Any

from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import CONNECT_SECONDS, RETRIES, BuiltModel, KeyFile


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; without a key file LiteLLM takes its keys from the pod's environment."""
    import httpx

    # Otherwise importing it fetches a list of prices from the internet.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm
    from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from strands.models.litellm import LiteLLMModel

    litellm.telemetry = False
    # It would print advertisements on every error.
    litellm.suppress_debug_info = True
    # For what LiteLLM reaches by OpenAI's client. Its handlers for others follow redirects; there is no setting for it.
    http = AsyncHTTPHandler(follow_redirects=False)
    litellm.aclient_session = http.client
    client_args: dict[str, Any] = {
        "timeout": httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
        "max_retries": RETRIES,
    }
    if config.base_url is not None:
        client_args["api_base"] = config.base_url

    def refresh_key() -> None:
        if secret := key.read():
            client_args["api_key"] = secret

    refresh_key()
    model = LiteLLMModel(client_args=client_args, model_id=config.id, params=dict(config.parameters))

    async def close() -> None:
        await close_litellm_async_clients()  # type: ignore[no-untyped-call]
        await http.client.aclose()

    return BuiltModel(model, key, refresh_key, close)
