"""An Agent -> agent.json, the file that the agent's pod reads.

The agent's config.py owns the format; nothing secret is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.api import Agent, FallbackModel, MCPServer, ModelSpec, ServerRef
from ropewalk_operator.render import mcp_secrets

FORMAT_VERSION = 1


def agent_config(
    agent: Agent, model: ModelSpec, system_prompt: str, servers: Mapping[str, MCPServer]
) -> dict[str, Any]:
    """The settings as plain data; `servers` holds every MCPServer that the agent names."""
    sessions = agent.sessions
    limits = agent.limits
    return {
        "formatVersion": FORMAT_VERSION,
        "name": agent.name,
        "namespace": agent.namespace,
        "description": agent.description,
        "systemPrompt": system_prompt,
        "model": _model(model, names.MODEL_KEY_FILE),
        "fallbacks": [
            _model(fallback, names.fallback_key_file(index)) for index, fallback in enumerate(model.fallbacks)
        ],
        "mcpServers": [_mcp_server(ref, servers[ref.name]) for ref in agent.mcp_servers],
        "localTools": list(agent.local_tools),
        "outputSchema": agent.output_schema,
        "limits": {
            "requestTimeoutSeconds": limits.request_timeout_seconds,
            "toolTimeoutSeconds": limits.tool_timeout_seconds,
            "maxTurns": limits.max_turns,
            "maxParallelTools": limits.max_parallel_tools,
            "maxTokensPerRequest": limits.max_tokens_per_request,
        },
        "concurrency": agent.concurrency,
        "queue": {"maxLength": agent.queue.max_length},
        "sessions": {
            "store": sessions.store,
            "ttlSeconds": sessions.ttl_seconds,
            "maxSessions": sessions.max_sessions,
            "windowSize": sessions.window_size,
            "directory": names.SESSIONS_DIRECTORY,
            "redisURLFile": names.REDIS_URL_FILE if sessions.redis else None,
        },
    }


def _mcp_server(ref: ServerRef, server: MCPServer) -> dict[str, Any]:
    # What the server's owner and the agent's let through is one filter to the agent.
    tools = server.tools.within(ref.tools)
    return {
        "name": ref.name,
        "url": names.mcp_url(server),
        "required": ref.required,
        "prefix": ref.prefix,
        "tools": {"allow": None if tools.allow is None else list(tools.allow), "deny": list(tools.deny)},
        "toolTimeoutSeconds": server.tool_timeout_seconds,
        "retry": {
            "maxAttempts": server.retry.max_attempts,
            "initialDelayMilliseconds": server.retry.initial_delay_milliseconds,
            "maxDelaySeconds": server.retry.max_delay_seconds,
        },
        "auth": mcp_secrets.auth(server),
        "headers": mcp_secrets.headers(server),
        "caBundle": server.remote.ca_bundle if server.remote else None,
    }


def _model(model: FallbackModel, key_file: str) -> dict[str, Any]:
    return {
        "provider": model.provider,
        "id": model.id,
        "baseURL": model.base_url,
        "region": model.region,
        "apiKeyFile": key_file if model.api_key_secret_ref else None,
        "parameters": model.parameters,
    }


def agent_json(agent: Agent, model: ModelSpec, system_prompt: str, servers: Mapping[str, MCPServer]) -> str:
    """The settings as the text of the file."""
    return json.dumps(agent_config(agent, model, system_prompt, servers), indent=2, ensure_ascii=False) + "\n"
