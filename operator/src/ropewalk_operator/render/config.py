"""An Agent -> agent.json, the file that the agent's pod reads.

The agent's config.py owns the format; nothing secret is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.api import Agent, MCPServer

FORMAT_VERSION = 1


def agent_config(agent: Agent, system_prompt: str, servers: Mapping[str, MCPServer]) -> dict[str, Any]:
    """The settings as plain data; `servers` holds every MCPServer that the agent names."""
    model = agent.model
    limits = agent.limits
    return {
        "formatVersion": FORMAT_VERSION,
        "name": agent.name,
        "namespace": agent.namespace,
        "description": agent.description,
        "systemPrompt": system_prompt,
        "model": {
            "provider": model.provider,
            "id": model.id,
            "baseURL": model.base_url,
            "region": model.region,
            "apiKeyFile": f"{names.MODEL_SECRET_DIRECTORY}/{names.MODEL_SECRET_FILE}"
            if model.api_key_secret_ref
            else None,
            "parameters": model.parameters,
        },
        "mcpServers": [
            {
                "name": ref.name,
                "url": names.mcp_url(servers[ref.name]),
                "required": ref.required,
                "tools": {
                    "allow": None if ref.tools.allow is None else list(ref.tools.allow),
                    "deny": list(ref.tools.deny),
                },
            }
            for ref in agent.mcp_servers
        ],
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
            "store": agent.sessions.store,
            "ttlSeconds": agent.sessions.ttl_seconds,
            "maxSessions": agent.sessions.max_sessions,
            "windowSize": agent.sessions.window_size,
        },
    }


def agent_json(agent: Agent, system_prompt: str, servers: Mapping[str, MCPServer]) -> str:
    """The settings as the text of the file."""
    return json.dumps(agent_config(agent, system_prompt, servers), indent=2, ensure_ascii=False) + "\n"
