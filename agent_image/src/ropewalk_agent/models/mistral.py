"""mistral: the chat API, by Mistral's own client."""

import inspect
from typing import Any

from ropewalk_agent import spans
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import BuiltModel, KeyFile, bounded, listing, trust

_USUAL = "https://api.mistral.ai"
_SETTINGS = ("max_tokens", "temperature", "top_p")


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; parameters are those of the client's `chat.stream`.

    Raises ValueError for a parameter that is not one of them. The client is told not to retry: it would do so by the
    clock rather than by number.
    """
    import httpx2
    from mistralai.client.chat import Chat
    from strands.models.mistral import MistralModel

    accepted = inspect.signature(Chat.stream_async).parameters
    if unknown := sorted(config.parameters.keys() - accepted.keys()):
        raise ValueError(f"model.parameters has {', '.join(unknown)}, which Mistral's chat does not take; remove it")
    others = {name: value for name, value in config.parameters.items() if name not in _SETTINGS}

    class ParametrizedMistralModel(MistralModel):
        """Sends the parameters, too, for which Strands has no setting."""

        def format_request(self, *arguments: Any, **options: Any) -> dict[str, Any]:
            return {**super().format_request(*arguments, **options), **others}

    http = httpx2.AsyncClient(
        event_hooks={"request": [bounded(timeout_seconds), spans.propagate]},
        follow_redirects=False,
        verify=trust(config.base_url),
    )
    client_args: dict[str, Any] = {
        "api_key": key.read,
        "async_client": http,
        # Never used; without it one would be made for every call, with a trust store of its own.
        "client": httpx2.Client(verify=trust("http://")),
        "retry_config": None,
    }
    if config.base_url is not None:
        client_args["server_url"] = config.base_url
    settings = {name: value for name, value in config.parameters.items() if name in _SETTINGS}
    model = ParametrizedMistralModel(client_args=client_args, model_id=config.id, **settings)
    url = f"{(config.base_url or _USUAL).rstrip('/')}/v1/models"
    try_key = listing(http, url, lambda: {"Authorization": f"Bearer {key.read()}"})
    return BuiltModel(model, key, lambda: None, http.aclose, try_key=try_key)
