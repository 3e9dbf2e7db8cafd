"""perSession mode: a child for each session. What client and child say to each other passes untouched.

A stateless client has no session. Where the server speaks that era too, one child serves all stateless clients, for
the protocol lets it keep nothing between their requests; an older server gets a fresh child for each of their calls.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call, Caller
from ropewalk_mcp_stdio.essential import essential
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.metrics import SESSIONS
from ropewalk_mcp_stdio.process import StartError
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.sessions import Session
from ropewalk_mcp_stdio.shared import Shared
from ropewalk_mcp_stdio.translation import NOT_STATELESS
from ropewalk_mcp_stdio.trial import Trial

_log = logging.getLogger("ropewalk.mcp.stdio")
# What the bridge itself answers to a stateless client of an older server, so that no process need be started for it.
_ASKS_NO_CHILD = NOT_STATELESS | {"server/discover", "subscriptions/listen"}


class OwnSession(Session):
    """A session with a child of its own: everything that the child sends is for this client."""

    def __init__(self, name: str, capabilities: Message, link: Callable[["OwnSession"], Link]) -> None:
        super().__init__(name, capabilities)
        self.link = link(self)
        self.on_end: Callable[[OwnSession], object] = lambda _: None
        self.check: asyncio.Task[None] | None = None

    def on_notification(self, link: Link, message: Message) -> None:
        """Pass on a notification of the child."""
        self._send(link, message)

    def on_request(self, link: Link, message: Message) -> None:
        """Pass on a question of the child, under its own id."""
        self._send(link, message)

    def on_gone(self, link: Link) -> None:
        """End the session, for nothing is left of it."""
        self.stream.close()
        self.on_end(self)

    def _send(self, link: Link, message: Message) -> None:
        # With one call in flight the message belongs to it; else it goes where the child speaks on its own account.
        calls = [call for call in link.calls.values() if call.caller is self and not call.long]
        if calls and (len(calls) == 1 or not self.stream.open):
            calls[-1].put(message)
        else:
            self.stream.put(message)


class PerSession:
    """Serves each session from a child of its own."""

    def __init__(self, program: Program, max_sessions: int, idle_timeout_seconds: float) -> None:
        self.program = program
        self._max_sessions, self._idle_timeout = max_sessions, idle_timeout_seconds
        self._sessions: dict[str, OwnSession] = {}
        # Places are taken before the child runs, so that a rush of clients cannot start too many.
        self._places = 0
        self._trial = Trial(program)
        self._stateless: Shared | None = None
        self._single: dict[Call, Shared] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._fail: Callable[[], None] = lambda: None
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self, fail: Callable[[], None]) -> None:
        """Try the server once, and look after idle and hung sessions; `fail` is called where that cannot go on."""
        self._fail = fail
        self._tasks = [essential(self._trial.run(), fail), essential(self._look_after(), fail)]

    async def stop(self) -> None:
        """End all children."""
        for task in self._tasks:
            task.cancel()
        shared = [*self._single.values(), *([self._stateless] if self._stateless else [])]
        await asyncio.gather(*(self.end(session) for session in list(self._sessions.values())))
        await asyncio.gather(*(each.stop() for each in shared))
        await asyncio.gather(*self._tasks, *self._ending, return_exceptions=True)

    @property
    def problem(self) -> str | None:
        """What keeps the bridge from being ready, or None."""
        return self._trial.problem

    @property
    def links(self) -> list[Link]:
        """The connections to children."""
        own = [session.link for session in self._sessions.values()]
        shared = [*self._single.values(), *([self._stateless] if self._stateless else [])]
        return own + [link for each in shared for link in each.links]

    def session(self, name: str) -> Session:
        """Return the client's session; Refusal (404) where it has ended."""
        session = self._sessions.get(name)
        if session is not None and session.link.gone is None:
            session.used = asyncio.get_running_loop().time()
            return session
        problem = "the session has ended, was idle for too long, or is at another replica; initialize again"
        raise Refusal(jsonrpc.INVALID_REQUEST, problem, 404)

    async def initialize(self, call: Call) -> Session:
        """Start a child, and pass the client's initialize on to it."""
        await self._take_place(call)
        params = call.message.get("params")
        capabilities = params.get("capabilities") if isinstance(params, dict) else None
        capabilities = capabilities if isinstance(capabilities, dict) else {}
        session = OwnSession(secrets.token_hex(16), capabilities, lambda own: Link(self.program.name, own))
        call.caller, link = session, session.link
        answer: Message | None = None
        try:
            await link.open(*await self.program.command())
            link.call(call)
            async with asyncio.timeout(self.program.timing.start):
                answer = await call.answer()
        except StartError as problem:
            raise Refusal(jsonrpc.UNAVAILABLE, f"server {self.program.name!r}: {problem}", 503, 5) from None
        except TimeoutError:
            seconds = self.program.timing.start
            problem_text = f"server {self.program.name!r} has not answered initialize in {seconds:.0f} seconds"
            raise Refusal(jsonrpc.UNAVAILABLE, problem_text, 503, 5) from None
        finally:
            if answer is None or "error" in answer:
                self._give_back(link.close("stopped: its session did not come about"))
        if "error" not in answer:
            session.on_end = self._forget
            self._sessions[session.name] = session
            SESSIONS.set(len(self._sessions))
        return session

    async def request(self, session: Session, call: Call) -> None:
        """Start a call of a session."""
        self._link(session).call(call)

    def notify(self, session: Session, message: Message) -> None:
        """Pass on a notification of a client."""
        params = message.get("params")
        if message["method"] == "notifications/cancelled" and isinstance(params, dict):
            session.cancel(params)
        else:
            self._link(session).pass_on(message)

    def respond(self, session: Session, message: Message) -> None:
        """Pass on a client's answer to a question of the child."""
        self._link(session).pass_on(message)

    async def end(self, session: Session) -> None:
        """End a session and its child."""
        ending = self._forget(session)
        if ending is not None:
            await asyncio.shield(ending)

    async def stateless(self, caller: Caller, call: Call) -> None:
        """Start a call of the stateless era."""
        greeting = await self._trial.greeting()
        params = call.message.get("params")
        if greeting.stateless or call.method in _ASKS_NO_CHILD:
            if self._stateless is None:
                self._stateless = Shared(self.program)
                await self._stateless.start(self._fail)
            await self._stateless.stateless(caller, call)
            return
        state = params.get("requestState") if isinstance(params, dict) else None
        asking = [each for each, single in self._single.items() if single.waits_for(str(state))]
        if asking:
            single = self._single.pop(asking[0])
        else:
            await self._take_place(call)
            single = Shared(self.program, stateless=False)
            await single.start(self._fail)
        self._single[call] = single
        await single.stateless(caller, call)

    def done(self, call: Call) -> None:
        """Take the end of a call's HTTP request."""
        if isinstance(call.caller, OwnSession):
            call.caller.used = asyncio.get_running_loop().time()
            if call.link is not None and (call.left or not call.answered):
                call.link.cancel(call, "the client has gone", answer=False)
        elif call in self._single:
            self._single[call].done(call)
            self._end_single(call)
        elif self._stateless is not None:
            self._stateless.done(call)

    async def _take_place(self, call: Call) -> None:
        # A place whose child is about to be gone is as good as free.
        while self._places >= self._max_sessions and self._ending and not call.left:
            await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
        if call.left:
            raise Refusal(jsonrpc.CANCELLED, "the client has gone")
        if self._places >= self._max_sessions:
            problem = (
                f"server {self.program.name!r} has {self._places} sessions, which is the most (maxSessions); try again "
                "when one has ended"
            )
            raise Refusal(jsonrpc.BUSY, problem, 503, 5)
        self._places += 1

    def _link(self, session: Session) -> Link:
        if not isinstance(session, OwnSession):
            raise Refusal(jsonrpc.INVALID_REQUEST, "the session has ended; initialize again", 404)
        return session.link

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._idle_timeout / 2))
            for session in list(self._sessions.values()):
                if session.link.gone or (session.idle and loop.time() - session.used >= self._idle_timeout):
                    self._forget(session)
                elif session.check is None and session.link.silent_seconds() >= self.program.timing.hung:
                    session.check = asyncio.create_task(self._end_hung(session))
            for call in [call for call in self._single if call.answered]:
                self._end_single(call)

    async def _end_hung(self, session: OwnSession) -> None:
        seconds = self.program.timing.probe
        try:
            await session.link.ask("ping", timeout_seconds=seconds)
        except TimeoutError:
            self._forget(session, f"has not answered a ping in {seconds:.0f} seconds and was ended", polite=False)
        except Refusal:
            return
        finally:
            session.check = None

    def _end_single(self, call: Call) -> None:
        # A child that waits for its client's answer goes on.
        if not self._single[call].busy:
            self._give_back(self._single.pop(call).stop())

    def _forget(
        self, session: Session, why: str = "stopped with its session", *, polite: bool = True
    ) -> asyncio.Task[None] | None:
        if not isinstance(session, OwnSession) or self._sessions.pop(session.name, None) is None:
            return None
        SESSIONS.set(len(self._sessions))
        session.stream.close()
        return self._give_back(session.link.close(why, polite=polite))

    def _give_back(self, closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Free a place once its child has gone."""
        task = asyncio.create_task(closing)
        self._ending.add(task)
        task.add_done_callback(self._gone)
        return task

    def _gone(self, closed: asyncio.Task[None]) -> None:
        self._ending.discard(closed)
        self._places -= 1
