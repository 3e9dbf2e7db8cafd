"""Failures that a caller may see, each with a code to act on. Anything else stays in the server's log."""

from typing import Literal

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import ValidationError

Upstream = Literal["UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_INVALID", "RATE_LIMITED"]
Code = Literal["INVALID_INPUT", "NOT_FOUND", "FORBIDDEN", "CONFLICT", Upstream]


class CodedError(ToolError):
    """A tool's refusal. The message names the subject, the value seen, what is allowed and the next step."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def invalid_input(error: ValidationError) -> CodedError:
    """Say in one line per argument what is wrong with it, without pydantic's own vocabulary."""
    problems = []
    for detail in error.errors(include_url=False):
        name = ".".join(map(str, detail["loc"])) or "arguments"
        seen = "is missing" if detail["type"] == "missing" else f"is {str(detail['input'])[:100]!r}"
        problems.append(f"{name} {seen}; {detail['msg'].removeprefix('Value error, ')}")
    return CodedError("INVALID_INPUT", "\n".join(problems))
