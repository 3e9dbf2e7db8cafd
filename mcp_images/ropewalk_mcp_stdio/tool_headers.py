"""Knows which arguments of which tool a stateless client repeats in headers, from the lists of tools that it sees."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.mirrored import Mirrored, check, mirrored
from ropewalk_mcp_stdio.protocol import Greeting, own_params

_MOST_PAGES = 100
_MOST_TOOLS = 10_000


class ToolHeaders:
    """What the tools of one server declare."""

    def __init__(self) -> None:
        self._declared: dict[str, list[Mirrored]] = {}
        self._asked: Link | None = None
        self._asking = asyncio.Lock()

    def learn(self, answer: Message) -> None:
        """Take note of the tools in an answer to tools/list."""
        result = answer.get("result")
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else []:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str) and len(self._declared) < _MOST_TOOLS:
                self._declared[tool["name"]] = mirrored(tool.get("inputSchema"))

    def forget(self) -> None:
        """Ask again at the next call, for the tools have changed."""
        self._declared.clear()
        self._asked = None

    async def check(self, link: Link, greeting: Greeting, params: Message, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a call whose headers and arguments do not say the same; the child is asked for its tools once."""
        name = params.get("name")
        if name not in self._declared and self._asked is not link:
            # Calls that come meanwhile wait, for theirs are to be checked too.
            async with self._asking:
                if self._asked is not link:
                    await self._list(link, greeting)
                    self._asked = link
        declared = self._declared.get(name) if isinstance(name, str) else None
        if declared:
            check(declared, params.get("arguments"), headers)

    async def _list(self, link: Link, greeting: Greeting) -> None:
        own: Message = own_params(greeting) or {}
        cursor: Any = None
        for _ in range(_MOST_PAGES):
            try:
                answer = await link.ask("tools/list", own | ({"cursor": cursor} if cursor is not None else {}))
            except (TimeoutError, Refusal):
                return
            self.learn(answer)
            result = answer.get("result")
            cursor = result.get("nextCursor") if isinstance(result, dict) else None
            if not isinstance(cursor, str):
                return
