"""Asks one MCP server for all its tools, in whichever era of the protocol it speaks. Bounded in pages, tools and bytes.

Follows no redirect, sends no credential, and says in the server's own words why there are no tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx2
from mcp.client._probe import negotiate_auto
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp_types import PaginatedRequestParams, RequestId
from pydantic import ValidationError

from ropewalk_operator.definitions import NAME_CHARACTERS, VERSION_CHARACTERS, listed, sifted, tool
from ropewalk_operator.discovery import ListingError
from ropewalk_operator.facts import Discovered, LeftOut, Tool
from ropewalk_operator.wire import Guard, causes, one_line, verification

PAGES = 64
TOOLS = 10_000
MESSAGE_CHARACTERS = 500

_NOT_PARSED, _ENDED_STREAM = "Failed to parse", "SSE stream ended"
"""How the mcp package's own errors begin, which quote the answer or tell little."""


class _Sifting(JSONRPCDispatcher[TransportContext]):
    """Leaves definitions that cannot be used out of a page before the session judges it as a whole."""

    left_out: list[LeftOut]

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: RequestId | None = None,
    ) -> dict[str, Any]:
        result = await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id)
        if method != "tools/list":
            return result
        page, left_out = sifted(result)
        self.left_out.extend(left_out)
        return page


async def list_tools(
    url: str, *, ca_bundle: str | None, time_limit_seconds: float, final_address: str = "spec.remote.url"
) -> Discovered:
    """What the server says; raises ListingError.

    `final_address` names the field that a redirected address belongs into.
    """
    guard = Guard(
        httpx2.AsyncHTTPTransport(verify=verification(url, ca_bundle)),
        has_bundle=ca_bundle is not None,
        final_address=final_address,
    )
    doing = ["connecting"]
    try:
        async with asyncio.timeout(time_limit_seconds):
            return await _listed(url, guard, doing)
    except TimeoutError:
        raise ListingError(f"no answer within {time_limit_seconds:g} s ({doing[-1]}); agents wait no longer") from None
    except Exception as error:
        raise ListingError(_why(error, guard)) from None


async def _listed(url: str, guard: Guard, doing: list[str]) -> Discovered:
    async with AsyncExitStack() as stack:
        # With a transport of its own a client uses no proxy of the environment: none must stand in between.
        http = httpx2.AsyncClient(
            transport=guard,
            # The listing as a whole has a limit, and who sets two gets the words of the wrong one.
            timeout=None,
            # A bound on what is read says nothing about what it unpacks to.
            headers={"accept-encoding": "identity"},
        )
        await stack.enter_async_context(http)
        streams = await stack.enter_async_context(streamable_http_client(url, http_client=http))
        dispatcher = _Sifting(*streams)
        dispatcher.left_out = []
        session = await stack.enter_async_context(ClientSession(dispatcher=dispatcher))
        await negotiate_auto(session)
        tools = await _pages(session, doing)
        info = session.server_info
        return Discovered(
            tools=listed(tools),
            protocol_version=str(session.protocol_version)[:VERSION_CHARACTERS],
            server_name=(info.name if info else "")[:NAME_CHARACTERS],
            server_version=(info.version if info else "")[:NAME_CHARACTERS],
            has_session=guard.has_session,
            left_out=tuple(dispatcher.left_out),
        )


async def _pages(session: ClientSession, doing: list[str]) -> list[Tool]:
    tools: list[Tool] = []
    cursor: str | None = None
    for number in range(1, PAGES + 1):
        doing.append(f"waiting for page {number} of tools/list")
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        tools.extend(tool(each.name, each.description or "", each.input_schema) for each in page.tools)
        if len(tools) > TOOLS:
            raise ListingError(f"it lists more than {TOOLS} tools, which are not read")
        cursor = page.next_cursor
        if not cursor:
            return tools
    raise ListingError(f"it lists its tools on more than {PAGES} pages, which are not read")


def _why(error: BaseException, guard: Guard) -> str:
    if guard.fault is not None:
        return one_line(guard.fault, MESSAGE_CHARACTERS)
    inner = list(causes(error))
    said = next((words for each in inner if (words := _words(each)) is not None), None)
    # The mcp package and its transports may fail in ways of their own.
    return one_line(said or str(inner[0]) or type(inner[0]).__name__, MESSAGE_CHARACTERS)


def _words(error: BaseException) -> str | None:
    if isinstance(error, ListingError):
        return str(error)
    if isinstance(error, ValidationError):
        return "its answer is not what the protocol says"
    if not isinstance(error, MCPError):
        return None
    if error.message.startswith(_NOT_PARSED):
        return "its answer is not JSON-RPC"
    if error.message.startswith(_ENDED_STREAM):
        return "its stream ended without an answer"
    return f"it answered with an error: {error.message} (code {error.code})"
