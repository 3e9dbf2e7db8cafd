"""PromQL by the few shapes that the panels need. Knows no Grafana but its variables, and no panel."""

from __future__ import annotations

from dataclasses import dataclass

DURATION = "ropewalk_agent_request_duration_seconds"
NO_BATCH = 'endpoint!="/batch"'
"""Of latency: a batch takes as long as its items together. The alert leaves them out as well."""
WINDOW = "[$__rate_interval]"
FAILED = 'outcome=~"internal|invalid_answer|model_error|not_ready|queue_full|timeout"'
"""Outcomes of requests that are the service's fault: not the client's, and no limit that was asked for."""
PRICE = "ropewalk:model_price_per_million_tokens"
"""What monitoring.prices becomes, as a recording rule with the labels gen_ai_request_model and direction."""
MODEL = "gen_ai_request_model"
LEADING = 'ropewalk_operator_leader{job="ropewalk-operator"} == 1'
"""The operators that say how resources are: any that leads, as each tells of its own namespaces."""


@dataclass(frozen=True)
class Series:
    """The series that a dashboard's variables choose: matchers that every query of theirs has."""

    chosen: str

    def of(self, metric: str, more: str = "") -> str:
        """The metric as it is."""
        return f"{metric}{{{', '.join(part for part in (self.chosen, more) if part)}}}"

    def rate(self, metric: str, by: str = "", more: str = "") -> str:
        """How often something happens in a second, summed."""
        return f"{_sum(by)} (rate({self.of(metric, more)}{WINDOW}))"

    def requests(self, by: str = "", more: str = "") -> str:
        """Requests in a second: an item of a batch is one, and the batch only where it was refused as a whole."""
        whole, refused = "ropewalk_agent_requests_total", 'endpoint="/batch", outcome!="ok"'
        parts = [(whole, NO_BATCH), (whole, refused), ("ropewalk_agent_batch_items_total", "")]
        rates = [f"rate({self.of(metric, ', '.join(filter(None, (own, more))))}{WINDOW})" for metric, own in parts]
        return f"{_sum(by)} ({' or '.join(rates)})"

    def sum(self, metric: str, by: str = "", more: str = "") -> str:
        """A state, summed over pods."""
        return f"{_sum(by)} ({self.of(metric, more)})"

    def quantile(self, q: float, histogram: str, by: str = "", more: str = "") -> str:
        """A quantile of a histogram's values; nothing where it counted none, for which Prometheus has NaN."""
        labels = f"{by}, le" if by else "le"
        return f"histogram_quantile({q}, {_sum(labels)} (rate({self.of(f'{histogram}_bucket', more)}{WINDOW}))) >= 0"

    def restarts(self, window: str, by: str) -> str:
        """How often containers were started again: the start time of their process changes."""
        return f"{_sum(by)} (changes({self.of('process_start_time_seconds')}[{window}]))"

    def of_operators(self, metric: str) -> str:
        """The metric of operators with the label `operator`: their Deployment's name, which begins their pods'."""
        return f'label_replace({self.of(metric)}, "operator", "$1", "pod", "(.+)-[^-]+-[^-]+")'

    def condition(self, kind: str, by: str = "namespace, name") -> str:
        """Whether a condition of resources is True, as the operator that leads says."""
        matcher = f'condition="{kind}"'
        return f"max by ({by}) ({self.of('ropewalk_resource_condition', matcher)})"

    def not_ready(self, by: str = "namespace, name") -> str:
        """The resources that are not Ready, but for those of which nobody wants pods."""
        return f"({self.condition('Ready', by)} == 0 unless {self._idle(by)})"

    def ready(self, own: str) -> str:
        """Whether resources are Ready that somebody wants pods of, by the label `own` that their pods' series have."""
        ready = f"{self.condition('Ready')} unless {self._idle('namespace, name')}"
        return f'max by (namespace, {own}) (label_replace({ready}, "{own}", "$1", "name", "(.+)"))'

    def cost_per_hour(self, by: str) -> str:
        """What an hour of the tokens of now costs, by labels among which is the model's; see `cost_of`."""
        return f"{self._cost('rate', WINDOW, by)} * 3600"

    def cost_of(self, window: str, by: str) -> str:
        """What the tokens of a time cost where their model has a price, in the prices' currency."""
        return self._cost("increase", f"[{window}]", by)

    def _idle(self, by: str) -> str:
        return f"max by ({by}) ({self.of('ropewalk_resource_idle')}) == 1"

    def _cost(self, function: str, window: str, by: str) -> str:
        spent = [
            f"sum by ({by}) ({function}({self.of(f'gen_ai_client_inference_usage_{way}_tokens_total')}{window}))"
            f' * on ({MODEL}) group_left () max by ({MODEL}) ({PRICE}{{direction="{way}"}})'
            for way in ("input", "output")
        ]
        return f"({' + '.join(spent)}) / 1e6"


@dataclass(frozen=True)
class Choice:
    """Resources of a kind that can be chosen: those of which the operator tells, and those of which no pod runs; and
    those that pods tell of by a label of a metric, as they do while no operator is scraped.
    """

    kind: str
    metric: str
    label: str

    @property
    def namespaces(self) -> str:
        """Grafana's query for the namespaces that have some."""
        return f"label_values({self._series()}, namespace)"

    @property
    def names(self) -> str:
        """Grafana's query for series that tell of those in the chosen namespaces; `name` is the part that is shown."""
        return self._series(', namespace=~"$namespace"')

    @property
    def name(self) -> str:
        """Where the name stands in a series, which Grafana writes with its labels in braces."""
        return f'/[{{,](?:name|{self.label})="([^"]+)"/'

    def _series(self, more: str = "") -> str:
        # What pods tell has neither label.
        told = f'kind=~"{self.kind}|", condition=~"Ready|"'
        return f'{{__name__=~"ropewalk_resource_condition|{self.metric}", {told}{more}}}'


AGENTS = Choice("Agent", "ropewalk_agent_build_info", "agent")
MCP_SERVERS = Choice("MCPServer", "ropewalk_agent_mcp_server_up", "server")


def share(part: str, whole: str, among: str) -> str:
    """A part of a whole; 0 while there is nothing at all, and nothing where none of the series `among` is there."""
    return or_none(f"({part} or vector(0)) / (({whole}) > 0)", among)


def or_none(expression: str, among: str) -> str:
    """0 where nothing was ever counted, and nothing where none of the series `among` is there, which would tell."""
    return f"{expression} or on () 0 * count({among})"


def or_zero(expression: str, present: str) -> str:
    """A line at 0 for each of `present` that has none of its own: what never happened is not missing."""
    return f"{expression} or 0 * {present}"


def top(expression: str, count: int = 10) -> str:
    """The highest lines, where there may be a thousand."""
    return f"topk({count}, {expression})"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
