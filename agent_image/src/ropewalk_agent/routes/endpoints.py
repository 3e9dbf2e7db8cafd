"""Every endpoint of an agent pod as a row of a table, from which openapi.py makes the document. Serves nothing.

What is answered is described by types here, and the tests hold real answers against them.
"""

from dataclasses import dataclass
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads the one of typing from Python 3.12 on only

from ropewalk_agent.routes.agentcore import SESSION_HEADER, USER_HEADER, InvocationBody
from ropewalk_agent.routes.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    OpenAIError,
    ServedModel,
    ServedModels,
)
from ropewalk_agent.routes.openai_request import ChatCompletionBody
from ropewalk_agent.routes.query import QueryBody


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


@dataclass(frozen=True, slots=True)
class Header:
    """A header that an endpoint reads, beside those that all read."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. `body`, `answer` and `event` (the data of a server-sent one) are types for pydantic."""

    group: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    body: Any = None
    answer: Any = None
    """None: text."""
    status: int = 200
    event: Any = None
    also: int | None = None
    """Another status with the same answer."""
    codes: tuple[str, ...] = ()
    error: Any = Error
    headers: tuple[Header, ...] = ()


_TURN = (
    "invalid_request",
    "session_busy",
    "queue_full",
    "internal",
    "invalid_answer",
    "model_error",
    "not_ready",
    "timeout",
)
_AGENTCORE = (
    Header(SESSION_HEADER, "The session: 33 to 256 characters of printable ASCII; made up when missing."),
    Header(USER_HEADER, "Whose session it is."),
)

ENDPOINTS = (
    Endpoint(
        "Ask",
        "POST",
        "/query",
        "One turn. With Accept: text/event-stream its events: text, tool_start, tool_end, and last result or error.",
        body=QueryBody,
        answer=QueryAnswer,
        event=TextEvent | ToolStartEvent | ToolEndEvent | QueryAnswer | Error,
        codes=_TURN,
    ),
    Endpoint(
        "OpenAI",
        "POST",
        "/v1/chat/completions",
        "One turn in OpenAI's protocol, with stream as a stream that ends with [DONE].",
        body=ChatCompletionBody,
        answer=ChatCompletion,
        event=ChatCompletionChunk | OpenAIError,
        codes=("not_found", *_TURN),
        error=OpenAIError,
    ),
    Endpoint("OpenAI", "GET", "/v1/models", "The models on offer: the agent alone.", answer=ServedModels),
    Endpoint(
        "OpenAI",
        "GET",
        "/v1/models/{model}",
        "The agent, by its name.",
        answer=ServedModel,
        codes=("not_found",),
        error=OpenAIError,
    ),
    Endpoint(
        "AgentCore",
        "POST",
        "/invocations",
        "One turn in the contract of AgentCore Runtime, with stream (or Accept: text/event-stream) as a stream.",
        body=InvocationBody,
        answer=QueryAnswer,
        event=dict[str, Any],
        codes=_TURN,
        headers=_AGENTCORE,
    ),
    Endpoint(
        "AgentCore",
        "GET",
        "/ping",
        "Whether the agent is well, and whether it works.",
        answer=Ping,
        codes=("not_ready",),
    ),
    Endpoint(
        "AgentCore",
        "GET",
        "/ws",
        "A WebSocket (the answer is 101): each message is an invocation, each event a message.",
        status=101,
        codes=("invalid_request", "not_ready"),
        headers=_AGENTCORE,
    ),
    Endpoint(
        "Pod", "GET", "/tools", "Each MCP server: its state, its tools, those that are hidden.", answer=dict[str, Any]
    ),
    Endpoint("Pod", "GET", "/ready", "Whether the agent can answer.", answer=Ready, also=503),
    Endpoint("Pod", "GET", "/health", "Whether the worker answers; if not, a restart helps.", answer=Health, also=503),
    Endpoint("Pod", "GET", "/metrics", "Prometheus, or OpenMetrics where Accept asks for it."),
    Endpoint("Pod", "GET", "/openapi.json", "This document.", answer=dict[str, Any]),
    Endpoint("Pod", "GET", "/docs", "This document, to read."),
)
"""Whoever adds an endpoint adds its row here: a test compares the table with the application's routes."""
