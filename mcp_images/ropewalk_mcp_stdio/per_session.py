"""perSession mode: a child for each session. What client and child say to each other passes untouched.

A stateless client has no session. Where the server speaks that era too, one child serves all stateless clients, for
the protocol lets it keep nothing between their requests; an older server gets a fresh child for each of their calls.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import Any

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call, Caller
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.metrics import SESSIONS
from ropewalk_mcp_stdio.process import StartError
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.sessions import Session
from ropewalk_mcp_stdio.shared import Shared
from ropewalk_mcp_stdio.trial import Trial

_log = logging.getLogger("ropewalk.mcp.stdio")


class OwnSession(Session):
    """A session with a child of its own: everything that the child sends is for this client."""

    def __init__(self, name: str, version: str, capabilities: Message) -> None:
        super().__init__(name, version, capabilities)
        self.link: Link | None = None

    def on_notification(self, link: Link, message: Message) -> None:
        """Pass on a notification of the child."""
        self._send(link, message)

    def on_request(self, link: Link, message: Message) -> None:
        """Pass on a question of the child, under its own id."""
        self._send(link, message)

    def on_gone(self, link: Link) -> None:
        """End what waits for more of the child."""
        self.stream.close()

    def _send(self, link: Link, message: Message) -> None:
        # With one call in flight the message belongs to it; else it goes where the child speaks on its own account.
        calls = list(self.calls.values())
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
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Try the server once, and look after idle sessions."""
        self._tasks = [asyncio.create_task(self._trial.run()), asyncio.create_task(self._end_idle())]

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
        own = [session.link for session in self._sessions.values() if session.link is not None]
        shared = [*self._single.values(), *([self._stateless] if self._stateless else [])]
        return own + [link for each in shared for link in each.links]

    def session(self, name: str) -> Session:
        """Return the client's session; Refusal (404) where it has ended."""
        session = self._sessions.get(name)
        if session is not None and (session.link is None or session.link.gone is None):
            return session
        if session is not None:
            self._later(self.end(session))
        problem = "the session has ended, was idle for too long, or is at another replica; initialize again"
        raise Refusal(jsonrpc.INVALID_REQUEST, problem, 404)

    async def initialize(self, message: Message) -> tuple[Session, Message]:
        """Start a child, and pass the client's initialize on to it."""
        self._take_place()
        params = message.get("params")
        capabilities = params.get("capabilities") if isinstance(params, dict) else None
        session = OwnSession(secrets.token_hex(16), "", capabilities if isinstance(capabilities, dict) else {})
        link = session.link = Link(self.program.name, session)
        answer: Message | None = None
        try:
            await link.open(*await self.program.command())
            call = Call(session, message, long=True)
            link.call(call)
            answer = await asyncio.wait_for(call.answer(), self.program.timing.start)
        except StartError as problem:
            raise Refusal(jsonrpc.UNAVAILABLE, f"server {self.program.name!r}: {problem}", 503, 5) from None
        except TimeoutError:
            seconds = self.program.timing.start
            problem_text = f"server {self.program.name!r} has not answered initialize in {seconds:.0f} seconds"
            raise Refusal(jsonrpc.UNAVAILABLE, problem_text, 503, 5) from None
        finally:
            if answer is None or "error" in answer:
                self._places -= 1
                self._later(link.close("stopped: its session did not come about"))
        if "error" not in answer:
            self._sessions[session.name] = session
            SESSIONS.set(len(self._sessions))
        return session, answer

    async def request(self, session: Session, message: Message) -> Call:
        """Start a call of a session."""
        call = Call(session, message)
        self._link(session).call(call)
        return call

    def notify(self, session: Session, message: Message) -> None:
        """Pass on a notification of a client."""
        params = message.get("params")
        if message["method"] == "notifications/cancelled" and isinstance(params, dict):
            wanted = params.get("requestId")
            call = session.calls.get((type(wanted), wanted)) if isinstance(wanted, int | str) else None
            if call is not None and call.link is not None:
                call.link.cancel(call, str(params.get("reason", "cancelled by the client")))
        else:
            self._link(session).tell(message)

    def respond(self, session: Session, message: Message) -> None:
        """Pass on a client's answer to a question of the child."""
        self._link(session).tell(message)

    async def end(self, session: Session) -> None:
        """End a session and its child."""
        if self._sessions.pop(session.name, None) is None:
            return
        SESSIONS.set(len(self._sessions))
        session.stream.close()
        await self._link(session).close("stopped with its session")
        self._places -= 1

    async def stateless(self, caller: Caller, message: Message) -> Call:
        """Start a call of the stateless era."""
        greeting = await self._trial.greeting()
        params = message.get("params")
        if greeting.stateless or message["method"] in ("server/discover", "subscriptions/listen"):
            if self._stateless is None:
                self._stateless = Shared(self.program)
                await self._stateless.start()
            return await self._stateless.stateless(caller, message)
        state = params.get("requestState") if isinstance(params, dict) else None
        for single in self._single.values():
            if state is not None and single.waits_for(str(state)):
                return await single.stateless(caller, message)
        self._take_place()
        single = Shared(self.program)
        await single.start()
        try:
            call = await single.stateless(caller, message)
        except BaseException:
            self._later(self._end_single(single))
            raise
        self._single[call] = single
        return call

    def done(self, call: Call) -> None:
        """Take the end of a call's HTTP request."""
        if call.link is not None and not call.answered:
            call.link.cancel(call, "the client has gone", answer=False)
        if isinstance(call.caller, OwnSession):
            call.caller.used = asyncio.get_running_loop().time()
        elif self._stateless is not None and call not in self._single:
            self._stateless.done(call)

    def _take_place(self) -> None:
        if self._places >= self._max_sessions:
            problem = (
                f"server {self.program.name!r} has {self._places} sessions, which is the most (maxSessions); try again "
                "when one has ended"
            )
            raise Refusal(jsonrpc.BUSY, problem, 503, 5)
        self._places += 1

    def _link(self, session: Session) -> Link:
        if not isinstance(session, OwnSession) or session.link is None:
            raise Refusal(jsonrpc.INVALID_REQUEST, "the session has ended; initialize again", 404)
        return session.link

    async def _end_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._idle_timeout / 2))
            for session in list(self._sessions.values()):
                link = session.link
                gone = link is not None and link.gone is not None
                if gone or (session.idle and loop.time() - session.used >= self._idle_timeout):
                    self._later(self.end(session))
            for call, single in list(self._single.items()):
                if (call.answered or call.state == "done") and not single.busy:
                    del self._single[call]
                    self._later(self._end_single(single))

    async def _end_single(self, single: Shared) -> None:
        await single.stop()
        self._places -= 1

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
