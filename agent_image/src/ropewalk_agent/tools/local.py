"""Local tools: Python functions that run in the agent's own process, those of the image and those that packages add.

A package adds one by an entry point of the group `ropewalk.tools`: its name is the tool's, its object a function with
type hints and a docstring, or what Strands' `@tool` makes of one. Only the tools that an agent names are imported. A
function that is not async runs in a thread; one that is out of time is left to itself there. These threads are their
own: tools that hang keep each other waiting, and nothing else.
"""

import asyncio
import copy
import inspect
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from functools import partial, wraps
from importlib.metadata import entry_points
from typing import Any, cast

import strands
from strands.tools.decorator import DecoratedFunctionTool
from strands.types.tools import AgentTool, ToolUse

from ropewalk_agent.config import ConfigError
from ropewalk_agent.tools import LOCAL, Tool, ToolResult, shipped
from ropewalk_agent.tools.results import bounded, failure

GROUP = "ropewalk.tools"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What all providers take for a tool's name."""


_MOST_THREADS = 64


def load(names: tuple[str, ...], timeout_seconds: float, *, side_by_side: int = _MOST_THREADS) -> tuple[Tool, ...]:
    """Return the tools of these names, each bounded by `timeout_seconds`; raises ConfigError with every problem.

    `side_by_side` calls at most get a thread at the same time, and never more than 64.
    """
    threads = ThreadPoolExecutor(min(side_by_side, _MOST_THREADS), thread_name_prefix="ropewalk-tool")
    tools: list[Tool] = []
    problems: list[str] = []
    there = _there() if names else {}
    for name in dict.fromkeys(names):
        if name not in there:
            problems.append(f"localTools names {name!r}; this image has {', '.join(sorted(there))}")
            continue
        try:
            tools.append(_tool(name, there[name](), timeout_seconds, threads))
        except Exception as error:
            problems.append(f"local tool {name} cannot be used: {type(error).__name__}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(tools)


def _there() -> dict[str, Callable[[], Any]]:
    """Return how to import each tool that there is; where names clash, the image's own and the first found win."""
    there: dict[str, Callable[[], Any]] = {name: partial(getattr, shipped, name) for name in shipped.TOOLS}
    for entry in entry_points(group=GROUP):
        if _NAME.fullmatch(entry.name):
            there.setdefault(entry.name, entry.load)
    return there


def _tool(name: str, function: Any, timeout_seconds: float, threads: ThreadPoolExecutor) -> Tool:
    tool = function if isinstance(function, AgentTool) else strands.tool(function)
    if isinstance(tool, DecoratedFunctionTool):
        tool = _threaded(tool, threads)
    spec = tool.tool_spec

    async def call(arguments: dict[str, Any]) -> ToolResult:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await _result(tool, arguments)
        except TimeoutError:
            return failure("timeout", f"local tool {name} did not answer within {timeout_seconds:g} s")
        # A function that asks to exit would otherwise end the worker's loop.
        except (Exception, SystemExit) as error:
            return failure("error", f"local tool {name} failed: {type(error).__name__}: {error}")

    return Tool(name, LOCAL, spec["description"], dict(spec["inputSchema"]["json"]), call)


def _threaded(tool: Any, threads: ThreadPoolExecutor) -> AgentTool:
    """Return the tool with its function in our threads; Strands would take the loop's own, which all else needs."""
    function = tool._tool_func
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return cast(AgentTool, tool)

    @wraps(function)
    async def in_thread(*arguments: Any, **named: Any) -> Any:
        call = partial(copy_context().run, function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(threads, call)

    ours = copy.copy(tool)
    ours._tool_func = in_thread
    return cast(AgentTool, ours)


async def _result(tool: AgentTool, arguments: dict[str, Any]) -> ToolResult:
    """Run the tool; Strands checks the arguments, finds the thread, and makes an error result of an exception."""
    use = ToolUse(name=tool.tool_name, toolUseId="local", input=arguments)
    result: Any = None
    async with aclosing(cast(Any, tool.stream(use, {}))) as events:
        async for event in events:
            result = event
    # The last event is the result, bare or as one of Strands' events.
    result = result.get("tool_result", result)
    return ToolResult("ok" if result["status"] == "success" else "error", bounded(list(result["content"])))
