"""What endpoints answer, as types for the OpenAPI document. The tests hold real answers against them."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads the one of typing from Python 3.12 on only


class ErrorDetails(TypedDict):
    """What went wrong; `raw` is what the model said instead of an answer that fits."""

    code: str
    message: str
    request_id: str
    raw: NotRequired[str]


class Error(TypedDict):
    """An error with its code."""

    error: ErrorDetails


class TokenUsage(TypedDict):
    """Tokens, as the model counted them."""

    input_tokens: int
    output_tokens: int


class TimeSpent(TypedDict):
    """Where the turn's time went."""

    queue_seconds: float
    model_seconds: float
    tools_seconds: float
    total_seconds: float


class QueryAnswer(TypedDict):
    """The end of a turn; `structured` is there where a schema was asked for."""

    response: str
    structured: NotRequired[Any]
    session_id: str
    stop_reason: str
    usage: TokenUsage
    tools_used: list[str]
    timings: TimeSpent
    request_id: str


class TextEvent(TypedDict):
    """Event `text`: a piece of the model's text."""

    text: str


class ToolStartEvent(TypedDict):
    """Event `tool_start`: a tool call has left for its server."""

    tool: str
    server: str
    tool_use_id: str


class ToolEndEvent(TypedDict):
    """Event `tool_end`: a tool call has come back."""

    tool: str
    server: str
    tool_use_id: str
    outcome: str


class Health(TypedDict):
    """Whether the worker answers, and why not."""

    healthy: bool
    reason: NotRequired[str]


class Ready(TypedDict):
    """Whether the agent can answer, and a sentence for each thing that keeps it from that."""

    ready: bool
    reasons: list[str]


class Ping(TypedDict):
    """HealthyBusy while turns run or wait, and since when, in seconds since the epoch."""

    status: Literal["Healthy", "HealthyBusy"]
    time_of_last_update: int


class BatchItem(TypedDict):
    """An item that went well."""

    ok: QueryAnswer


class BatchAnswer(TypedDict):
    """The answer or the error of each item, in their order."""

    results: list[BatchItem | Error]
    request_id: str


class SessionFacts(TypedDict):
    """A session without its content; times as in RFC 3339."""

    session_id: str
    messages: int
    created_at: str
    updated_at: str


class Sessions(TypedDict):
    """A user's sessions, the most recently used first."""

    sessions: list[SessionFacts]


class SessionTurn(TypedDict):
    """Who said what, and which tools the assistant called."""

    role: Literal["user", "assistant"]
    text: str
    tools: list[str]


class Session(SessionFacts):
    """A session with what was said."""

    turns: list[SessionTurn]


class JsonRpcRequest(TypedDict):
    """A call of A2A 0.3 over JSON-RPC; its specification says what `params` holds."""

    jsonrpc: Literal["2.0"]
    id: NotRequired[str | int | None]
    method: Literal["message/send", "message/stream", "tasks/get", "tasks/cancel", "tasks/resubscribe"]
    params: NotRequired[dict[str, Any]]


class JsonRpcResponse(TypedDict):
    """Its answer: `result` or `error`."""

    jsonrpc: Literal["2.0"]
    id: NotRequired[str | int | None]
    result: NotRequired[Any]
    error: NotRequired[dict[str, Any]]


class LeftOut(TypedDict):
    """A tool that is offered and cannot be used."""

    tool: str
    reason: str


class ServerInfoReport(TypedDict):
    """What a server calls itself."""

    name: str
    version: str


class DefinitionReport(TypedDict):
    """A tool as its server defines it; the hash covers name, description and input schema."""

    name: str
    description: str
    hash: str


class ServerReport(TypedDict):
    """An MCP server, as the agent sees it."""

    name: str
    required: bool
    state: str
    since: str
    last_error: str | None
    tools: list[str]
    hidden: list[str]
    breaker: str
    left_out: list[LeftOut]
    protocol_version: str | None
    server_info: ServerInfoReport | None
    has_session: bool
    definitions: list[DefinitionReport]


class ClashReport(TypedDict):
    """A tool that two servers offer."""

    tool: str
    kept: str
    ignored: str


class ToolsReport(TypedDict):
    """Where the agent's tools come from."""

    servers: list[ServerReport]
    local_tools: list[str]
    clashes: list[ClashReport]
