"""Every endpoint of an agent pod as a row of a table, from which openapi.py makes the document. Serves nothing."""

from dataclasses import dataclass
from typing import Any, Literal

from ropewalk_agent.routes.agentcore import SESSION_HEADER, USER_HEADER, InvocationBody
from ropewalk_agent.routes.answers import (
    BatchAnswer,
    Error,
    Health,
    JsonRpcRequest,
    JsonRpcResponse,
    Ping,
    QueryAnswer,
    Ready,
    Session,
    Sessions,
    TextEvent,
    ToolEndEvent,
    ToolsReport,
    ToolStartEvent,
)
from ropewalk_agent.routes.batch import BatchBody
from ropewalk_agent.routes.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    OpenAIError,
    ServedModel,
    ServedModels,
)
from ropewalk_agent.routes.openai_request import ChatCompletionBody
from ropewalk_agent.routes.query import QueryBody


@dataclass(frozen=True, slots=True)
class Parameter:
    """A header or a part of the query that an endpoint reads, beside the headers that all read."""

    name: str
    text: str
    place: Literal["header", "query"] = "header"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. `body`, `answer` and `event` (the data of a server-sent one) are types for pydantic."""

    group: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    body: Any = None
    answer: Any = None
    """None: text, or nothing where the status is not 200."""
    status: int = 200
    event: Any = None
    also: int | None = None
    """Another status with the same answer."""
    codes: tuple[str, ...] = ()
    error: Any = Error
    parameters: tuple[Parameter, ...] = ()


_TURN = (
    "invalid_request",
    "cancelled",
    "session_busy",
    "queue_full",
    "internal",
    "invalid_answer",
    "model_error",
    "not_ready",
    "timeout",
)
_AGENTCORE = (
    Parameter(SESSION_HEADER, "The session: 33 to 256 characters of printable ASCII; made up when missing."),
    Parameter(USER_HEADER, "Whose session it is."),
)
_SESSION_ERRORS = ("invalid_request", "internal", "not_ready")
_USER = Parameter("user_id", "Whose session it is; left out for a session of nobody.", place="query")

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
        "Ask",
        "POST",
        "/batch",
        "Up to 100 turns, several at once; one that fails does not stop the rest.",
        body=BatchBody,
        answer=BatchAnswer,
        codes=("invalid_request", "internal"),
    ),
    Endpoint(
        "Sessions",
        "GET",
        "/sessions",
        "A user's sessions.",
        answer=Sessions,
        codes=_SESSION_ERRORS,
        parameters=(Parameter("user_id", "Whose sessions.", place="query", required=True),),
    ),
    Endpoint(
        "Sessions",
        "GET",
        "/sessions/{session_id}",
        "What was said in a session.",
        answer=Session,
        codes=("not_found", *_SESSION_ERRORS),
        parameters=(_USER,),
    ),
    Endpoint(
        "Sessions",
        "DELETE",
        "/sessions/{session_id}",
        "Forget a session in which no turn runs.",
        status=204,
        codes=("not_found", "session_busy", *_SESSION_ERRORS),
        parameters=(_USER,),
    ),
    Endpoint(
        "Sessions",
        "DELETE",
        "/sessions/{session_id}/turn",
        "Cancel the turn that runs in a session; the session stays as it was before the turn.",
        status=204,
        codes=("invalid_request", "not_found"),
        parameters=(_USER,),
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
        parameters=_AGENTCORE,
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
        parameters=_AGENTCORE,
    ),
    Endpoint(
        "A2A",
        "GET",
        "/.well-known/agent-card.json",
        "The agent card of A2A 0.3.",
        answer=dict[str, Any],
    ),
    Endpoint(
        "A2A",
        "POST",
        "/a2a",
        "A2A 0.3 over JSON-RPC; errors of the protocol have status 200. message/stream and tasks/resubscribe stream.",
        body=JsonRpcRequest,
        answer=JsonRpcResponse,
        event=JsonRpcResponse,
        codes=("invalid_request", "internal"),
    ),
    Endpoint("Pod", "GET", "/tools", "The MCP servers, their state and their tools; local tools.", answer=ToolsReport),
    Endpoint("Pod", "GET", "/ready", "Whether the agent can answer.", answer=Ready, also=503),
    Endpoint("Pod", "GET", "/health", "Whether the worker answers; if not, a restart helps.", answer=Health, also=503),
    Endpoint("Pod", "GET", "/metrics", "Prometheus, or OpenMetrics where Accept asks for it."),
    Endpoint("Pod", "GET", "/openapi.json", "This document.", answer=dict[str, Any]),
    Endpoint("Pod", "GET", "/docs", "This document, to read."),
)
"""Whoever adds an endpoint adds its row here: a test compares the table with the application's routes."""
