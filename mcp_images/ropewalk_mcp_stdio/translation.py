"""A server of the older era for clients of the stateless one: pure changes to requests and results, and parked calls.

What an older server asks of its client in the middle of a call, a stateless client gets as the call's result
(`input_required`). It calls again with the answer, and the call at the server, which has waited, goes on.
"""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal, RequestId
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.protocol import ENVELOPE_KEYS, SERVER_KEY, Greeting

_CACHEABLE = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read", "server/discover"}
)
# What the stateless era does not have; a server of the older one would answer it.
NOT_STATELESS = frozenset(
    {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
)  # fmt: skip
_MOST_PARKED = 256


def without_envelope(params: Any) -> Any:
    """Return the parameters as an older server takes them."""
    if not isinstance(params, dict) or not isinstance(params.get("_meta"), dict):
        return params
    meta = {key: value for key, value in params["_meta"].items() if key not in ENVELOPE_KEYS}
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return rest | ({"_meta": meta} if meta else {})


def make_stateless(greeting: Greeting, method: str, answer: Message) -> None:
    """Add to an older server's answer what a result of the stateless era must have."""
    result = answer.get("result")
    if not isinstance(result, dict):
        return
    result.setdefault("resultType", "complete")
    if method in _CACHEABLE:
        result.setdefault("ttlMs", 0)
        result.setdefault("cacheScope", "private")
    meta = result.get("_meta")
    result["_meta"] = {SERVER_KEY: greeting.server_info} | (meta if isinstance(meta, dict) else {})


@dataclass
class _Parked:
    call: Call
    link: Link
    timer: asyncio.TimerHandle
    asked: dict[str, RequestId] = field(default_factory=dict)
    # Asked by the child while the client has been away.
    more: list[Message] = field(default_factory=list)


class Parking:
    """The calls of stateless clients that wait for their clients' answers."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parked: dict[str, _Parked] = {}
        self._by_call: dict[Call, _Parked] = {}

    def ask(self, link: Link, call: Call, message: Message) -> None:
        """Answer the client's request with what the child asks in the middle of it."""
        waiting = self._by_call.get(call)
        if waiting is not None:
            waiting.more.append(message)
            return
        if len(self._parked) >= _MOST_PARKED:
            problem = f"{_MOST_PARKED} calls wait for their clients' answers already, which is the most"
            link.tell(jsonrpc.error(message["id"], jsonrpc.BUSY, problem))
            return
        state = secrets.token_urlsafe(24)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up, state)
        parked = self._parked[state] = self._by_call[call] = _Parked(call, link, timer)
        parked.asked["1"] = message["id"]
        question = {"method": message["method"]} | ({"params": message["params"]} if "params" in message else {})
        call.asked["1"] = message["id"]
        link.park(call)
        call.finish(
            jsonrpc.result(
                call.request_id,
                {"resultType": "input_required", "inputRequests": {"1": question}, "requestState": state},
            )
        )

    def waits_for(self, state: str) -> bool:
        """Tell whether a call waits for this requestState."""
        return state in self._parked

    def resume(self, call: Call, params: Message) -> Link:
        """Let the waiting call go on, as this one; Refusal where none waits."""
        parked = self._take(str(params.get("requestState")))
        if parked is None or parked.call.state != "parked":
            problem = "no call waits for this requestState: it has ended, or waits at another replica; call anew"
            raise Refusal(jsonrpc.INVALID_PARAMS, problem, 400)
        old, link = parked.call, parked.link
        call.link, call.sub_id, call.state, call.long = link, old.sub_id, "parked", old.long
        meta = params.get("_meta")
        call.token = meta.get("progressToken") if isinstance(meta, dict) and old.token is not None else None
        link.calls[call.sub_id] = call
        link.unpark(call)
        answers = params.get("inputResponses")
        for key, child_id in parked.asked.items():
            given = answers.get(key) if isinstance(answers, dict) else None
            if given is None:
                link.tell(jsonrpc.error(child_id, jsonrpc.INTERNAL_ERROR, "the client gave no answer"))
            else:
                link.tell(jsonrpc.result(child_id, given))
        for message in parked.more:
            self.ask(link, call, message)
        return link

    def _give_up(self, state: str) -> None:
        parked = self._take(state)
        if parked is not None:
            parked.link.cancel(parked.call, "the client did not come back with its answer", answer=False)

    def _take(self, state: str) -> _Parked | None:
        parked = self._parked.pop(state, None)
        if parked is not None:
            parked.timer.cancel()
            del self._by_call[parked.call]
        return parked
