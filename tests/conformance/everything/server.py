"""The whole server, and what changes while it runs: its lists, subscriptions, the level of its log."""

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp_types import (
    CallToolResult,
    EmptyResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from tests.conformance.everything.content import add_content, answer, test_simple_text, text, tools_with_schemas
from tests.conformance.everything.exchanges import add_exchanges
from tests.conformance.everything.rounds import add_rounds

Call = Context[Any, Any]


def _add_changes(server: MCPServer) -> None:
    present = {"tool": False, "prompt": False}

    async def extra_prompt() -> list[UserMessage]:
        return [UserMessage("This prompt comes and goes.")]

    @server.tool(structured_output=False)
    async def test_trigger_tool_change(ctx: Call) -> CallToolResult:
        """Add a tool, or take it away again, and say so."""
        present["tool"] = not present["tool"]
        if present["tool"]:
            server.add_tool(test_simple_text, "test_extra_tool", structured_output=False)
        else:
            server.remove_tool("test_extra_tool")
        await ctx.notify_tools_changed()
        return answer(text("The tools changed."))

    @server.tool(structured_output=False)
    async def test_trigger_prompt_change(ctx: Call) -> CallToolResult:
        """Add a prompt, or take it away again, and say so."""
        present["prompt"] = not present["prompt"]
        if present["prompt"]:
            server.add_prompt(Prompt.from_function(extra_prompt, "test_extra_prompt", description="Comes and goes"))
        else:
            server.remove_prompt("test_extra_prompt")
        await ctx.notify_prompts_changed()
        return answer(text("The prompts changed."))


def _add_what_clients_set(server: MCPServer) -> None:
    """Add what protocols up to 2025-11-25 let a client set; the package has no public way to register it."""
    subscribed: set[str] = set()

    async def set_level(_: ServerRequestContext[Any], params: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    async def subscribe(_: ServerRequestContext[Any], params: SubscribeRequestParams) -> EmptyResult:
        subscribed.add(str(params.uri))
        return EmptyResult()

    async def unsubscribe(_: ServerRequestContext[Any], params: UnsubscribeRequestParams) -> EmptyResult:
        subscribed.discard(str(params.uri))
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


def everything_server() -> MCPServer:
    """Return the server."""
    server = MCPServer(
        "everything", version="1.0.0", log_level="WARNING", tools=tools_with_schemas(), instructions="For tests."
    )
    add_content(server)
    add_exchanges(server)
    add_rounds(server)
    _add_changes(server)
    _add_what_clients_set(server)
    return server
