"""What an agent needs to prove itself to an MCP server: which Secrets, and as which files they are mounted.

The operator reads none of them: it only says where they go.
"""

from __future__ import annotations

from typing import Any

from ropewalk_operator import names
from ropewalk_operator.api import KeyRef, MCPServer


def secrets_of(server: MCPServer) -> list[tuple[KeyRef, str]]:
    """Each Secret's key and its file in the agent's pod; the files are the same as those of `auth` and `headers`."""
    found: list[tuple[KeyRef, str]] = []
    if server.auth and server.auth.bearer_token_secret_ref:
        found.append((server.auth.bearer_token_secret_ref, _file(server, "bearer-token")))
    if server.auth and server.auth.client_credentials:
        credentials = server.auth.client_credentials
        found.append((credentials.client_id_secret_ref, _file(server, "client-id")))
        found.append((credentials.client_secret_secret_ref, _file(server, "client-secret")))
    if server.remote:
        found += [
            (header.value_from.secret_key_ref, _file(server, f"header-{index}"))
            for index, header in enumerate(server.remote.headers)
        ]
    return found


def auth(server: MCPServer) -> dict[str, Any] | None:
    """How the agent proves itself, as agent.json has it."""
    if server.auth is None:
        return None
    credentials = server.auth.client_credentials
    if credentials is None:
        return {"bearerTokenFile": _file(server, "bearer-token")}
    return {
        "clientCredentials": {
            "tokenURL": credentials.token_url,
            "clientIDFile": _file(server, "client-id"),
            "clientSecretFile": _file(server, "client-secret"),
            "scopes": list(credentials.scopes),
        }
    }


def headers(server: MCPServer) -> list[dict[str, str]]:
    """The headers to send, as agent.json has them."""
    asked = server.remote.headers if server.remote else ()
    return [{"name": header.name, "valueFile": _file(server, f"header-{index}")} for index, header in enumerate(asked)]


def _file(server: MCPServer, name: str) -> str:
    return f"{names.mcp_secrets_directory(server.name)}/{name}"
