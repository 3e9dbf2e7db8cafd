"""What a Model holds, or the language model of one Agent, and those that are asked when it fails."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ropewalk_operator.api.values import KeyRef, Value, check_url

Provider = Literal[
    "openai", "openai-compatible", "anthropic", "bedrock", "gemini", "mistral", "ollama", "litellm", "llamacpp"
]
NEED_ADDRESS = frozenset({"openai-compatible", "ollama", "llamacpp"})
NEED_KEY = frozenset({"openai", "anthropic", "gemini", "mistral"})


class FallbackModel(Value):
    """A language model; the union rules of the providers are checked here once more."""

    provider: Provider
    id: str
    base_url: Annotated[str | None, Field(alias="baseURL")] = None
    region: str | None = None
    api_key_secret_ref: KeyRef | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_fit_the_provider(self) -> Self:
        if self.provider in NEED_ADDRESS and not self.base_url:
            raise ValueError("baseURL is missing; set it to the server's address, such as http://server:8080/v1")
        if self.provider == "bedrock" and (self.base_url or self.api_key_secret_ref):
            raise ValueError("provider bedrock uses neither baseURL nor apiKeySecretRef; remove them")
        if self.provider != "bedrock" and self.region:
            raise ValueError(f"region is {self.region!r}; it is for provider bedrock only, remove it")
        if self.provider in NEED_KEY and not self.api_key_secret_ref:
            raise ValueError(f"apiKeySecretRef is missing; provider {self.provider} needs it")
        if self.base_url:
            check_url("baseURL", self.base_url)
        return self


class ModelSpec(FallbackModel):
    """The language model, and those that are asked when it fails: a Model's spec, and `spec.model` of an Agent."""

    fallbacks: tuple[FallbackModel, ...] = ()
