"""Which Agents use an MCPServer that only agents can ask, and which of their pods may be asked. Wakes nobody itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ropewalk_operator import api
from ropewalk_operator.cache import Cache
from ropewalk_operator.facts import Facts
from ropewalk_operator.kinds import MCP_SERVER, Key
from ropewalk_operator.pods import Pod


@dataclass(frozen=True)
class _User:
    """Of an Agent, the servers that only agents can ask, and what was last seen of its pods."""

    servers: frozenset[Key] = frozenset()
    config_hash: str | None = None
    pods: frozenset[tuple[str, bool, bool, int]] = frozenset()


class Users:
    """One for the process, filled by each reconcile of an Agent: the watches tell a server nothing of agents' pods."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._users: dict[Key, _User] = {}

    def see(self, agent: Key, servers: Mapping[str, api.MCPServer], facts: Facts) -> frozenset[Key]:
        """Take in an Agent as it was just judged; the servers to look at again, because its pods have changed."""
        asked = frozenset(
            Key(MCP_SERVER.name, agent.namespace, name)
            for name, server in servers.items()
            if server.is_asked_with_secrets
        )
        pods = frozenset((pod.uid, pod.running, pod.ready, pod.restarts) for pod in facts.fresh_pods)
        before, now = self._users.get(agent, _User()), _User(asked, facts.config_hash, pods)
        if now == before or not (asked or before.servers):
            return frozenset()
        self._users[agent] = now
        return asked | before.servers

    def forget(self, agent: Key) -> frozenset[Key]:
        """An Agent is gone; the servers to look at again."""
        return self._users.pop(agent, _User()).servers

    def pods(self, server: Key) -> list[list[Pod]]:
        """By Agent that names the server, the pods of its current spec; all of them where that is not known yet."""
        found: list[list[Pod]] = []
        for agent in sorted(self._cache.agents_of_server(server.namespace, server.name)):
            known = self._users.get(agent)
            pods = self._cache.pods_of(agent)
            found.append([pod for pod in pods if known is None or pod.config_hash == known.config_hash])
        return found
