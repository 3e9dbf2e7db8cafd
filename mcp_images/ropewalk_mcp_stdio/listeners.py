"""The open subscriptions of stateless clients to a server of the older era, which knows none: the bridge keeps them."""

from typing import Any

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Call
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.protocol import SUBSCRIPTION_KEY
from ropewalk_mcp_stdio.routing import listens_to


class Listeners:
    """Calls of subscriptions/listen, each with what it listens to."""

    def __init__(self) -> None:
        self._wanted: dict[Call, Message] = {}

    @property
    def uris(self) -> set[str]:
        """The resources whose updates somebody listens to."""
        return {uri for wanted in self._wanted.values() for uri in wanted.get("resourceSubscriptions", [])}

    def add(self, call: Call, params: Any) -> None:
        """Begin a subscription and tell its client; Refusal where what it asks for has a wrong form."""
        wanted = params.get("notifications") if isinstance(params, dict) else None
        wanted = {key: value for key, value in wanted.items() if value} if isinstance(wanted, dict) else {}
        uris = wanted.get("resourceSubscriptions", [])
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise Refusal(jsonrpc.INVALID_PARAMS, "resourceSubscriptions must be a list of URIs", 400)
        self._wanted[call] = wanted
        call.put(
            jsonrpc.notification(
                "notifications/subscriptions/acknowledged",
                {"notifications": wanted, "_meta": {SUBSCRIPTION_KEY: call.request_id}},
            )
        )

    def remove(self, call: Call) -> None:
        """Forget a subscription that has ended, or never was."""
        self._wanted.pop(call, None)

    def publish(self, message: Message) -> None:
        """Tell a change to those who listen to it."""
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        for call, wanted in self._wanted.items():
            if listens_to(wanted, message):
                meta = params.get("_meta")
                meta = (meta if isinstance(meta, dict) else {}) | {SUBSCRIPTION_KEY: call.request_id}
                call.put(message | {"params": params | {"_meta": meta}})

    def close(self) -> None:
        """End all subscriptions."""
        for call in self._wanted:
            call.finish(jsonrpc.error(call.request_id, jsonrpc.UNAVAILABLE, "the server is shutting down"))
