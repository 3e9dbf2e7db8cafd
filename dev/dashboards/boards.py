"""All dashboards, as the files that they are shipped in. Never writes."""

from __future__ import annotations

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from cluster.layout import REPOSITORY
from dashboards import fleet, mcp_servers, one_agent, the_operator

FOLDER = REPOSITORY / "charts" / "ropewalk" / "dashboards"
_BOARDS = (fleet.board, one_agent.board, mcp_servers.board, the_operator.board)


def files() -> dict[str, str]:
    """Name of each file and its JSON, as Grafana imports it."""
    made = [board() for board in _BOARDS]
    return {
        f"{str(each.uid).removeprefix('ropewalk-')}.json": JSONEncoder(sort_keys=True, indent=1).encode(each) + "\n"
        for each in made
    }
