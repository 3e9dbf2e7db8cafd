"""Provider name -> Strands Model, with one client that is shared by all turns. Makes no call by itself.

Imports a provider's library only when that provider is asked for: each costs tens of megabytes. Everything here runs
on the worker's loop, where the clients stay. The clients' own retries (at most two) are the only ones: the turn's
deadline cuts them off, and Strands' own strategy, which pauses for minutes, is switched off in turn.py.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models.built import BuiltModel, KeyFile, without_authorities

if TYPE_CHECKING:
    from prometheus_client import Counter

__all__ = ["BuiltModel", "KeyFile", "build", "chain", "need_boto", "without_authorities"]


def build(config: ModelConfig, timeout_seconds: float) -> BuiltModel:
    """Return the provider's Model; `timeout_seconds` bounds its silence within a call, the turn's deadline the call.

    Raises ValueError for a parameter that the provider is known not to take.
    """
    name = "openai" if config.provider == "openai-compatible" else config.provider
    built: BuiltModel = import_module(f"{__name__}.{name}").build(config, KeyFile(config.api_key_file), timeout_seconds)
    return built


def chain(
    parts: Sequence[BuiltModel], configs: Sequence[ModelConfig], timeout_seconds: float, fallbacks: "Counter"
) -> BuiltModel:
    """Return one BuiltModel for a model and its fallbacks; see fallbacks.chain."""
    if len(parts) == 1:
        return parts[0]
    from ropewalk_agent.models import fallbacks as fallbacks_

    return fallbacks_.chain(parts, configs, timeout_seconds, fallbacks)


def need_boto(configs: tuple[ModelConfig, ...]) -> bool:
    """Whether any of these models is reached by boto3; LiteLLM may do so."""
    return any(config.provider in ("bedrock", "litellm") for config in configs)
