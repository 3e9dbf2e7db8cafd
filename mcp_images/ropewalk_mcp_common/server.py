"""An MCP server that counts its tool calls: over streamable HTTP with /health and /metrics, or over stdin and stdout.

It never holds a session: any replica answers any request, of either era of the protocol.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, TextContent
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ropewalk_mcp_common.errors import CodedError, invalid_input
from ropewalk_mcp_process import __version__, hosts
from ropewalk_mcp_process.sockets import listening, port_number

_log = logging.getLogger("ropewalk.mcp")


class ToolServer(MCPServer[Any]):
    """MCPServer whose calls are measured, whose errors carry a code, and that no client holds up by a subscription."""

    def __init__(self, name: str, instructions: str, registry: CollectorRegistry, lifespan: Any = None) -> None:
        fixed: dict[str, Any] = {"version": __version__, "log_level": "WARNING", "subscriptions": False}
        super().__init__(name, instructions=instructions, lifespan=lifespan, **fixed)
        self._registry = registry
        self._calls = Counter("ropewalk_mcp_tool_calls", "Calls", ["tool", "outcome"], registry=registry)
        self._seconds = Histogram("ropewalk_mcp_tool_call_duration_seconds", "Time", ["tool"], registry=registry)

    def app(self) -> Starlette:
        """Return the ASGI application: POST /mcp, GET /health, GET /metrics."""

        async def metrics(request: Request) -> Response:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
            return Response(encode(self._registry), headers={"content-type": content_type})

        # Hosts are checked below: what the SDK would check by itself are only the names of this machine.
        app = self.streamable_http_app(stateless_http=True, json_response=True, host="0.0.0.0")  # noqa: S104
        names = hosts.own_names(os.environ)
        for route in app.routes:
            if isinstance(route, Route):
                # Without sessions nothing would ever come on a GET stream, and an open one delays every shutdown.
                route.methods, route.app = {"POST"}, hosts.own_names_only(route.app, names)
        app.routes.extend([Route("/health", JSONResponse({"status": "ok"})), Route("/metrics", metrics)])
        return app

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Run a tool, count it, and give its failure as `CODE: what to do`."""
        # A name that does not exist is the caller's text: as a label it would be unbounded.
        known = self._tool_manager.get_tool(name)
        tool = name if known else "unknown"
        started, outcome = time.perf_counter(), "internal"
        try:
            if not known:
                raise CodedError("NOT_FOUND", f"there is no tool {name!r}; list the tools to see their names")
            if strange := [each for each in arguments if each not in (allowed := known.parameters["properties"])]:
                # Left out without a word, a misspelt unit would give an answer in another one.
                advice = f"use {', '.join(allowed)}" if allowed else "it takes none"
                raise CodedError("INVALID_INPUT", f"{strange[0][:100]!r} is no argument of {name}; {advice}")
            answer = await super().call_tool(name, arguments, context)
            outcome = "ok"
            return answer
        except ToolError as error:
            cause = error.__cause__ or error
            if isinstance(cause, ValidationError) and not isinstance(error, UnexpectedToolError):
                cause = invalid_input(cause)
            if not isinstance(cause, CodedError):
                raise
            outcome = cause.code.lower()
            raise cause from error
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            seconds = time.perf_counter() - started
            self._calls.labels(tool, outcome).inc()
            self._seconds.labels(tool).observe(seconds)
            _log.info("tool call", extra={"tool": tool, "outcome": outcome, "seconds": round(seconds, 6)})


def result(text: str, structured: BaseModel) -> CallToolResult:
    """Return what a model reads (`text`) together with what a program reads (`structured`)."""
    content = structured.model_dump(mode="json", exclude_none=True)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return the parser of the options that all servers have; a server may add its own."""
    parser = argparse.ArgumentParser(description=f"{description} Speaks MCP over streamable HTTP at /mcp.")
    parser.add_argument(
        "--port", type=port_number, default=os.environ.get("ROPEWALK_PORT", "8000"), help="or ROPEWALK_PORT"
    )
    parser.add_argument("--stdio", action="store_true", help="speak MCP over stdin and stdout instead")
    return parser


def serve(server: ToolServer, options: argparse.Namespace) -> None:
    """Serve until SIGTERM, or over stdio until stdin ends; calls in flight over HTTP get 20 seconds to end."""
    if options.stdio:
        return server.run("stdio")
    # uvicorn raises the signal again once it has shut down; this turns it into exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Idle connections outlive the clients' own limits: else the server may close one that is about to be used.
    config = uvicorn.Config(server.app(), log_config=None, access_log=False, timeout_keep_alive=75)
    config.timeout_graceful_shutdown = 20
    listener = listening(options.port)
    _log.info("serving", extra={"server": server.name, "port": listener.getsockname()[1], "path": "/mcp"})
    uvicorn.Server(config).run(sockets=[listener])
