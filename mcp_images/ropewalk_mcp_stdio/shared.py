"""Shared mode: one child for all clients.

The bridge greets the child once and answers every client's initialize from that. What the child sends on its own
account goes to the client that it must be for, to all where it concerns all, and else to none.
A server that speaks both eras has one child for each era in use, because one pair of pipes can speak only one.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call, Caller
from ropewalk_mcp_stdio.essential import essential
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.listeners import Listeners
from ropewalk_mcp_stdio.metrics import SESSIONS, UNROUTED
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.protocol import (
    NEEDED_CAPABILITY,
    SUBSCRIPTION_KEY,
    Greeting,
    discover_answer,
    initialize_answer,
)
from ropewalk_mcp_stdio.routing import (
    LIST_CHANGED,
    RESOURCE_UPDATED,
    TOOLS_CHANGED,
    most_verbose,
    only_caller,
    wants_log,
)
from ropewalk_mcp_stdio.sessions import Session, named_session, new_name
from ropewalk_mcp_stdio.supervisor import Supervisor
from ropewalk_mcp_stdio.tool_headers import ToolHeaders
from ropewalk_mcp_stdio.translation import NOT_STATELESS, Parking, make_stateless, without_envelope

# A session costs some hundred bytes. The one idle for longest goes first, and comes back with its next request.
_MOST_SESSIONS = 10_000
_MOST_ENDED = 10_000
_log = logging.getLogger("ropewalk.mcp.stdio")


class Shared:
    """Serves all clients from one child an era."""

    def __init__(self, program: Program, *, stateless: bool | None = None) -> None:
        self.program = program
        self._first = Supervisor(program, self, stateless)
        self._second: Supervisor | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._fail: Callable[[], None] = lambda: None
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._listeners = Listeners()
        self._parking = Parking(program.timing.parked)
        self._numbers = itertools.count(1)
        self._headers = ToolHeaders()

    async def start(self, fail: Callable[[], None]) -> None:
        """Start the child; `fail` is called where nobody looks after it any more."""
        self._fail = fail
        self._supervise(self._first)

    async def stop(self) -> None:
        """End the children."""
        for task in self._tasks:
            task.cancel()
        for session in self._sessions.values():
            session.stream.close()
        self._listeners.close()
        supervisors = [each for each in (self._first, self._second) if each is not None]
        await asyncio.gather(*(each.stop() for each in supervisors))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def problem(self) -> str | None:
        """What keeps the bridge from being ready, or None."""
        return self._first.problem

    @property
    def busy(self) -> bool:
        """Tell whether a call is in flight, or waits for its client."""
        return any(call.caller is not None for link in self.links for call in link.calls.values())

    def waits_for(self, state: str) -> bool:
        """Tell whether a call waits for a client that comes back with this requestState."""
        return self._parking.waits_for(state)

    @property
    def links(self) -> list[Link]:
        """The connections to children."""
        supervisors = [each for each in (self._first, self._second) if each is not None]
        return [each.link for each in supervisors if each.link is not None]

    def session(self, name: str) -> Session:
        """Return the client's session, also one that another replica opened; Refusal (404) where it has ended."""
        session = self._sessions.get(name)
        if session is None:
            session = None if name in self._ended else named_session(name)
            if session is None:
                raise Refusal(jsonrpc.INVALID_REQUEST, "the session has ended or never was; initialize again", 404)
            self._add(session)
        self._sessions.move_to_end(name)
        return session

    async def initialize(self, call: Call) -> Session:
        """Open a session and answer from the child's own answer, which asks nothing of the child."""
        supervisor = await self._supervisor(stateless=False)
        _, greeting = await supervisor.ready()
        params = call.message.get("params")
        params = params if isinstance(params, dict) else {}
        answer = initialize_answer(greeting, params.get("protocolVersion"))
        capabilities = params.get("capabilities")
        capabilities = capabilities if isinstance(capabilities, dict) else {}
        version = str(answer["protocolVersion"])
        session = Session(new_name(version, capabilities), capabilities)
        self._add(session)
        call.finish(jsonrpc.result(call.request_id, answer))
        return session

    async def request(self, session: Session, call: Call) -> None:
        """Start a call of a session."""
        if call.method == "ping":
            call.finish(jsonrpc.result(call.request_id, {}))
            return
        supervisor = await self._supervisor(stateless=False)
        link, _ = await supervisor.ready()
        params = call.message.get("params")
        if isinstance(params, dict):
            if call.method == "logging/setLevel":
                session.log_level = params.get("level")
                params["level"] = most_verbose(self._levels()) or params.get("level")
            elif call.method == "resources/subscribe":
                session.subscriptions.add(str(params.get("uri")))
            elif call.method == "resources/unsubscribe":
                uri = str(params.get("uri"))
                session.subscriptions.discard(uri)
                if uri in self._uris():
                    call.finish(jsonrpc.result(call.request_id, {}))
                    return
        link.call(call)

    def notify(self, session: Session, message: Message) -> None:
        """Take a notification of a client."""
        method, params = message["method"], message.get("params")
        if method == "notifications/cancelled" and isinstance(params, dict):
            session.cancel(params)
        elif method == "notifications/roots/list_changed" and len(self._sessions) == 1:
            for link in self.links:
                link.tell(message)
        elif method == "notifications/progress":
            for link in {link for link, _, _ in session.asked.values()}:
                link.pass_on(message)

    def respond(self, session: Session, message: Message) -> None:
        """Take a client's answer to a question of the child."""
        asked = session.asked.get(str(message["id"]))
        if asked is not None:
            link, child_id, call = asked
            link.pass_on(message | {"id": child_id})
            del session.asked[str(message["id"])]
            if call is not None:
                call.asked.pop(str(message["id"]), None)

    async def end(self, session: Session) -> None:
        """Forget a session that its client has ended."""
        self._remove(session)
        self._ended[session.name] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    async def stateless(self, caller: Caller, call: Call) -> None:
        """Start a call of the stateless era."""
        supervisor = await self._supervisor(stateless=True)
        link, greeting = await supervisor.ready()
        if call.method == "tools/call":
            await self._headers.check(link, greeting, call.message["params"], caller.headers)
        if call.left:
            return
        if greeting.stateless:
            if call.method == "tools/list":
                call.after = self._headers.learn
            link.call(call)
        else:
            self._translate(link, greeting, call)

    def done(self, call: Call) -> None:
        """Take the end of a call's HTTP request."""
        if call.link is not None and (call.left or not call.answered):
            call.link.cancel(call, "the client has gone", answer=False)
        if isinstance(call.caller, Session):
            for asked in call.asked:
                call.caller.asked.pop(asked, None)
        if call.long:
            before = self._uris()
            self._listeners.remove(call)
            self._unsubscribe(before - self._uris())

    def on_notification(self, link: Link, message: Message) -> None:
        """Send a notification of the child to whom it concerns."""
        method, params = message["method"], message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        subscription = meta.get(SUBSCRIPTION_KEY) if isinstance(meta, dict) else None
        if isinstance(meta, dict) and isinstance(subscription, int):
            call = link.calls.get(subscription)
            if call is not None:
                meta[SUBSCRIPTION_KEY] = call.request_id
                call.put(message)
        elif method in LIST_CHANGED or method == RESOURCE_UPDATED:
            if method == TOOLS_CHANGED:
                self._headers.forget()
            self._publish(message)
        elif method == "notifications/cancelled" and isinstance(params, dict):
            self._withdraw(link, params)
        elif method == "notifications/elicitation/complete":
            for session in self._sessions.values():
                session.stream.put(message)
        else:
            self._to_the_only_one(link, message)

    def on_request(self, link: Link, message: Message) -> None:
        """Ask the one client that the child can mean; else tell the child that there is not one."""
        method = message["method"]
        if method == "ping":
            link.tell(jsonrpc.result(message["id"], {}))
            return
        call, caller, clients = self._only_one(link)
        if caller is None:
            UNROUTED.labels("request").inc()
            problem = (
                f"{method} cannot be sent: {'several clients have' if clients else 'no client has'} a call in "
                "flight, so nobody knows which to ask; use sessionMode: perSession for a server that asks its clients"
            )
            link.tell(jsonrpc.error(message["id"], jsonrpc.INTERNAL_ERROR, problem))
            return
        needed = NEEDED_CAPABILITY.get(method)
        if needed is not None and needed not in caller.capabilities:
            problem = f"the client has not declared the capability {needed!r}, so {method} cannot be sent to it"
            link.tell(jsonrpc.error(message["id"], jsonrpc.METHOD_NOT_FOUND, problem))
        elif caller.stateless and call is not None:
            self._parking.ask(link, call, message)
        elif isinstance(caller, Session):
            asked = f"{self.program.name}-{next(self._numbers)}"
            caller.asked[asked] = (link, message["id"], call)
            if call is not None:
                call.asked[asked] = message["id"]
            self._send(caller, call, message | {"id": asked})

    def on_gone(self, link: Link) -> None:
        """Forget what was asked by a child that has ended."""
        for session in self._sessions.values():
            session.asked = {name: asked for name, asked in session.asked.items() if asked[0] is not link}

    def on_up(self, link: Link, greeting: Greeting) -> None:
        """Ask a child that has just started for what clients have subscribed to."""
        if greeting.stateless:
            return
        level = most_verbose(self._levels())
        if level is not None:
            self._ask(link, "logging/setLevel", {"level": level})
        for uri in self._uris():
            self._ask(link, "resources/subscribe", {"uri": uri})

    def _supervise(self, supervisor: Supervisor) -> None:
        supervisor.on_up = self.on_up
        self._tasks.append(essential(supervisor.run(), self._fail))

    async def _supervisor(self, *, stateless: bool) -> Supervisor:
        first = self._first
        if first.stateless is None:
            await first.ready()
        if stateless or not first.stateless:
            return first
        if self._second is None:
            self._second = Supervisor(self.program, self, False, optional=True)
            self._supervise(self._second)
        if not await self._second.settled():
            problem = (
                f"server {self.program.name!r} speaks only MCP 2026-07-28 and knows no initialize; use a client that "
                "speaks it"
            )
            raise Refusal(jsonrpc.INVALID_REQUEST, problem, 400)
        return self._second

    def _add(self, session: Session) -> None:
        self._sessions[session.name] = session
        if len(self._sessions) > _MOST_SESSIONS:
            idle = next((each for each in self._sessions.values() if each.idle), None)
            if idle is not None:
                self._remove(idle)
        SESSIONS.set(len(self._sessions))

    def _remove(self, session: Session) -> None:
        self._sessions.pop(session.name, None)
        SESSIONS.set(len(self._sessions))
        session.stream.close()
        for call in list(session.calls.values()):
            if call.link is not None:
                call.link.cancel(call, "the session was ended")
        for link, child_id, _ in session.asked.values():
            link.tell(jsonrpc.error(child_id, jsonrpc.INTERNAL_ERROR, "the client has gone"))
        self._unsubscribe(session.subscriptions - self._uris())

    def _unsubscribe(self, uris: Iterable[str]) -> None:
        for uri in uris:
            for link in self.links:
                self._ask(link, "resources/unsubscribe", {"uri": uri})

    def _ask(self, link: Link, method: str, params: Message) -> None:
        with contextlib.suppress(Refusal):
            link.call(Call(None, jsonrpc.request(0, method, params), long=True))

    def _levels(self) -> Iterable[str | None]:
        yield from (session.log_level for session in self._sessions.values())
        for link in self.links:
            yield from (call.caller.log_level for call in link.calls.values() if call.caller is not None)

    def _uris(self) -> set[str]:
        return self._listeners.uris.union(*(session.subscriptions for session in self._sessions.values()))

    def _translate(self, link: Link, greeting: Greeting, call: Call) -> None:
        method, params = call.method, call.message.get("params")

        def after(answer: Message) -> None:
            make_stateless(greeting, method, answer)
            if method == "tools/list":
                self._headers.learn(answer)

        call.after = after
        if method == "server/discover":
            call.finish(jsonrpc.result(call.request_id, discover_answer(greeting)))
        elif method == "subscriptions/listen":
            known = self._uris()
            self._listeners.add(call, params)
            for uri in self._uris() - known:
                self._ask(link, "resources/subscribe", {"uri": uri})
        elif method in NOT_STATELESS:
            call.finish(jsonrpc.error(call.request_id, jsonrpc.METHOD_NOT_FOUND, "Method not found", method))
        elif isinstance(params, dict) and "requestState" in params:
            self._parking.resume(call, params)
        else:
            plain = without_envelope(params)
            call.message["params"] = plain
            level = call.caller.log_level if call.caller else None
            if level is not None and "logging" in greeting.capabilities:
                self._ask(link, "logging/setLevel", {"level": most_verbose([level, *self._levels()])})
            link.call(call)

    def _publish(self, message: Message) -> None:
        params = message.get("params")
        uri = str(params.get("uri")) if isinstance(params, dict) else None
        for session in self._sessions.values():
            if message["method"] in LIST_CHANGED or uri in session.subscriptions:
                session.stream.put(message)
        self._listeners.publish(message)

    def _only_one(self, link: Link) -> tuple[Call | None, Caller | None, int]:
        """Return the newest call of the only client that a message of the child can be for, and that client."""
        call, clients = only_caller(link.calls.values(), link.given_up())
        if call is not None:
            return call, call.caller, clients
        if clients == 0 and len(self._sessions) == 1 and not link.several_callers:
            # The child speaks outside of any call: to the only client that is there, if it has worked for no other.
            session = next(iter(self._sessions.values()))
            return None, session if link.first_caller in (None, session) else None, clients
        return None, None, clients

    def _to_the_only_one(self, link: Link, message: Message) -> None:
        call, caller, _ = self._only_one(link)
        if caller is None:
            UNROUTED.labels("notification").inc()
        elif message["method"] != "notifications/message" or wants_log(caller, message.get("params")):
            self._send(caller, call, message)

    def _send(self, caller: Caller, call: Call | None, message: Message) -> None:
        if isinstance(caller, Session) and (call is None or (len(caller.calls) > 1 and caller.stream.open)):
            caller.stream.put(message)
        elif call is not None:
            call.put(message)

    def _withdraw(self, link: Link, params: Message) -> None:
        for session in self._sessions.values():
            for asked, (asker, child_id, _) in list(session.asked.items()):
                if asker is link and child_id == params.get("requestId"):
                    del session.asked[asked]
                    note = jsonrpc.notification("notifications/cancelled", params | {"requestId": asked})
                    call, _ = only_caller(session.calls.values())
                    self._send(session, call, note)
