"""llamacpp: the OpenAI-like API of llama.cpp's server, over plain HTTP, without retries."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import CONNECT_SECONDS, BuiltModel, KeyFile, trust

if TYPE_CHECKING:
    import httpx


def build(config: ModelConfig, key: KeyFile, timeout_seconds: float) -> BuiltModel:
    """Return the Model; baseURL may end in /v1 or not."""
    import httpx
    from strands.models.llamacpp import LlamaCppModel

    class StreamingClient(httpx.AsyncClient):
        """Gives the lines of an answer as they come; Strands asks with `post`, which would wait for the last."""

        async def post(self, url: Any, **options: Any) -> Any:
            response = await self.send(self.build_request("POST", url, **options), stream=True)
            if not response.is_success:
                await response.aread()
                return response
            return _Lines(response)

    base_url = (config.base_url or "").rstrip("/").removesuffix("/v1")
    model = LlamaCppModel(base_url, model_id=config.id, params=dict(config.parameters))
    model.client = StreamingClient(
        base_url=base_url,
        timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
        verify=trust(base_url),
    )

    def refresh_key() -> None:
        if secret := key.read():
            model.client.headers["Authorization"] = f"Bearer {secret}"

    refresh_key()
    return BuiltModel(model, key, refresh_key, model.client.aclose)


class _Lines:
    """As much of a good response as Strands looks at; closed when its lines are no longer read."""

    def __init__(self, response: "httpx.Response") -> None:
        self._response = response

    def raise_for_status(self) -> None:
        """Do nothing: only what is good is wrapped in this."""

    async def aiter_lines(self) -> AsyncGenerator[str, None]:
        """Yield each line when it comes."""
        try:
            async for line in self._response.aiter_lines():
                yield line
        finally:
            await self._response.aclose()
