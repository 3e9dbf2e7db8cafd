"""Asks for an MCP server's tools, the server itself or agents that use it, as the target says."""

from __future__ import annotations

from ropewalk_operator import reports
from ropewalk_operator.discovery import TIME_LIMIT_SECONDS, Ask, Target
from ropewalk_operator.facts import Discovered


def asking(ask_tools: reports.AskTools) -> Ask:
    """An Ask that gets agents' reports by `ask_tools`."""

    async def ask(target: Target) -> Discovered:
        if target.agents:
            return await reports.ask(target.name, target.agents, ask_tools)
        # Imported at the first use: an operator without MCP servers saves 30 MB.
        from ropewalk_operator.listing import list_tools

        return await list_tools(
            target.url,
            ca_bundle=target.ca_bundle,
            time_limit_seconds=TIME_LIMIT_SECONDS,
            final_address=target.final_address,
        )

    return ask
