"""What POST /v1/chat/completions takes. Pure: no I/O.

The shapes are those of OpenAI's API reference (Chat Completions, create). A field that this agent cannot honour is
ignored where that is harmless and refused where the answer would mean something else.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from ropewalk_agent.errors import AgentError
from ropewalk_agent.routes.turns import Identifier

_PROBLEMS_TOLD = 5


class BadRequest(AgentError):
    """invalid_request; `param` names the field in OpenAI's way: `messages[0].content`."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__("invalid_request", message)
        self.param = param


def _only(allowed: list[Any], why: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(why)
        return value

    return AfterValidator(check)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Body):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Body):
    """What a model said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Body):
    """An image within the request."""

    url: Annotated[str, Field(description="data:image/png;base64,… (png, jpeg, gif or webp); nothing is fetched.")]
    detail: Annotated[str | None, Field(description="Accepted and ignored.")] = None


class ImagePart(_Body):
    """An image, for a model that sees."""

    type: Literal["image_url"]
    image_url: ImageUrl


UserPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class InstructionMessage(_Body):
    """Added to the agent's system prompt, wherever it stands among the messages."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]
    name: str | None = None


class UserMessage(_Body):
    """What a person or a program said."""

    role: Literal["user"]
    content: str | list[UserPart]
    name: str | None = None


class FunctionCall(_Body):
    """The name and the arguments of a tool call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    arguments: Annotated[str, Field(description="A JSON object, as text.")]


class ToolCall(_Body):
    """A tool call of an earlier turn."""

    id: Identifier
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(_Body):
    """What was answered. Each of its tool calls needs a tool message right behind it."""

    role: Literal["assistant"]
    content: str | list[AssistantPart] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: Annotated[Any, Field(description="Accepted and ignored.")] = None
    audio: Annotated[Any, _only([None], "audio is not served; send the text")] = None
    function_call: Annotated[Any, _only([None], "function_call is of an old protocol; use tool_calls")] = None


class ToolMessage(_Body):
    """The result of a tool call of the assistant's message before."""

    role: Literal["tool"]
    tool_call_id: Identifier
    content: str | list[TextPart]


Message = Annotated[InstructionMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class JsonSchema(_Body):
    """The schema that the answer must fit."""

    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class TextFormat(_Body):
    """Plain text, which is the default."""

    type: Literal["text"]


class JsonObjectFormat(_Body):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(_Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class StreamOptions(_Body):
    """What a stream carries besides text."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, Field(description="Accepted and ignored.")] = None


class Metadata(BaseModel):
    """A caller's own labels; all but these are ignored."""

    session_id: Annotated[Identifier | None, Field(description="Go on with this session, which the agent keeps.")] = (
        None
    )


_Ignored = Annotated[Any, Field(description="Accepted and ignored: the agent's Model resource decides.")]
_OWN_TOOLS = "the agent calls its own tools and no others; leave this out"
_OwnTools = Annotated[Any, _only([None, []], _OWN_TOOLS), Field(description="Refused: the agent has its own tools.")]
_NotServed = Annotated[
    Any, _only([None, False, [], {}], "is not served by this agent; leave it out"), Field(description="Refused.")
]


class ChatCompletionBody(_Body):
    """What POST /v1/chat/completions takes."""

    model: Annotated[str, Field(description="The agent's name, as GET /v1/models tells it.")]
    messages: Annotated[list[Message], Field(min_length=1, description="The last one must be the user's.")]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[Identifier | None, Field(description="The user_id of POST /query.")] = None
    metadata: Metadata | None = None
    response_format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = (
        None
    )

    audio: _NotServed = None
    function_call: Annotated[Any, _only([None, "none", "auto"], _OWN_TOOLS), Field(description="none or auto.")] = None
    functions: _OwnTools = None
    logit_bias: _NotServed = None
    logprobs: _NotServed = None
    modalities: Annotated[Any, _only([None, ["text"]], "the agent answers with text only"), Field()] = None
    moderation: _NotServed = None
    n: Annotated[int | None, _only([None, 1], "the agent gives one answer; use 1"), Field(description="1.")] = None
    stop: _NotServed = None
    tool_choice: Annotated[Any, _only([None, "none", "auto"], _OWN_TOOLS), Field(description="none or auto.")] = None
    tools: _OwnTools = None
    top_logprobs: Annotated[Any, _only([None, 0], "is not served by this agent; leave it out"), Field()] = None
    web_search_options: _NotServed = None

    frequency_penalty: _Ignored = None
    max_completion_tokens: _Ignored = None
    max_tokens: _Ignored = None
    parallel_tool_calls: _Ignored = None
    prediction: _Ignored = None
    presence_penalty: _Ignored = None
    prompt_cache_key: _Ignored = None
    prompt_cache_options: _Ignored = None
    prompt_cache_retention: _Ignored = None
    reasoning_effort: _Ignored = None
    safety_identifier: _Ignored = None
    seed: _Ignored = None
    service_tier: _Ignored = None
    store: _Ignored = None
    temperature: _Ignored = None
    top_p: _Ignored = None
    verbosity: _Ignored = None

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The schema that the answer must fit; None where the caller asks for none."""
        match self.response_format:
            case JsonSchemaFormat(json_schema=wanted):
                return wanted.schema_
            case JsonObjectFormat():
                return {"type": "object"}
        return None


def parsed(body: bytes) -> ChatCompletionBody:
    """Return the request that `body` holds; raises BadRequest, which names the first wrong field."""
    try:
        return ChatCompletionBody.model_validate_json(body)
    except ValidationError as error:
        problems: list[Any] = error.errors(include_url=False, include_input=False)[:_PROBLEMS_TOLD]
    document = None if problems[0]["type"] == "json_invalid" else from_json(body)
    placed = [(_path(document, problem), problem) for problem in problems]
    # A list that is wrong within is also no string; only the former is worth telling.
    told = [(path, problem) for path, problem in placed if not any(other.startswith(f"{path}[") for other, _ in placed)]
    raise BadRequest("; ".join(_sentence(*problem) for problem in told), told[0][0] or None)


def _sentence(path: str, problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return f"{path} is not a field that this agent knows"
    text = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
    return f"{path}: {text}" if path else text


def _path(document: Any, problem: Any) -> str:
    """Return where a problem is, in OpenAI's way: without the names of union members that pydantic puts in between."""
    path, value = "", document
    for part in problem["loc"]:
        if isinstance(part, int) and isinstance(value, list):
            path, value = f"{path}[{part}]", value[part]
        elif isinstance(value, dict) and part in value:
            path, value = f"{path}.{part}", value[part]
    if problem["type"] == "missing":
        path += f".{problem['loc'][-1]}"
    return path.removeprefix(".")
