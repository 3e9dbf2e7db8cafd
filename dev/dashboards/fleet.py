"""The dashboard Fleet: all agents together, and which of them needs a look."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.panels import (
    NO_LEADER,
    NO_PRICES,
    OTHER_LEADERS,
    Panels,
    choice,
    graph,
    new_board,
    stat_panel,
    table_panel,
)
from dashboards.queries import (
    AGENTS,
    DURATION,
    FAILED,
    LEADING,
    MODEL,
    NO_BATCH,
    PRICE,
    Series,
    or_none,
    or_zero,
    top,
)
from dashboards.requests import of_requests

_AGENTS = Series('namespace=~"$namespace", agent=~"$agent"')
_NAMES = Series('namespace=~"$namespace", name=~"$agent", kind="Agent"')
_EACH = "namespace, agent"
_LEGEND = "{{namespace}}/{{agent}}"
_PODS = _AGENTS.of("ropewalk_agent_build_info")
_UP = _AGENTS.sum("ropewalk_agent_build_info", _EACH)
_CONNECTIONS = _AGENTS.of("ropewalk_agent_mcp_server_up")
_TOKENS = "gen_ai_client_inference_usage_{way}_tokens_total"
_ONE_AGENT = (
    "/d/ropewalk-agent?var-datasource=${datasource}&var-namespace=${__data.fields.namespace}"
    "&var-agent=${__data.fields.agent}&${__url_time_range}"
)


def board() -> Dashboard:
    """Build it."""
    return new_board(
        "ropewalk-fleet",
        "Ropewalk / Fleet",
        "All agents: requests, failures, latency, queues, tokens and what they cost, restarts.",
        [
            choice("namespace", "Namespace", AGENTS.namespaces),
            choice("agent", "Agent", AGENTS.names, AGENTS.name),
        ],
        [("Now", _now()), ("Traffic", _traffic()), ("Load", _load()), ("Models", _models()), ("Agents", _agents())],
    )


def _now() -> Panels:
    return [
        *of_requests(_AGENTS, _PODS),
        stat_panel(
            "Agents not ready",
            "Agents whose condition Ready is not True, as the operator says, without those that are suspended or scaled"
            f" to 0. The table below names them. {OTHER_LEADERS}",
            or_none(f"count({_NAMES.not_ready()})", LEADING),
            warn=1,
            missing=NO_LEADER,
        ),
        stat_panel(
            "MCP connections down",
            "Connections of agents' pods to MCP servers that are down now.",
            or_none(f"count({_CONNECTIONS} == 0)", _CONNECTIONS),
            warn=1,
        ),
        stat_panel(
            "Restarts",
            "Containers of agents that were started again in the time that is shown. Counted from the start times of"
            " the processes; a pod that is replaced by a rollout is none.",
            or_none(_AGENTS.restarts("$__range", ""), _PODS),
            warn=1,
            bad=5,
        ),
    ]


def _traffic() -> Panels:
    return [
        graph(
            "Requests by agent",
            "The ten busiest agents at each moment.",
            [(top(_AGENTS.requests(_EACH)), _LEGEND)],
            "reqps",
        ),
        graph(
            "Failures by agent",
            "Requests that failed by the service's fault, of the ten agents with most of them.",
            [(top(or_zero(_AGENTS.requests(_EACH, FAILED), _UP)), _LEGEND)],
            "reqps",
        ),
        graph(
            "Requests by outcome",
            "ok, or why not: queue_full means that concurrency and queue are too small for the load, timeout that"
            " limits.requestTimeoutSeconds was not enough, model_error that the provider failed.",
            [(_AGENTS.requests("outcome"), "{{outcome}}")],
            "reqps",
        ),
        graph(
            "Latency",
            "Time from the arrival of a request to the end of its answer, of all agents together, without batches.",
            [(_AGENTS.quantile(q, DURATION, more=NO_BATCH), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)],
            "s",
        ),
        graph(
            "Latency by agent, p95",
            "The ten slowest agents at each moment, without batches.",
            [(top(_AGENTS.quantile(0.95, DURATION, _EACH, NO_BATCH)), _LEGEND)],
            "s",
        ),
        graph(
            "Model calls by model, p95",
            "Time of single calls of the model. A request may need several.",
            [(_AGENTS.quantile(0.95, "gen_ai_client_inference_duration_seconds", MODEL), f"{{{{{MODEL}}}}}")],
            "s",
        ),
    ]


def _load() -> Panels:
    return [
        graph(
            "Queue depth by agent",
            "Requests that wait, of the ten agents with most of them. The bound is spec.queue.maxLength for each pod.",
            [(top(_AGENTS.sum("ropewalk_agent_queue_depth", _EACH)), _LEGEND)],
        ),
        graph(
            "Time in the queue",
            "How long requests waited before work on them began.",
            [(_AGENTS.quantile(q, "ropewalk_agent_queue_wait_seconds"), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)],
            "s",
        ),
        graph(
            "In flight by agent",
            "Requests that are worked on, of the ten busiest agents. The bound is spec.concurrency for each pod.",
            [(top(_AGENTS.sum("ropewalk_agent_requests_in_flight", _EACH)), _LEGEND)],
        ),
    ]


def _models() -> Panels:
    calls = "gen_ai_client_inference_duration_seconds_count"
    # A fallback that was never asked has a series, too.
    used = f"({_AGENTS.sum(_TOKENS.format(way='input'), MODEL)} > 0)"
    priced = f"max by ({MODEL}) ({PRICE})"
    return [
        stat_panel("Model calls", "Calls of models each second.", or_none(_AGENTS.rate(calls), _PODS), "reqps"),
        stat_panel(
            "Cost per hour",
            "What the tokens of now would cost in an hour, by monitoring.prices and in their currency. Tokens of models"
            " without a price are not in it.",
            f"sum({_AGENTS.cost_per_hour(MODEL)})",
            missing=NO_PRICES,
        ),
        stat_panel(
            "Cost",
            "What the tokens of the time that is shown cost, by monitoring.prices.",
            f"sum({_AGENTS.cost_of('$__range', MODEL)})",
            missing=NO_PRICES,
        ),
        stat_panel(
            "Models without a price",
            "Models that took tokens since their agents started and have no price in monitoring.prices: the cost is"
            " without them.",
            or_none(f"count({used} unless on ({MODEL}) {priced})", _PODS),
            warn=1,
        ),
        stat_panel(
            "Fallbacks",
            "Calls each minute that one model failed and the next one was asked.",
            or_none(f"60 * {_AGENTS.rate('ropewalk_agent_model_fallbacks_total')}", _PODS),
            "opm",
            warn=0.1,
        ),
        stat_panel(
            "Pods",
            "Pods of agents that Prometheus sees.",
            f"count({_PODS}) or vector(0)",
        ),
        graph(
            "Tokens by model",
            "Tokens each second, as the models count them.",
            [
                (_AGENTS.rate(_TOKENS.format(way=way), MODEL), f"{{{{{MODEL}}}}} {heading}")
                for way, heading in (("input", "in"), ("output", "out"))
            ],
            "short",
        ),
        graph(
            "Cost per hour by model",
            "By monitoring.prices, in their currency. Models without a price are left out.",
            [(_AGENTS.cost_per_hour(MODEL), f"{{{{{MODEL}}}}}")],
            missing=NO_PRICES,
        ),
        graph(
            "Cost per hour by agent",
            "The ten most expensive agents, by monitoring.prices.",
            [(top(f"sum by ({_EACH}) ({_AGENTS.cost_per_hour(f'{_EACH}, {MODEL}')})"), _LEGEND)],
            missing=NO_PRICES,
        ),
    ]


def _agents() -> Panels:
    failed = or_zero(_AGENTS.requests(_EACH, FAILED), _UP)
    tokens = " + ".join(
        f"({or_zero(_AGENTS.rate(_TOKENS.format(way=way), _EACH), _UP)})" for way in ("input", "output")
    )
    return [
        table_panel(
            "Agents",
            "Each agent: whether it is Ready (1; nothing where it is suspended or scaled to 0), pods, requests,"
            " the share that failed, latency, what waits, tokens, restarts in the time that is shown. Its name leads"
            " to the agent's own dashboard.",
            [
                ("Ready", _NAMES.ready("agent"), "short"),
                ("Pods", f"count by ({_EACH}) ({_PODS})", "short"),
                ("Requests", or_zero(_AGENTS.requests(_EACH), _UP), "reqps"),
                ("Failed", f"({failed}) / ({_AGENTS.requests(_EACH)} > 0)", "percentunit"),
                ("p95", _AGENTS.quantile(0.95, DURATION, _EACH, NO_BATCH), "s"),
                ("Waiting", _AGENTS.sum("ropewalk_agent_queue_depth", _EACH), "short"),
                ("Tokens a second", tokens, "short"),
                ("Restarts", _AGENTS.restarts("$__range", _EACH), "short"),
            ],
            ["namespace", "agent"],
            link=_ONE_AGENT,
        ),
        graph(
            "Restarts by agent, last 15 minutes",
            "Containers that were started again, of the ten agents with most of them.",
            [(top(_AGENTS.restarts("15m", _EACH)), _LEGEND)],
        ),
        graph(
            "Memory by agent",
            "Resident memory of the largest pod of each, of the ten largest agents.",
            [(top(f"max by ({_EACH}) ({_AGENTS.of('process_resident_memory_bytes')})"), _LEGEND)],
            "bytes",
        ),
        graph(
            "CPU by agent",
            "CPU cores that the pods of an agent use, of the ten that use most.",
            [(top(_AGENTS.rate("process_cpu_seconds_total", _EACH)), _LEGEND)],
        ),
    ]
