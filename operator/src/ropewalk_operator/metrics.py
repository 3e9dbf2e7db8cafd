"""The operator's Prometheus metrics.

Labels are bounded by the number of resources; what can be read when asked is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ropewalk_operator.cache import Cache
from ropewalk_operator.changes import NO_PODS_WANTED
from ropewalk_operator.kinds import Key
from ropewalk_operator.workqueue import WorkQueue

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One for the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            "ropewalk_operator_reconcile",
            "Reconciles by kind and result (ok, error).",
            ["kind", "result"],
            registry=self.registry,
        )
        self.durations = Histogram(
            "ropewalk_operator_reconcile_duration_seconds",
            "Time of a reconcile.",
            ["kind"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "ropewalk_operator_api_requests",
            "Requests to the API server by verb and status code (0: no answer).",
            ["verb", "code"],
            registry=self.registry,
        )

    def api_request(self, verb: str, code: int) -> None:
        """A request has been answered, or not (code 0)."""
        self.requests.labels(verb, str(code)).inc()

    def reconciled(self, key: Key, seconds: float, *, ok: bool) -> None:
        """A reconcile is over."""
        self.reconciles.labels(key.kind, "ok" if ok else "error").inc()
        self.durations.labels(key.kind).observe(seconds)

    def read_at_scrape(
        self,
        cache: Cache,
        queue: WorkQueue[Key],
        watch_ages: Callable[[], dict[str, float]],
        is_leader: Callable[[], bool],
    ) -> None:
        """Show what cache, queue, watches and election say at the moment of each scrape."""
        self.registry.register(_World(cache, queue, watch_ages, is_leader))

    def text(self) -> bytes:
        """All metrics in the OpenMetrics format."""
        return bytes(generate_latest(self.registry))  # type: ignore[no-untyped-call]


@dataclass(eq=False)
class _World(Collector):
    cache: Cache
    queue: WorkQueue[Key]
    watch_ages: Callable[[], dict[str, float]]
    is_leader: Callable[[], bool]

    def collect(self) -> Iterable[Metric]:
        leader = GaugeMetricFamily("ropewalk_operator_leader", "1 where this process may write, 0 where it stands by.")
        leader.add_metric([], float(self.is_leader()))
        yield leader
        depth = GaugeMetricFamily("ropewalk_operator_workqueue_depth", "Resources that wait for a worker.")
        depth.add_metric([], self.queue.depth)
        yield depth
        retries = CounterMetricFamily(
            "ropewalk_operator_workqueue_retries", "Reconciles that are to be tried again after an error."
        )
        retries.add_metric([], self.queue.retries)
        yield retries
        left_out = GaugeMetricFamily(
            "ropewalk_operator_namespaces_left_out", "Namespaces that are to be watched, and where that is forbidden."
        )
        left_out.add_metric([], len(self.cache.left_out))
        yield left_out
        ages = GaugeMetricFamily(
            "ropewalk_operator_last_watch_event_age_seconds",
            "Time since a watch last gave a sign of life.",
            labels=["kind"],
        )
        for kind, age in self.watch_ages().items():
            ages.add_metric([kind], age)
        yield ages
        conditions = GaugeMetricFamily(
            "ropewalk_resource_condition",
            "1 where the condition is True, 0 where it is not.",
            labels=["kind", "namespace", "name", "condition"],
        )
        idle = GaugeMetricFamily(
            "ropewalk_resource_idle",
            "1 where no pods are wanted: it is suspended or scaled to 0.",
            labels=["kind", "namespace", "name"],
        )
        # Of the leader only: the same resources twice would be counted twice.
        # A copy: the scrape has a thread of its own.
        for key, body in list(self.cache.resources.items()) if self.is_leader() else ():
            if key.namespace in self.cache.left_out:
                # An answer that was under way when it was left out, or a listing where no watch is allowed.
                continue
            for condition in (body.get("status") or {}).get("conditions") or ():
                conditions.add_metric([*key, condition["type"]], float(condition["status"] == "True"))
                if condition["type"] == "Ready":
                    idle.add_metric([*key], float(condition.get("reason") in NO_PODS_WANTED))
        yield conditions
        yield idle
