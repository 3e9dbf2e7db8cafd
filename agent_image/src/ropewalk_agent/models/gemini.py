"""gemini: the generateContent API of Google AI Studio, by Google's own client."""

from ropewalk_agent import lean, spans
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import RETRIES, BuiltModel, KeyFile, bounded, listing, trust

_USUAL = "https://generativelanguage.googleapis.com"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_JITTER_SECONDS = 0.5


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; parameters are the fields of GenerateContentConfig.

    Raises ValueError for a parameter that is not one of them.
    """
    import httpx

    with lean.hidden("aiohttp"):  # 6 MiB for what `http` below does
        from google import genai
    from strands.models.gemini import GeminiModel

    genai.types.GenerateContentConfig(**config.parameters)
    # The client would set one limit for everything, were it not given this.
    http = httpx.AsyncClient(
        event_hooks={"request": [bounded(timeout_seconds), spans.propagate]},
        follow_redirects=False,
        verify=trust(config.base_url),
    )
    never_used = httpx.Client(verify=trust("http://"))

    def client() -> genai.Client:
        return genai.Client(
            api_key=key.read(),
            vertexai=False,
            http_options=genai.types.HttpOptions(
                base_url=config.base_url,
                httpx_client=never_used,
                httpx_async_client=http,
                retry_options=genai.types.HttpRetryOptions(
                    attempts=1 + RETRIES,
                    initial_delay=_FIRST_PAUSE_SECONDS,
                    max_delay=_LONGEST_PAUSE_SECONDS,
                    jitter=_JITTER_SECONDS,
                ),
            ),
        )

    model = GeminiModel(client=client(), model_id=config.id, params=dict(config.parameters))
    used = key.read()

    def refresh_key() -> None:
        nonlocal used
        if key.read() != used:
            # The client copies its key into places of its own. A call that is under way keeps its key.
            used = key.read()
            model._custom_client = client()

    url = f"{(config.base_url or _USUAL).rstrip('/')}/v1beta/models?pageSize=1"
    try_key = listing(http, url, lambda: {"x-goog-api-key": key.read()})
    return BuiltModel(model, key, refresh_key, http.aclose, try_key=try_key)
