"""Whose is it? Pure decisions about what a child that many clients share sends on its own account."""

from collections.abc import Iterable

from ropewalk_mcp_stdio.calls import Call, Caller
from ropewalk_mcp_stdio.jsonrpc import Message
from ropewalk_mcp_stdio.protocol import LOG_LEVELS

TOOLS_CHANGED = "notifications/tools/list_changed"
LIST_CHANGED = {
    TOOLS_CHANGED: "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}
RESOURCE_UPDATED = "notifications/resources/updated"


def only_caller(calls: Iterable[Call], given_up: Iterable[Caller] = ()) -> tuple[Call | None, int]:
    """Return the newest call of the one client that has calls in flight, or None; and how many have some (2: or more).

    Over stdio nothing tells to which call a message of the server belongs. It is certain only where all calls in flight
    are of one client, and so are those that were given up, for the server may be at work on them still.
    """
    caller: Caller | None = None
    newest: Call | None = None
    for call in calls:
        if call.caller is None:
            continue
        if caller is None:
            caller = call.caller
        elif call.caller is not caller:
            return None, 2
        newest = call
    for other in given_up:
        if other is not caller:
            return None, 1 if caller is None else 2
        caller = other
    return newest, 0 if caller is None else 1


def wants_log(caller: Caller, params: object) -> bool:
    """Tell whether a log message is severe enough for this client."""
    if caller.log_level is None:
        return not caller.stateless
    level = params.get("level") if isinstance(params, dict) else None
    if level not in LOG_LEVELS or caller.log_level not in LOG_LEVELS:
        return True
    return LOG_LEVELS.index(str(level)) >= LOG_LEVELS.index(caller.log_level)


def most_verbose(levels: Iterable[str | None]) -> str | None:
    """Return the least severe of the levels that clients have asked for."""
    known = [LOG_LEVELS.index(level) for level in levels if level in LOG_LEVELS]
    return LOG_LEVELS[min(known)] if known else None


def listens_to(wanted: Message, notification: Message) -> bool:
    """Tell whether a subscription's filter covers a notification."""
    method, params = notification["method"], notification.get("params")
    if method in LIST_CHANGED:
        return wanted.get(LIST_CHANGED[method]) is True
    uris = wanted.get("resourceSubscriptions")
    return (
        method == RESOURCE_UPDATED and isinstance(params, dict) and isinstance(uris, list) and params.get("uri") in uris
    )
