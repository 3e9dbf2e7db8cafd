"""What happens in a turn, as values that cross from the worker to the server. Knows neither Strands nor HTTP."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One question to the agent. `user_id` is empty where the caller named nobody."""

    query: str
    session_id: str
    user_id: str
    request_id: str
    streaming: bool
    """Whether anyone reads the events before the result; without a reader they are not made."""
    wait_for_session: bool = True
    """Whether to wait for a turn of the same session that still runs; otherwise the answer is session_busy."""
    history: tuple[dict[str, Any], ...] | None = None
    """What was said before, where the caller brings it along: no session is then read or kept."""
    instructions: str = ""
    """What the caller adds to the system prompt for this turn."""
    content: tuple[dict[str, Any], ...] = ()
    """The question as Strands' content blocks, where it is more than text; `query` is then its text alone."""
    output_schema: dict[str, Any] | None = None
    """The JSON Schema that the answer must fit; None for the agent's own, if it has one."""
    tool_servers: tuple[str, ...] | None = None
    """The MCP servers whose tools this turn may use; None for all. Local tools belong to the server ""."""
    tools: tuple[str, ...] | None = None
    """The tools that this turn may use, by name; None for all."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the model's text, as it was written."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool call has left for its server."""

    tool: str
    server: str
    tool_use_id: str


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool call has come back; `outcome` is ok, error, timeout or unavailable."""

    tool: str
    server: str
    tool_use_id: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a turn's time went, in seconds; `queue` is the wait before the worker took it."""

    queue: float = 0.0
    model: float = 0.0
    tools: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a turn that went well, or that a limit ended (see `stop_reason`)."""

    response: str
    session_id: str
    stop_reason: str
    structured: Any = None
    """The answer that fits the output schema, where `is_structured`; may be None itself, as JSON's null."""
    is_structured: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    tools_used: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)


TurnEvent = TextDelta | ToolStarted | ToolEnded | Answer
