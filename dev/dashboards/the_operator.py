"""The dashboard Operator: whether it keeps up, what it asks of the API server, and what is not ready."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.panels import NO_LEADER, OTHER_LEADERS, Panels, choice, graph, new_board, stat_panel, table_panel
from dashboards.pods import of_pods
from dashboards.queries import LEADING, Series, or_none, share

_OPERATOR = Series('namespace=~"$operator_namespace", job="ropewalk-operator"')
_RESOURCES = Series('job="ropewalk-operator"')
_PODS = _OPERATOR.of("ropewalk_operator_leader")
_RECONCILES = "ropewalk_operator_reconcile_total"
_DURATION = "ropewalk_operator_reconcile_duration_seconds"
_API = "ropewalk_operator_api_requests_total"
_CONDITION = "ropewalk_resource_condition"
_RESOURCE = "kind, namespace, name"


def board() -> Dashboard:
    """Build it."""
    return new_board(
        "ropewalk-operator",
        "Ropewalk / Operator",
        "The operator: reconciles, its queue and watches, the API server's answers, and the state of all resources.",
        [
            choice(
                "operator_namespace",
                "Namespace of the operator",
                "label_values(ropewalk_operator_workqueue_depth, namespace)",
            )
        ],
        [("Now", _now()), ("Reconciling", _reconciling()), ("Kubernetes", _kubernetes()), ("Pods", of_pods(_OPERATOR))],
    )


def _now() -> Panels:
    return [
        stat_panel(
            "Leaders",
            "Operators that write now, of each Deployment of them. It should be 1: none means that nothing is"
            " reconciled, two must never be.",
            f"sum by (namespace, operator) ({_OPERATOR.of_operators('ropewalk_operator_leader')}) or on () vector(0)",
            one_each="{{namespace}}/{{operator}}",
        ),
        stat_panel("Reconciles", "Reconciles each second.", or_none(_OPERATOR.rate(_RECONCILES), _PODS), "ops"),
        stat_panel(
            "Failed",
            "Share of reconciles that ended in an error and are tried again.",
            share(_OPERATOR.rate(_RECONCILES, more='result="error"'), _OPERATOR.rate(_RECONCILES), _PODS),
            "percentunit",
            warn=0.01,
            bad=0.1,
        ),
        stat_panel(
            "Waiting",
            "Resources that wait for a worker of the leader.",
            f"max({_OPERATOR.of('ropewalk_operator_workqueue_depth')} unless on (namespace, pod) {_PODS} == 0)",
            warn=100,
            missing=NO_LEADER,
        ),
        stat_panel(
            "Quietest watch",
            "Time since the watch that has been silent for longest gave a sign of life; four minutes are normal.",
            f"max({_OPERATOR.of('ropewalk_operator_last_watch_event_age_seconds')})",
            "s",
            warn=300,
            bad=480,
        ),
        stat_panel(
            "Namespaces left out",
            "Of the operator's watchNamespaces, those that are gone or forbidden to it; its log names them.",
            f"max({_OPERATOR.of('ropewalk_operator_namespaces_left_out')})",
            warn=1,
        ),
        stat_panel(
            "Resources not ready",
            "Agents, MCPServers and Models whose condition Ready is not True, in all namespaces, without"
            f" those that are suspended or scaled to 0. {OTHER_LEADERS}",
            or_none(f"count({_RESOURCES.not_ready(_RESOURCE)})", LEADING),
            warn=1,
            missing=NO_LEADER,
        ),
    ]


def _reconciling() -> Panels:
    return [
        graph(
            "Reconciles by kind and result",
            "An error is tried again with growing pauses; the log has it.",
            [(_OPERATOR.rate(_RECONCILES, "kind, result"), "{{kind}} {{result}}")],
            "ops",
        ),
        graph(
            "Time of reconciles",
            "Reads from memory, so it is mostly the API server's time to write.",
            [(_OPERATOR.quantile(q, _DURATION), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)],
            "s",
        ),
        graph(
            "Time of reconciles by kind, p95",
            "By kind of resource.",
            [(_OPERATOR.quantile(0.95, _DURATION, "kind"), "{{kind}}")],
            "s",
        ),
        graph(
            "Queue",
            "Resources that wait for a worker. A standby has none: it queues nothing before it leads.",
            [(_OPERATOR.of("ropewalk_operator_workqueue_depth"), "{{pod}}")],
        ),
        graph(
            "Retries",
            "Reconciles each minute that are to be tried again after an error.",
            [(or_none(f"60 * {_OPERATOR.rate('ropewalk_operator_workqueue_retries_total', 'pod')}", _PODS), "{{pod}}")],
            "opm",
        ),
        graph(
            "Resources by condition",
            "How many have each condition True, in all namespaces.",
            [
                (
                    f"sum by (kind, condition) (max by ({_RESOURCE}, condition) ({_RESOURCES.of(_CONDITION)}))",
                    "{{kind}} {{condition}}",
                )
            ],
        ),
        table_panel(
            "Resources",
            "Conditions of each Agent, MCPServer and Model: 1 where it is True. kubectl describe tells why not.",
            [
                (
                    heading,
                    _RESOURCES.condition(heading, _RESOURCE),
                    "short",
                )
                for heading in ("Ready", "Accepted", "Available", "ToolsReady", "ToolsDiscovered")
            ],
            ["kind", "namespace", "name"],
        ),
    ]


def _kubernetes() -> Panels:
    return [
        graph(
            "Requests to the API server",
            "By verb and status code; code 0 means that no answer came.",
            [(_OPERATOR.rate(_API, "verb, code"), "{{verb}} {{code}}")],
            "reqps",
        ),
        graph(
            "Requests that failed",
            "Answers 4xx and 5xx, and none at all. 409 is a conflict that is tried again.",
            [(or_none(_OPERATOR.rate(_API, "verb, code", 'code!~"2.."'), _PODS), "{{verb}} {{code}}")],
            "reqps",
        ),
        graph(
            "Silence of watches",
            "Time since each watch gave a sign of life. A new one begins every four minutes.",
            [(f"max by (kind) ({_OPERATOR.of('ropewalk_operator_last_watch_event_age_seconds')})", "{{kind}}")],
            "s",
        ),
    ]
