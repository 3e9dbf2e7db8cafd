"""Tools that talk to the client while they run, as protocols up to 2025-11-25 let them, and that report as they go."""

import asyncio
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ElicitResult, SamplingMessage
from tests.conformance.everything.content import answer, text

Call = Context[Any, Any]
_PAUSE_SECONDS = 0.05
"""What the scenarios ask for between two notifications."""


async def test_tool_with_logging(ctx: Call) -> CallToolResult:
    """Log three times."""
    await ctx.info("Tool execution started")
    await asyncio.sleep(_PAUSE_SECONDS)
    await ctx.info("Tool processing data")
    await asyncio.sleep(_PAUSE_SECONDS)
    await ctx.info("Tool execution completed")
    return answer(text("Logged three times."))


async def test_logging_tool(ctx: Call) -> CallToolResult:
    """Log once; from 2026-07-28 on that reaches only a client that asked for it."""
    await ctx.info("Tool execution started")
    return answer(text("Logged once."))


async def test_tool_with_progress(ctx: Call) -> CallToolResult:
    """Report 0, 50 and 100 of 100."""
    for progress in (0, 50, 100):
        await ctx.report_progress(progress, 100)
        await asyncio.sleep(_PAUSE_SECONDS)
    return answer(text("Reported three times."))


async def test_reconnection(ctx: Call) -> CallToolResult:
    """Close the stream of the answer, so that the client has to come back for it."""
    await ctx.close_sse_stream()
    await asyncio.sleep(_PAUSE_SECONDS)
    return answer(text("Answered after the stream was closed."))


async def test_sampling(prompt: str, ctx: Call) -> CallToolResult:
    """Ask the client's model."""
    question = SamplingMessage(role="user", content=text(prompt))
    result = await ctx.session.create_message([question], max_tokens=100, related_request_id=ctx.request_id)
    words = getattr(result.content, "text", "")
    return answer(text(f"LLM response: {words}"))


async def _ask(ctx: Call, message: str, properties: dict[str, Any], required: list[str]) -> ElicitResult:
    schema = {"type": "object", "properties": properties, "required": required}
    result: ElicitResult = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return result


async def test_elicitation(message: str, ctx: Call) -> CallToolResult:
    """Ask the user for a name and an address."""
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    result = await _ask(ctx, message, fields, ["username", "email"])
    return answer(text(f"User response: action: {result.action}, content: {result.content}"))


async def test_elicitation_sep1034_defaults(ctx: Call) -> CallToolResult:
    """Ask with a default for every simple type."""
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    result = await _ask(ctx, "Please check these", fields, [])
    return answer(text(f"Elicitation completed: action={result.action}, content={result.content}"))


def _titled(*titles: str) -> list[dict[str, str]]:
    return [{"const": f"value{number}", "title": title} for number, title in enumerate(titles, start=1)]


async def test_elicitation_sep1330_enums(ctx: Call) -> CallToolResult:
    """Ask with every kind of choice."""
    options = ["option1", "option2", "option3"]
    fields = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": _titled("First Option", "Second Option", "Third Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": _titled("First Choice", "Second Choice", "Third Choice")}},
    }
    result = await _ask(ctx, "Please choose", fields, [])
    return answer(text(f"Elicitation completed: action={result.action}, content={result.content}"))


def add_exchanges(server: MCPServer) -> None:
    """Register all of them."""
    for tool in (
        test_tool_with_logging,
        test_logging_tool,
        test_tool_with_progress,
        test_reconnection,
        test_sampling,
        test_elicitation,
        test_elicitation_sep1034_defaults,
        test_elicitation_sep1330_enums,
    ):
        server.add_tool(tool, structured_output=False)
