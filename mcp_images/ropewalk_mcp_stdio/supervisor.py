"""Keeps one child alive: starts it, greets it, asks for its tools now and then, starts it again when it has gone.

A child that ran well for a while is started again at once, one that fails again and again with growing pauses.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.handshake import HandshakeError, greet, next_try
from ropewalk_mcp_stdio.jsonrpc import Refusal
from ropewalk_mcp_stdio.link import Events, Link
from ropewalk_mcp_stdio.metrics import RESTARTS
from ropewalk_mcp_stdio.process import StartError
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.protocol import Greeting, own_params

_log = logging.getLogger("ropewalk.mcp.stdio")


class Supervisor:
    """One child after the other, in one era. Run `run` as a task."""

    def __init__(self, program: Program, events: Events, stateless: bool | None, *, optional: bool = False) -> None:
        self._optional = optional
        self.program = program
        # The era of the child, once that is known; till then what the next child is tried with.
        self.stateless = stateless
        self._try = stateless
        self.link: Link | None = None
        self._greeted: tuple[Link, Greeting] | None = None
        # None where the child is well; else what is wrong, for people.
        self.problem: str | None = "starting"
        self.refused_era = False
        self.on_up: Callable[[Link, Greeting], None] | None = None
        self._events = events
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._next_start = 0.0
        self._failing = False
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._restarting = ""

    async def run(self) -> None:
        """Keep the child alive until cancelled or stopped."""
        failures = 0
        while not self._stopped:
            started = self._loop.time()
            well = await self._one_life()
            self._settled.set()
            failures = 0 if well and self._loop.time() - started >= self.program.timing.steady else failures + 1
            self._failing = failures > 0
            if self.refused_era or self._stopped:
                return
            pause = self.program.timing.pause(failures)
            self._next_start = self._loop.time() + pause
            self._news.set()
            RESTARTS.labels(self._restarting).inc()
            _log.warning(
                "starting again",
                extra={"server": self.program.name, "problem": self.problem, "pause_seconds": round(pause, 1)},
            )
            await asyncio.sleep(pause)

    async def ready(self) -> tuple[Link, Greeting]:
        """Return the connection to a child and its greeting; Refusal where there is none and none is about to be."""
        asked = self._loop.time()
        while True:
            if (greeted := self._alive()) is not None:
                return greeted
            # A start may take its time; after one that failed nobody waits long.
            wait = self.program.timing.wait if self._failing else self.program.timing.start
            left = asked + wait - self._loop.time()
            pause = self._next_start - self._loop.time()
            if left <= max(0, pause):
                break
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()
        problem = f"the process of server {self.program.name!r} is not running: {self.problem}; try again later"
        raise Refusal(jsonrpc.UNAVAILABLE, problem, 503, max(1, math.ceil(pause)))

    def _alive(self) -> tuple[Link, Greeting] | None:
        return self._greeted if self._greeted is not None and self._greeted[0].gone is None else None

    async def settled(self) -> bool:
        """Wait until the child has greeted, or failed to for the first time; True where it speaks this era."""
        await self._settled.wait()
        return not self.refused_era

    async def stop(self) -> None:
        """End the child for good."""
        self._stopped = True
        if self.link is not None:
            await self.link.close("stopped with the bridge")

    async def _one_life(self) -> bool:
        program, well = self.program, False
        link = self.link = Link(program.name, self._events)
        self._restarting = "start_failed"
        try:
            await link.open(*await program.command())
            greeting = await greet(link, self._try, program.timing)
            self.stateless = self._try = greeting.stateless
            self._greeted = link, greeting
            self._news.set()
            self._settled.set()
            if self.on_up is not None:
                self.on_up(link, greeting)
            well = await self._watch(link, greeting)
            self.problem = f"its process {link.gone}"
        except StartError as problem:
            self.problem = str(problem)
        except HandshakeError as problem:
            self.problem = f"its process {link.gone or problem}"
            if self.stateless is None:
                self._try = next_try(self._try, ended=link.gone is not None)
            self.refused_era = self._optional and problem.refused
        except Refusal as refusal:
            self.problem = refusal.message
        finally:
            self._greeted = None
            await link.close("stopped")
        return well

    async def _watch(self, link: Link, greeting: Greeting) -> bool:
        timing, well, asked = self.program.timing, False, 0.0
        self._restarting = "crashed"
        while link.gone is None:
            now = self._loop.time()
            # What the child has written in the meantime shows that it lives, so that a busy one is not asked.
            if not well or self.problem or now - max(link.heard, asked) >= timing.probe_interval:
                asked = now
                problem = await tools_problem(link, greeting, timing.probe)
                if problem is None:
                    well, self.problem = True, None
                elif link.gone is None:
                    self.problem = problem
                    if self._loop.time() - link.heard >= timing.hung:
                        self._restarting = "hung"
                        await link.close(
                            f"has written nothing for {timing.hung:.0f} seconds and was ended", polite=False
                        )
                        return well
            await self._pause(link, 1.0 if self.problem else timing.probe_interval)
        return well

    async def _pause(self, link: Link, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await link.ended.wait()


async def tools_problem(link: Link, greeting: Greeting, timeout_seconds: float) -> str | None:
    """Ask the child for its tools; return what is wrong with the answer, or None. One without tools may refuse."""
    try:
        answer = await link.ask("tools/list", own_params(greeting), timeout_seconds)
    except TimeoutError:
        return f"its process has not answered tools/list in {timeout_seconds:.0f} seconds"
    except Refusal as refusal:
        return refusal.message
    if "error" in answer and (link.gone is not None or "tools" in greeting.capabilities):
        problem = answer["error"]
        said = str(problem.get("message") if isinstance(problem, dict) else problem)[:200]
        return f"it answers tools/list with an error: {said}"
    return None
