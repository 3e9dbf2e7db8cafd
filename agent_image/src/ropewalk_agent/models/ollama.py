"""ollama: the /api/chat of an Ollama server, by Ollama's own client, which does not retry."""

from typing import Any

from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import CONNECT_SECONDS, BuiltModel, KeyFile, trust

_SETTINGS = ("keep_alive", "max_tokens", "stop_sequences", "temperature", "top_p")
_OF_THE_REQUEST = ("format", "logprobs", "think", "top_logprobs")


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; parameters that are not of the request itself (`think`, `format`) are the model's options."""
    import httpx
    from strands.models.ollama import OllamaModel

    # Strands makes a client for every call; they share this, and with it the connections. It is for one server in the
    # cluster: proxies of the environment do not count.
    transport = httpx.AsyncHTTPTransport(verify=trust(config.base_url))
    client_args: dict[str, Any] = {
        "transport": transport,
        "follow_redirects": False,
        "timeout": httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
    }
    parameters = dict(config.parameters)
    settings = {name: parameters.pop(name) for name in _SETTINGS if name in parameters}
    additional = {name: parameters.pop(name) for name in _OF_THE_REQUEST if name in parameters}
    options = {**parameters.pop("options", {}), **parameters}
    model = OllamaModel(
        config.base_url,
        ollama_client_args=client_args,
        model_id=config.id,
        options=options,
        additional_args=additional,
        **settings,
    )

    def refresh_key() -> None:
        if secret := key.read():
            client_args["headers"] = {"Authorization": f"Bearer {secret}"}

    refresh_key()
    return BuiltModel(model, key, refresh_key, transport.aclose)
