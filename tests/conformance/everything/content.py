"""Tools, resources and prompts that answer at once: text, pictures, sound, embedded resources, errors."""

import base64
import json

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp_types import (
    AudioContent,
    CallToolResult,
    Completion,
    CompletionArgument,
    CompletionContext,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""A PNG of one red pixel, in base64."""
SOUND = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA=="
"""A WAV of one silent sample, in base64."""
_WORDS = ("paris", "park", "party", "test", "testing")


def text(words: str) -> TextContent:
    """Return a block of text."""
    return TextContent(type="text", text=words)


def _picture() -> ImageContent:
    return ImageContent(type="image", data=PICTURE, mime_type="image/png")


def _embedded(uri: str, mime_type: str, words: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=words))


def answer(*blocks: ContentBlock) -> CallToolResult:
    """Return a result of these blocks."""
    return CallToolResult(content=list(blocks))


async def test_simple_text() -> CallToolResult:
    """Answer with a text."""
    return answer(text("This is a simple text response for testing."))


async def test_image_content() -> CallToolResult:
    """Answer with a picture."""
    return answer(_picture())


async def test_audio_content() -> CallToolResult:
    """Answer with a sound."""
    return answer(AudioContent(type="audio", data=SOUND, mime_type="audio/wav"))


async def test_embedded_resource() -> CallToolResult:
    """Answer with a resource."""
    return answer(_embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."))


async def test_multiple_content_types() -> CallToolResult:
    """Answer with a text, a picture and a resource."""
    document = json.dumps({"test": "data", "value": 123})
    resource = _embedded("test://mixed-content-resource", "application/json", document)
    return answer(text("Multiple content types test:"), _picture(), resource)


async def test_error_handling() -> CallToolResult:
    """Fail, always."""
    raise ToolError("This tool intentionally returns an error for testing")


async def echo(nonce: str) -> CallToolResult:
    """Give back what was sent: how the load test tells an answer that is lost or somebody else's."""
    return answer(text(nonce))


async def _look_up(region: str, query: str = "") -> CallToolResult:
    return answer(text(f"Looked up {query!r} in {region}."))


async def _contact(phone: str = "", email: str = "") -> CallToolResult:
    return answer(text(f"Noted {phone or email}."))


_CONTACT_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
_REGION_SCHEMA = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}},
    "required": ["region"],
}


def tools_with_schemas() -> list[Tool]:
    """Return the tools whose schemas say more than a Python signature can."""
    contact = Tool.from_function(_contact, "json_schema_2020_12_tool", description="Take a way to contact somebody.")
    region = Tool.from_function(_look_up, "test_custom_header", description="Look up; its region travels in a header.")
    return [
        contact.model_copy(update={"parameters": _CONTACT_SCHEMA}),
        region.model_copy(update={"parameters": _REGION_SCHEMA}),
    ]


def _add_resources(server: MCPServer) -> None:
    @server.resource("test://static-text", description="A text", mime_type="text/plain")
    async def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", description="A picture", mime_type="image/png")
    async def static_binary() -> bytes:
        return base64.b64decode(PICTURE)

    @server.resource("test://watched-resource", description="One to subscribe to", mime_type="text/plain")
    async def watched_resource() -> str:
        return "This resource may be subscribed to."

    @server.resource("test://template/{id}/data", description="One a number", mime_type="application/json")
    async def template(id: str) -> str:  # noqa: A002 – the scenario's own name
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def _add_prompts(server: MCPServer) -> None:
    @server.prompt(description="A prompt without arguments")
    async def test_simple_prompt() -> list[UserMessage]:
        return [UserMessage("This is a simple prompt for testing.")]

    @server.prompt(description="A prompt with two arguments")
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]

    @server.prompt(description="A prompt with a resource in it")
    async def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        resource = _embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]

    @server.prompt(description="A prompt with a picture in it")
    async def test_prompt_with_image() -> list[UserMessage]:
        return [UserMessage(_picture()), UserMessage("Please analyze the image above.")]


def add_content(server: MCPServer) -> None:
    """Register all of it."""
    for tool in (
        test_simple_text,
        test_image_content,
        test_audio_content,
        test_embedded_resource,
        test_multiple_content_types,
        test_error_handling,
        echo,
    ):
        server.add_tool(tool, structured_output=False)
    _add_resources(server)
    _add_prompts(server)

    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        values = [word for word in _WORDS if word.startswith(argument.value)]
        return Completion(values=values, total=len(values), has_more=False)

    server.completion()(complete)  # type: ignore[no-untyped-call]
