"""The dashboard MCP servers: as agents meet them, and what the shipped ones and the stdio bridge tell themselves."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.panels import (
    NO_LEADER,
    OTHER_LEADERS,
    Panels,
    choice,
    graph,
    new_board,
    stat_panel,
    states,
    table_panel,
)
from dashboards.pods import of_pods
from dashboards.queries import LEADING, MCP_SERVERS, Series, or_none, or_zero, share

_SERVERS = Series('namespace=~"$namespace", server=~"$server"')
_NAMES = Series('namespace=~"$namespace", name=~"$server", kind="MCPServer"')
_EACH = "namespace, server"
_LEGEND = "{{namespace}}/{{server}}"
_CALLS = "ropewalk_agent_tool_calls_total"
_UP = "ropewalk_agent_mcp_server_up"
_OPERATIONS = "mcp_client_operation_duration_seconds"
_OWN_CALLS = "ropewalk_mcp_tool_calls_total"
_WITH_PROCESS = "Of the servers that ship and of the bridge; an image of your own shows where it exports process_*."
_BRIDGED = "ropewalk_mcp_stdio_requests_total"


def board() -> Dashboard:
    """Build it."""
    return new_board(
        "ropewalk-mcp-servers",
        "Ropewalk / MCP servers",
        "MCP servers as agents meet them; the servers that ship and the stdio bridge also tell of themselves.",
        [
            choice("namespace", "Namespace", MCP_SERVERS.namespaces),
            choice("server", "MCP server", MCP_SERVERS.names, MCP_SERVERS.name),
        ],
        [
            ("Now", _now()),
            ("As agents meet them", _met()),
            ("Servers that ship", _shipped()),
            ("Servers over stdio, behind the bridge", _bridge()),
            ("Pods", of_pods(_SERVERS, _WITH_PROCESS)),
        ],
    )


def _now() -> Panels:
    ready, connections = _NAMES.condition("Ready"), _SERVERS.of(_UP)
    return [
        stat_panel(
            "MCP servers",
            f"MCPServers that the operator knows. {OTHER_LEADERS}",
            or_none(f"count({ready})", LEADING),
            missing=NO_LEADER,
        ),
        stat_panel(
            "Not ready",
            "MCPServers whose condition Ready is not True, without those scaled to 0: kubectl get mcp tells why."
            f" {OTHER_LEADERS}",
            or_none(f"count({_NAMES.not_ready()})", LEADING),
            warn=1,
            missing=NO_LEADER,
        ),
        stat_panel(
            "Connections down",
            "Connections of agents' pods to these servers that are down now.",
            or_none(f"count({connections} == 0)", connections),
            warn=1,
        ),
        stat_panel(
            "Tool calls", "Calls that agents made, each second.", or_none(_SERVERS.rate(_CALLS), connections), "ops"
        ),
        stat_panel(
            "Failed calls",
            "Share of agents' calls with another outcome than ok.",
            share(_SERVERS.rate(_CALLS, more='outcome!="ok"'), _SERVERS.rate(_CALLS), connections),
            "percentunit",
            warn=0.05,
            bad=0.25,
        ),
        stat_panel(
            "Restarts of children",
            "Programs behind the stdio bridge that were started again in the time that is shown: crashed, hung, or"
            " did not start.",
            or_none(
                f"sum(increase({_SERVERS.of('ropewalk_mcp_stdio_child_restarts_total')}[$__range]))",
                _SERVERS.of("ropewalk_mcp_stdio_children"),
            ),
            warn=1,
        ),
    ]


def _met() -> Panels:
    calls = _SERVERS.rate(_CALLS, _EACH)
    failed = or_zero(_SERVERS.rate(_CALLS, _EACH, 'outcome!="ok"'), calls)
    return [
        table_panel(
            "MCP servers",
            "Each server that an agent uses: agents' pods that are connected and that are not, calls, the share that"
            " failed, the time of a call.",
            [
                ("Connected", _SERVERS.sum(_UP, _EACH), "short"),
                ("Down", f"sum by ({_EACH}) (1 - {_SERVERS.of(_UP)})", "short"),
                ("Calls", calls, "ops"),
                ("Failed", f"({failed}) / ({calls} > 0)", "percentunit"),
                ("p95", _SERVERS.quantile(0.95, _OPERATIONS, _EACH, 'mcp_method_name="tools/call"'), "s"),
            ],
            ["namespace", "server"],
        ),
        states(
            "Connections",
            "Whether agents are connected to each server; the worst connection counts.",
            [(f"min by ({_EACH}) ({_SERVERS.of(_UP)})", _LEGEND)],
            "connected",
            "down",
        ),
        states(
            "Ready",
            "What the operator says of each MCPServer.",
            [(_NAMES.condition("Ready"), "{{namespace}}/{{name}}")],
            "Ready",
            "not ready",
        ),
        graph(
            "Calls by server and outcome",
            "As agents counted them.",
            [(_SERVERS.rate(_CALLS, f"{_EACH}, outcome"), f"{_LEGEND} {{{{outcome}}}}")],
            "ops",
        ),
        graph(
            "Time of requests, p95",
            "Of all methods of the protocol, as agents measured it.",
            [(_SERVERS.quantile(0.95, _OPERATIONS, _EACH), _LEGEND)],
            "s",
        ),
        graph(
            "Reconnects and retries",
            "Connections made again after a loss, and calls made again, each minute.",
            [
                (or_zero(f"60 * {_SERVERS.rate(metric, _EACH)}", _SERVERS.sum(_UP, _EACH)), f"{_LEGEND} {word}")
                for metric, word in (
                    ("ropewalk_agent_mcp_reconnects_total", "reconnects"),
                    ("ropewalk_agent_mcp_retries_total", "retries"),
                )
            ],
            "opm",
        ),
    ]


def _shipped() -> Panels:
    return [
        graph(
            "Tool calls by tool and outcome",
            "As the servers that ship and speak HTTP counted them; one over stdio shows below.",
            [(_SERVERS.rate(_OWN_CALLS, "server, tool, outcome"), "{{server}} {{tool}} {{outcome}}")],
            "ops",
        ),
        graph(
            "Time of tool calls, p95",
            "As the servers measured it.",
            [
                (
                    _SERVERS.quantile(0.95, "ropewalk_mcp_tool_call_duration_seconds", "server, tool"),
                    "{{server}} {{tool}}",
                )
            ],
            "s",
        ),
        graph(
            "What they asked of others",
            "Requests to Open-Meteo, DuckDuckGo, Prometheus and the API server, by outcome: cached needed none.",
            [
                (
                    _SERVERS.rate("ropewalk_mcp_upstream_requests_total", "server, upstream, outcome"),
                    "{{server}} {{upstream}} {{outcome}}",
                )
            ],
            "reqps",
        ),
    ]


def _bridge() -> Panels:
    children = _SERVERS.sum("ropewalk_mcp_stdio_children", "server")
    return [
        graph(
            "Requests by outcome",
            "What clients asked of the bridge: busy means that maxSessions are open, unavailable that the program"
            " behind it does not run.",
            [(_SERVERS.rate(_BRIDGED, "server, outcome"), "{{server}} {{outcome}}")],
            "reqps",
        ),
        graph(
            "Time of requests by method, p95",
            "From a request's arrival to its answer.",
            [
                (
                    _SERVERS.quantile(0.95, "ropewalk_mcp_stdio_request_duration_seconds", "server, method"),
                    "{{server}} {{method}}",
                )
            ],
            "s",
        ),
        graph(
            "In flight and queued",
            "Requests that the programs work on, and that wait for their turn.",
            [
                (_SERVERS.sum("ropewalk_mcp_stdio_in_flight", "server"), "{{server}} in flight"),
                (_SERVERS.sum("ropewalk_mcp_stdio_queued", "server"), "{{server}} queued"),
            ],
        ),
        graph(
            "Programs and sessions",
            "Child processes that run, and sessions that are open.",
            [
                (children, "{{server}} programs"),
                (_SERVERS.sum("ropewalk_mcp_stdio_sessions", "server"), "{{server}} sessions"),
            ],
        ),
        graph(
            "Restarts by reason, last 15 minutes",
            "Programs that were started again: crashed, hung, or start_failed.",
            [
                (
                    or_zero(
                        "sum by (server, reason) (increase("
                        f"{_SERVERS.of('ropewalk_mcp_stdio_child_restarts_total')}[15m]))",
                        children,
                    ),
                    "{{server}} {{reason}}",
                )
            ],
        ),
        graph(
            "Messages that no client could be named for",
            "A program's messages, each minute, that were not passed on because it is not certain whose they are.",
            [
                (
                    or_zero(f"60 * {_SERVERS.rate('ropewalk_mcp_stdio_unrouted_total', 'server, kind')}", children),
                    "{{server}} {{kind}}",
                )
            ],
            "opm",
        ),
    ]
