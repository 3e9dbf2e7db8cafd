"""The dashboard Agent: one agent in depth."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.panels import NO_PRICES, Panels, choice, graph, new_board, stat_panel, states
from dashboards.pods import of_pods
from dashboards.queries import AGENTS, DURATION, MODEL, NO_BATCH, Series, or_none, or_zero
from dashboards.requests import of_requests

_AGENT = Series('namespace=~"$namespace", agent=~"$agent"')
_NAME = Series('namespace=~"$namespace", name=~"$agent", kind="Agent"')
_PODS = _AGENT.of("ropewalk_agent_build_info")
_CALLS = "ropewalk_agent_tool_calls_total"
_UP = "ropewalk_agent_mcp_server_up"
_TOKENS = "gen_ai_client_inference_usage_{way}_tokens_total"
_QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def board() -> Dashboard:
    """Build it."""
    return new_board(
        "ropewalk-agent",
        "Ropewalk / Agent",
        "One agent: its requests with exemplars that lead to traces, its model, sessions, tools, MCP servers and pods.",
        [
            choice("namespace", "Namespace", AGENTS.namespaces, many=False),
            choice("agent", "Agent", AGENTS.names, AGENTS.name, many=False),
        ],
        [
            ("Now", _now()),
            ("Requests", _requests()),
            ("Model", _model()),
            ("Sessions", _sessions()),
            ("Tools", _tools()),
            ("MCP servers", _servers()),
            ("Pods", _pods()),
        ],
    )


def _now() -> Panels:
    return [
        *of_requests(_AGENT, _PODS),
        stat_panel(
            "Waiting",
            "Requests in the queues of its pods now.",
            _AGENT.sum("ropewalk_agent_queue_depth"),
            warn=10,
        ),
        stat_panel(
            "Pods",
            "Pods of the agent that Prometheus sees.",
            f"count({_PODS}) or vector(0)",
        ),
        stat_panel(
            "Restarts",
            "Containers that were started again in the time that is shown; a pod that a rollout replaces is none.",
            or_none(_AGENT.restarts("$__range", ""), _PODS),
            warn=1,
            bad=5,
        ),
    ]


def _requests() -> Panels:
    return [
        graph(
            "Requests by outcome",
            "ok, or why not: queue_full means that concurrency and queue are too small for the load, timeout that"
            " limits.requestTimeoutSeconds was not enough.",
            [(_AGENT.requests("outcome"), "{{outcome}}")],
            "reqps",
        ),
        graph(
            "Latency",
            "Time from the arrival of a request to the end of its answer, without batches. A dot is an exemplar:"
            " it leads to the trace of one request, where the agent sends traces and the data source knows where they"
            " are.",
            [(_AGENT.quantile(q, DURATION, more=NO_BATCH), legend) for q, legend in _QUANTILES],
            "s",
            exemplars=True,
        ),
        graph(
            "Latency by endpoint, p95",
            "Each protocol has an endpoint of its own.",
            [(_AGENT.quantile(0.95, DURATION, "endpoint"), "{{endpoint}}")],
            "s",
        ),
        graph(
            "Requests by endpoint",
            "Each protocol has an endpoint of its own.",
            [(_AGENT.rate("ropewalk_agent_requests_total", "endpoint"), "{{endpoint}}")],
            "reqps",
        ),
        graph(
            "In flight and waiting",
            "Requests that are worked on (the bound is spec.concurrency for each pod) and that wait"
            " (spec.queue.maxLength).",
            [
                (_AGENT.sum("ropewalk_agent_requests_in_flight"), "in flight"),
                (_AGENT.sum("ropewalk_agent_queue_depth"), "waiting"),
            ],
        ),
        graph(
            "Time in the queue",
            "How long turns waited before work on them began.",
            [(_AGENT.quantile(q, "ropewalk_agent_queue_wait_seconds"), legend) for q, legend in _QUANTILES],
            "s",
        ),
        states(
            "Conditions",
            "What the operator says of the Agent; kubectl describe agent tells why.",
            [
                (
                    f"max by (condition) ({_NAME.of('ropewalk_resource_condition')})",
                    "{{condition}}",
                )
            ],
            "True",
            "not True",
        ),
        graph(
            "Batch items",
            "Items of POST /batch, by outcome.",
            [(or_none(_AGENT.rate("ropewalk_agent_batch_items_total", "outcome"), _PODS), "{{outcome}}")],
            "ops",
            width=12,
        ),
    ]


def _model() -> Panels:
    label = f"{{{{{MODEL}}}}}"
    return [
        graph(
            "Model calls",
            "Calls of each model that the agent names, each second. A request may need several.",
            [(_AGENT.rate("gen_ai_client_inference_duration_seconds_count", MODEL), label)],
            "reqps",
        ),
        graph(
            "Time of model calls, p95",
            "To the last chunk of the answer.",
            [(_AGENT.quantile(0.95, "gen_ai_client_inference_duration_seconds", MODEL), label)],
            "s",
        ),
        graph(
            "Time to the first chunk, p95",
            "From a call of the model to its first content.",
            [(_AGENT.quantile(0.95, "gen_ai_client_inference_time_to_first_chunk_seconds", MODEL), label)],
            "s",
        ),
        graph(
            "Tokens",
            "Tokens each second, as the models count them.",
            [
                (_AGENT.rate(_TOKENS.format(way=way), MODEL), f"{label} {heading}")
                for way, heading in (("input", "in"), ("output", "out"))
            ],
        ),
        graph(
            "Cost per hour",
            "By monitoring.prices, in their currency. Models without a price are left out.",
            [(_AGENT.cost_per_hour(MODEL), label)],
            missing=NO_PRICES,
        ),
        graph(
            "Fallbacks",
            "Calls each minute that one model failed and the next one was asked.",
            [
                (
                    or_none(
                        f"60 * {_AGENT.rate('ropewalk_agent_model_fallbacks_total', 'from_model, to_model')}", _PODS
                    ),
                    "{{from_model}} → {{to_model}}",
                )
            ],
            "opm",
        ),
    ]


def _sessions() -> Panels:
    return [
        graph(
            "Sessions",
            "Conversations that are kept; the bound is spec.sessions.maxSessions. Without Redis each pod has its"
            " own; with Redis each tells the number of all, and the bound is for all together.",
            [(_AGENT.of("ropewalk_agent_sessions"), "{{pod}}")],
            width=12,
        ),
        graph(
            "Turns",
            "How long turns took on the worker, without the queue.",
            [(_AGENT.quantile(q, "gen_ai_invoke_agent_duration_seconds"), legend) for q, legend in _QUANTILES],
            "s",
            width=12,
        ),
    ]


def _tools() -> Panels:
    each = "server, tool"
    return [
        graph(
            "Tool calls",
            "Calls each second by tool and outcome.",
            [(_AGENT.rate(_CALLS, "tool, outcome"), "{{tool}} {{outcome}}")],
            "ops",
        ),
        graph(
            "Tool calls that failed",
            "Calls with another outcome than ok: error, timeout, unavailable, cancelled, or unknown (no such tool).",
            [(or_zero(_AGENT.rate(_CALLS, each, 'outcome!="ok"'), _AGENT.rate(_CALLS, each)), "{{server}} {{tool}}")],
            "ops",
        ),
        graph(
            "Time of tool calls, p95",
            "How long single tool calls took.",
            [
                (
                    _AGENT.quantile(0.95, "gen_ai_execute_tool_duration_seconds", "gen_ai_tool_name"),
                    "{{gen_ai_tool_name}}",
                )
            ],
            "s",
        ),
    ]


def _servers() -> Panels:
    present = _AGENT.sum(_UP, "server")
    return [
        states(
            "Connections to MCP servers",
            "Whether the agent is connected to each of its servers; the worst of its pods counts. The agent's /tools"
            " says why not.",
            [(f"min by (server) ({_AGENT.of(_UP)})", "{{server}}")],
            "connected",
            "down",
        ),
        graph(
            "Time of requests to MCP servers, p95",
            "By server and method of the protocol.",
            [
                (
                    _AGENT.quantile(0.95, "mcp_client_operation_duration_seconds", "server, mcp_method_name"),
                    "{{server}} {{mcp_method_name}}",
                )
            ],
            "s",
            width=12,
        ),
        *(
            graph(title, about, [(or_zero(f"60 * {_AGENT.rate(metric, 'server')}", present), "{{server}}")], "opm")
            for title, about, metric in (
                (
                    "Reconnects",
                    "Connections each minute that were made again after a loss.",
                    "ropewalk_agent_mcp_reconnects_total",
                ),
                (
                    "Retries",
                    "Tool calls each minute that were made again, because they are safe to repeat.",
                    "ropewalk_agent_mcp_retries_total",
                ),
            )
        ),
        graph(
            "Open circuit breakers",
            "Pods that make no calls to a server, because too many failed.",
            [(or_zero(_AGENT.sum("ropewalk_agent_mcp_breaker_open", "server"), present), "{{server}}")],
        ),
    ]


def _pods() -> Panels:
    return [
        *of_pods(_AGENT),
        graph(
            "Loop lag",
            "How long each loop took, at the scrape, until it ran what it was given. A worker's lag is code of a tool"
            " that does not let others run.",
            [(f"max by (pod, loop) ({_AGENT.of('ropewalk_agent_loop_lag_seconds')})", "{{pod}} {{loop}}")],
            "s",
        ),
        graph("Threads", "Threads of the process.", [(_AGENT.of("ropewalk_agent_threads"), "{{pod}}")]),
        graph(
            "Worker stuck",
            "How long the worker has not answered; 0 when it does. /health fails when it is too long.",
            [(_AGENT.of("ropewalk_agent_worker_stuck_seconds"), "{{pod}}")],
            "s",
        ),
    ]
