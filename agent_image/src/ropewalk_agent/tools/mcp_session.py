"""Additions to the mcp package's session: listings pass a sieve, results count whatever was listed, and the newer era
tells of changed tools too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.client._transport import ReadStream, WriteStream
from mcp.client.session import ClientSession
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import METHOD_NOT_FOUND, CallToolResult, RequestId
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ropewalk_agent.tools.wire import exchange

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0

_pause = asyncio.sleep


class SiftingDispatcher(JSONRPCDispatcher[TransportContext]):
    """Hands each result of tools/list to `sift` before the session validates it as a whole.

    A result without a resultType is taken for a complete one.
    """

    def __init__(
        self,
        read_stream: ReadStream[SessionMessage | Exception],
        write_stream: WriteStream[SessionMessage],
        *,
        sift: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    ) -> None:
        super().__init__(read_stream, write_stream)
        self._sift = sift

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: RequestId | None = None,
    ) -> dict[str, Any]:
        """See JSONRPCDispatcher."""
        result = await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id)
        # A result that does not say of what kind it is, is complete (SEP-2322); the mcp package refuses it.
        result = {"resultType": "complete", **result}
        return await self._sift(result) if method == "tools/list" else result


class LenientSession(ClientSession):
    """Checks no result against its tool's output schema.

    The schema is that of the last listing, or of nobody any more, and the server may be another since. A call that was
    made is not to be reported as failed, or the model makes it twice; and a pattern in a schema can take for ever.
    """

    async def validate_tool_result(self, name: str, result: CallToolResult) -> None:
        """See ClientSession; does nothing."""


async def subscribe_to_changes(session: ClientSession, changed: Callable[[], None]) -> None:
    """Call `changed` whenever the server tells that its tools did, until cancelled; protocol 2026-07-28 and later.

    In the older era the session gets such notifications by itself, over its GET stream. Returns at once where the
    server does not tell of changes.
    """
    capabilities = session.server_capabilities
    tells = capabilities is not None and capabilities.tools is not None and capabilities.tools.list_changed
    if session.protocol_version not in MODERN_PROTOCOL_VERSIONS or not tells:
        return
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            with exchange():
                async with listen(session, tools_list_changed=True) as subscription:
                    pause = _FIRST_PAUSE_SECONDS
                    changed()  # something may have changed before the subscription began
                    async for _ in subscription:
                        changed()
        except SubscriptionLost:
            pass
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:
                return
        # The listing goes on meanwhile; it also ends the whole connection if the server is gone.
        await _pause(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
