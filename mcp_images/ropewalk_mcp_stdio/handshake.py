"""Finds out which era of the protocol a fresh child speaks, and greets it in that."""

import asyncio

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.program import Timing
from ropewalk_mcp_stdio.protocol import (
    CAPABILITIES,
    CLIENT_INFO,
    STATELESS_VERSION,
    Greeting,
    envelope,
    initialize_params,
)


class HandshakeError(Exception):
    """The child did not greet; the message says what it did instead, and `refused` whether it spoke and refused."""

    def __init__(self, problem: str, *, refused: bool = False) -> None:
        super().__init__(problem)
        self.refused = refused


def next_try(tried: bool | None, *, ended: bool) -> bool | None:
    """Return what to greet the next child with where the last one, tried with `tried`, did not greet.

    Some old servers end at any request before initialize: the next one gets initialize first. Others have ended for a
    reason of their own, so that the one after that is asked again.
    """
    return False if tried is None and ended else None


async def greet(link: Link, stateless: bool | None, timing: Timing) -> Greeting:
    """Greet the child: in the stateless era (True), with initialize (False), or in what it speaks (None)."""
    discover = None
    try:
        async with asyncio.timeout(timing.start):
            if stateless is not False:
                params = {"_meta": envelope(CAPABILITIES, CLIENT_INFO)}
                discover = _asked(link, "server/discover", params)
                greeting = await _discovered(discover, None if stateless else timing.patience)
                if greeting is not None:
                    return greeting
                if stateless:
                    raise HandshakeError(f"does not speak MCP {STATELESS_VERSION}", refused=True)
            return await _initialized(link, discover)
    except Refusal:
        raise HandshakeError(f"{link.gone} during the MCP handshake") from None
    except TimeoutError:
        raise HandshakeError(f"has not answered the MCP handshake in {timing.start:.0f} seconds") from None


def _asked(link: Link, method: str, params: Message) -> Call:
    call = Call(None, jsonrpc.request(0, method, params), long=True)
    link.call(call)
    return call


async def _discovered(call: Call, patience_seconds: float | None) -> Greeting | None:
    try:
        async with asyncio.timeout(patience_seconds):
            answer = await call.answer()
    except TimeoutError:
        return None
    return _stateless_greeting(answer)


def _stateless_greeting(answer: Message) -> Greeting | None:
    result = answer.get("result")
    versions = result.get("supportedVersions") if isinstance(result, dict) else None
    if isinstance(result, dict) and isinstance(versions, list) and STATELESS_VERSION in versions:
        return Greeting(True, STATELESS_VERSION, result)
    return None


async def _initialized(link: Link, discover: Call | None) -> Greeting:
    answer = await _asked(link, "initialize", initialize_params()).answer()
    if discover is not None and discover.outbox:
        greeting = _stateless_greeting(discover.outbox.popleft())
        if greeting is not None:
            return greeting
    result = answer.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("protocolVersion"), str):
        if link.gone is not None:
            raise HandshakeError(f"{link.gone} during the MCP handshake")
        problem = answer.get("error")
        said = str(problem.get("message"))[:200] if isinstance(problem, dict) else "a result without protocolVersion"
        raise HandshakeError(f"refused the MCP handshake: {said}", refused=True)
    link.tell(jsonrpc.notification("notifications/initialized"))
    return Greeting(False, result["protocolVersion"], result)
