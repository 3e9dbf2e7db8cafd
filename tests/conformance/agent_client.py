"""What the suite starts as the client: `agent_client.py URL` connects as an agent does, and calls its tools.

The connection, its tokens and its calls are the agent's own code. What is played here is the person who writes the
MCPServer, who looks up the token endpoint and mounts the Secret, and the model, which thinks of arguments.
"""

import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ropewalk_agent.config import ClientCredentials, McpAuth, McpServerConfig
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.tools import Tool
from ropewalk_agent.tools.mcp import Connection

_CONNECT_SECONDS = 10.0
_CALL_SECONDS = 10
_VALUES: dict[str, Any] = {"number": 2, "integer": 2, "boolean": True, "string": "words", "array": [], "object": {}}


def _document(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as response:
        document: dict[str, Any] = json.load(response)
        return document


def _token_url(server_url: str) -> str:
    """Return the token endpoint as the server's own documents name it (RFC 9728, RFC 8414)."""
    parts = urlsplit(server_url)
    resource = _document(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}")
    authority = urlsplit(resource["authorization_servers"][0])
    found = _document(f"{authority.scheme}://{authority.netloc}/.well-known/oauth-authorization-server")
    return str(found["token_endpoint"])


def _auth(server_url: str, context: dict[str, Any], folder: Path) -> McpAuth | None:
    """Return the settings of an agent that was given a client's name and secret, or None."""
    if not {"client_id", "client_secret"} <= context.keys():
        return None
    files = {name: folder / name for name in ("client_id", "client_secret")}
    for name, file in files.items():
        file.write_text(context[name])
    credentials = ClientCredentials(
        token_url=_token_url(server_url), client_id_file=files["client_id"], client_secret_file=files["client_secret"]
    )
    return McpAuth(client_credentials=credentials)


def _arguments(tool: Tool, shown: tuple[Tool, ...]) -> dict[str, Any]:
    """Return arguments for the tool's required parameters; one named `schema` gets that of the first tool."""
    schema = tool.input_schema
    properties, required = schema.get("properties", {}), schema.get("required", ())
    plain = {name: _VALUES.get(properties.get(name, {}).get("type"), "words") for name in required}
    return plain | ({"schema": shown[0].input_schema} if "schema" in required else {})


def _calls(tools: tuple[Tool, ...], context: dict[str, Any]) -> list[tuple[Tool, dict[str, Any]]]:
    """Return what to call: what the scenario prescribes, else every tool once."""
    if prescribed := context.get("toolCalls"):
        named = {tool.name: tool for tool in tools}
        return [(named[call["name"]], call["arguments"]) for call in prescribed if call["name"] in named]
    return [(tool, _arguments(tool, tools)) for tool in tools]


def _tell(**seen: object) -> None:
    """Write down what the agent saw, for whoever reads the suite's results."""
    sys.stdout.write(json.dumps(seen) + "\n")


async def _run(url: str, context: dict[str, Any], folder: Path) -> bool:
    told = asyncio.Event()
    config = McpServerConfig(name="conformance", url=url, auth=_auth(url, context, folder))
    connection = Connection(config, tool_timeout_seconds=_CALL_SECONDS, metrics=Metrics(), changed=told.set)
    connection.start()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            while connection.status.state != "connected" and connection.status.last_error is None:
                await told.wait()
                told.clear()
        _tell(state=connection.status.state, why=connection.status.last_error)
        for tool, arguments in _calls(connection.tools, context):
            result = await tool.call(arguments)
            _tell(tool=tool.name, outcome=result.outcome, content=str(result.content)[:200])
        return connection.status.state == "connected"
    finally:
        await connection.stop()


def main() -> int:
    """Return 0 if the agent connected."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(_run(sys.argv[1], context, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
