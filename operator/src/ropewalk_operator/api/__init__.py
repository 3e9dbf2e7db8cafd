"""Resource bodies -> frozen Agent, MCPServer and ModelSpec, or InvalidSpec.

Never talks to anything and never guesses: the schema of the CRD has filled in the defaults; what it could not refuse
is refused here, with every problem at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ropewalk_operator.api.agents import Agent, Limits, Queue, ServerRef, Sessions
from ropewalk_operator.api.mcpservers import Auth, ClientCredentials, Header, MCPServer, Package, Remote, Retry, Stdio
from ropewalk_operator.api.models import FallbackModel, ModelSpec, Provider
from ropewalk_operator.api.values import InvalidSpec, KeyRef, ToolFilter, sentences
from ropewalk_operator.api.workload import API_VERSION, GROUP, VERSION, Autoscaling, EnvFrom, NetworkRules, Pod

__all__ = [
    "API_VERSION", "GROUP", "VERSION", "Agent", "Auth", "Autoscaling", "ClientCredentials", "EnvFrom", "FallbackModel",
    "Header", "InvalidSpec", "KeyRef", "Limits", "MCPServer", "ModelSpec", "NetworkRules", "Package", "Pod",
    "Provider", "Queue", "Remote", "Retry", "ServerRef", "Sessions", "Stdio", "ToolFilter", "agent", "mcp_server",
    "model",
]  # fmt: skip


def agent(body: Mapping[str, Any]) -> Agent:
    """The Agent in `body`; raises InvalidSpec."""
    try:
        return Agent.model_validate(_flat(body))
    except ValidationError as error:
        raise InvalidSpec(sentences(error)) from None


def mcp_server(body: Mapping[str, Any]) -> MCPServer:
    """The MCPServer in `body`; raises InvalidSpec."""
    try:
        return MCPServer.model_validate(_flat(body))
    except ValidationError as error:
        raise InvalidSpec(sentences(error)) from None


def model(body: Mapping[str, Any]) -> ModelSpec:
    """What the Model in `body` asks for; raises InvalidSpec."""
    try:
        return ModelSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        raise InvalidSpec(sentences(error)) from None


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = body["metadata"]
    return {
        **(body.get("spec") or {}),
        "kind": body.get("kind", ""),
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 1),
    }
