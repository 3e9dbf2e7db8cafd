"""Tools and a prompt that need input of the client, as protocol 2026-07-28 has it: they answer what they miss.

The package seals `request_state` and refuses one that was tampered with, so the tools only look at its content.
"""

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
)
from tests.conformance.everything.content import answer, text

Call = Context[Any, Any]
Round = CallToolResult | InputRequiredResult


def _ask(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(question: str, max_tokens: int) -> CreateMessageRequest:
    messages = [SamplingMessage(role="user", content=text(question))]
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=messages, max_tokens=max_tokens))


def _given(ctx: Call, key: str, field: str) -> Any:
    """Return what the user filled in for `field` of the question `key`, or None."""
    response = (ctx.input_responses or {}).get(key)
    if isinstance(response, ElicitResult) and response.action == "accept":
        return (response.content or {}).get(field)
    return None


async def test_input_required_result_elicitation(ctx: Call) -> Round:
    """Ask for a name and greet."""
    name = _given(ctx, "user_name", "name")
    if name is None:
        return InputRequiredResult(input_requests={"user_name": _ask("What is your name?", "name")})
    return answer(text(f"Hello, {name}!"))


async def test_input_required_result_sampling(ctx: Call) -> Round:
    """Ask the client's model."""
    response = (ctx.input_responses or {}).get("capital_question")
    if response is None:
        question = _sample("What is the capital of France?", 100)
        return InputRequiredResult(input_requests={"capital_question": question})
    return answer(text(f"The model says: {getattr(getattr(response, 'content', None), 'text', '')}"))


async def test_input_required_result_list_roots(ctx: Call) -> Round:
    """Ask for the client's roots."""
    response = (ctx.input_responses or {}).get("client_roots")
    if not isinstance(response, ListRootsResult):
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    return answer(text(", ".join(str(root.uri) for root in response.roots)))


async def test_input_required_result_request_state(ctx: Call) -> Round:
    """Ask for a confirmation, and want the state back."""
    if _given(ctx, "confirm", "ok") is None or ctx.request_state != "asked":
        question = _ask("Please confirm", "ok", "boolean")
        return InputRequiredResult(input_requests={"confirm": question}, request_state="asked")
    return answer(text("state-ok"))


async def test_input_required_result_tampered_state(ctx: Call) -> Round:
    """Do the same; a state that was changed on its way does not get here."""
    return await test_input_required_result_request_state(ctx)


async def test_input_required_result_multiple_inputs(ctx: Call) -> Round:
    """Ask three things at once."""
    responses = ctx.input_responses or {}
    if _given(ctx, "user_name", "name") is None or not {"greeting", "client_roots"} <= responses.keys():
        questions: dict[str, Any] = {
            "user_name": _ask("What is your name?", "name"),
            "greeting": _sample("Generate a greeting", 50),
            "client_roots": ListRootsRequest(),
        }
        return InputRequiredResult(input_requests=questions, request_state="asked")
    return answer(text("All three were answered."))


async def test_input_required_result_multi_round(ctx: Call) -> Round:
    """Ask for a name, then for a color."""
    color = _given(ctx, "step2", "color")
    if color is not None and ctx.request_state is not None and ctx.request_state.startswith("named "):
        return answer(text(f"{ctx.request_state.removeprefix('named ')} likes {color}."))
    name = _given(ctx, "step1", "name")
    if name is None:
        question = _ask("Step 1: What is your name?", "name")
        return InputRequiredResult(input_requests={"step1": question}, request_state="asked")
    question = _ask("Step 2: What is your favorite color?", "color")
    return InputRequiredResult(input_requests={"step2": question}, request_state=f"named {name}")


async def test_input_required_result_capabilities(ctx: Call) -> Round:
    """Ask only what the client can answer."""
    if ctx.input_responses:
        return answer(text("Answered."))
    questions: dict[str, Any] = {}
    declared = ctx.client_capabilities
    if declared is not None and declared.sampling is not None:
        questions["question"] = _sample("Say something", 50)
    if declared is not None and declared.elicitation is not None:
        questions["user_name"] = _ask("What is your name?", "name")
    return InputRequiredResult(input_requests=questions) if questions else answer(text("There is nothing to ask."))


async def test_streaming_elicitation(ctx: Call) -> Round:
    """Report progress, then ask: on the stream of the answer there is no request of the server's own."""
    await ctx.report_progress(50, 100)
    return await test_input_required_result_elicitation(ctx)


async def test_missing_capability(ctx: Call) -> CallToolResult:
    """Refuse a client that did not say that it can sample."""
    if ctx.client_capabilities is None or ctx.client_capabilities.sampling is None:
        needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs a client that can sample", needed)
    return answer(text("The client can sample."))


def add_rounds(server: MCPServer) -> None:
    """Register all of it."""
    for tool in (
        test_input_required_result_elicitation,
        test_input_required_result_sampling,
        test_input_required_result_list_roots,
        test_input_required_result_request_state,
        test_input_required_result_tampered_state,
        test_input_required_result_multiple_inputs,
        test_input_required_result_multi_round,
        test_input_required_result_capabilities,
        test_streaming_elicitation,
        test_missing_capability,
    ):
        server.add_tool(tool, structured_output=False)

    @server.prompt(description="A prompt that asks for its context")
    async def test_input_required_result_prompt(ctx: Call) -> list[UserMessage] | InputRequiredResult:
        context = _given(ctx, "user_context", "context")
        if context is None:
            question = _ask("What context should the prompt use?", "context")
            return InputRequiredResult(input_requests={"user_context": question})
        return [UserMessage(f"Use this context: {context}")]
