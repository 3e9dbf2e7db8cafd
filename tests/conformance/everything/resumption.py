"""The events of streams that a client may resume, in memory: for a test server that lives for minutes."""

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage


class Events(EventStore):
    """Keeps every event; ids are positions."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep an event, and return its id."""
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came after an event on its stream; return the stream, or None where the id is unknown."""
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self._events):
            return None
        position = int(last_event_id)
        stream = self._events[position - 1][0]
        for number, (owner, message) in enumerate(self._events[position:], start=position + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
