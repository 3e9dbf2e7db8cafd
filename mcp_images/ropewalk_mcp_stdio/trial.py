"""Tries the server once before any client comes: starts a child, greets it, lists its tools, and ends it again."""

import asyncio
import contextlib

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.handshake import HandshakeError, greet, next_try
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.process import StartError
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.protocol import Greeting
from ropewalk_mcp_stdio.supervisor import tools_problem


class Trial:
    """`run` until it succeeds; `problem` says meanwhile what is wrong."""

    def __init__(self, program: Program) -> None:
        self.problem: str | None = "starting"
        self._program = program
        self._greeting: Greeting | None = None
        self._try: bool | None = None
        self._tried = asyncio.Event()

    async def run(self) -> None:
        """Try until the server has listed its tools, with growing pauses."""
        failures = 0
        while self.problem is not None:
            await self._once()
            self._tried.set()
            if self.problem is not None:
                failures += 1
                await asyncio.sleep(self._program.timing.pause(failures))

    async def greeting(self) -> Greeting:
        """Return how the server greets, once it has; Refusal where it failed to, or takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._program.timing.start):
                await self._tried.wait()
        if self._greeting is None:
            problem = f"server {self._program.name!r} has not started yet: {self.problem}; try again later"
            raise Refusal(jsonrpc.UNAVAILABLE, problem, 503, 1)
        return self._greeting

    def on_notification(self, link: Link, message: Message) -> None:
        """Nobody is there to hear."""

    def on_request(self, link: Link, message: Message) -> None:
        """Nobody is there to ask."""
        if message["method"] == "ping":
            link.tell(jsonrpc.result(message["id"], {}))
        else:
            link.tell(jsonrpc.error(message["id"], jsonrpc.METHOD_NOT_FOUND, "there is no client yet"))

    def on_gone(self, link: Link) -> None:
        """The next try will tell."""

    async def _once(self) -> None:
        link = Link(self._program.name, self)
        try:
            await link.open(*await self._program.command())
            self._greeting = await greet(link, self._try, self._program.timing)
            self._try = self._greeting.stateless
            self._tried.set()
            self.problem = await tools_problem(link, self._greeting, self._program.timing.probe)
        except StartError as problem:
            self.problem = str(problem)
        except HandshakeError as problem:
            self.problem = f"its process {link.gone or problem}"
            if self._greeting is None:
                self._try = next_try(self._try, ended=link.gone is not None)
        except Refusal as refusal:
            self.problem = refusal.message
        finally:
            await link.close("stopped after the trial")
