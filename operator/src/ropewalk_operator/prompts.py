"""The system prompt of an Agent, from its spec or a ConfigMap, which is read again only when it has changed."""

from __future__ import annotations

from typing import Any, Protocol

from ropewalk_operator import api
from ropewalk_operator.cache import Cache
from ropewalk_operator.children import version_of
from ropewalk_operator.kinds import CONFIG_MAP, Key, Kind


class Reader(Protocol):
    """What is needed of the connection."""

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """The object or None."""


class Prompts:
    """One for the process."""

    def __init__(self, cache: Cache, reader: Reader) -> None:
        self._cache = cache
        self._reader = reader
        self._known: dict[Key, tuple[api.KeyRef, tuple[str, int], str]] = {}

    async def of(self, key: Key, agent: api.Agent) -> tuple[str | None, str | None]:
        """The prompt, or what is wrong with the place that it should come from. Raises ApiError."""
        if agent.system_prompt is not None:
            self.forget(key)
            return agent.system_prompt, None
        if agent.system_prompt_from is None:
            raise AssertionError("api.agent has checked that one of the two is set")
        ref = agent.system_prompt_from.config_map_key_ref
        known = self._known.get(key)
        if known is not None and known[:2] == (ref, self._cache.config_maps.get((agent.namespace, ref.name))):
            return known[2], None
        where = f'the ConfigMap "{ref.name}"'
        found = await self._reader.get(CONFIG_MAP, agent.namespace, ref.name)
        if found is None:
            return None, f"spec.systemPromptFrom names {where}, not found in this namespace; create it"
        text = (found.get("data") or {}).get(ref.key)
        if not text:
            state = "has no key" if text is None else "has nothing in the key"
            return None, f'spec.systemPromptFrom: {where} {state} "{ref.key}"; put the system prompt there'
        self._known[key] = (ref, (found["metadata"]["uid"], version_of(found)), text)
        return text, None

    def forget(self, key: Key) -> None:
        """The Agent is gone."""
        self._known.pop(key, None)
