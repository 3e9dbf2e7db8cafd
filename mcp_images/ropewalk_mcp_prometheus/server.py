"""The tools of the Prometheus server: what they take, what they ask, and what they answer."""

import asyncio
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from mcp_types import CallToolResult, ToolAnnotations
from prometheus_client import CollectorRegistry
from pydantic import Field

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_common.server import ToolServer, result
from ropewalk_mcp_prometheus import inventory, series
from ropewalk_mcp_prometheus.api import CACHE_SECONDS, PrometheusApi
from ropewalk_mcp_prometheus.inventory import Job, MetricList, ServerInfo
from ropewalk_mcp_prometheus.moments import rfc3339, step_seconds, unix_seconds
from ropewalk_mcp_prometheus.series import QueryAnswer
from ropewalk_mcp_upstream.client import Upstream

_MAX_SERIES = 10_000
_MAX_JOBS = 50
_MAX_NAMED = 20
# Metadata of one metric takes about 150 bytes; a server with more of them still answers.
_MAX_METADATA = 20_000

PromQL = Annotated[
    str, Field(description='PromQL, such as sum by (job) (rate(http_requests_total{code="500"}[5m]))', max_length=4_000)
]
MaxSeries = Annotated[int, Field(description="Show at most so many series", ge=1, le=200)]


class PrometheusTools:
    """The four tools, over one Prometheus."""

    def __init__(self, api: PrometheusApi, now: Callable[[], datetime]) -> None:
        self._api = api
        self._now = now

    async def query(
        self,
        *,
        query: PromQL,
        time: Annotated[
            str, Field(description="The moment: now, now-1h, 2026-01-31T10:00:00Z or Unix seconds", max_length=100)
        ] = "now",
        max_series: MaxSeries = 50,
    ) -> Annotated[CallToolResult, QueryAnswer]:
        """Ask Prometheus for values at one moment: CPU, memory, rates, errors, latency and whatever else it measures.

        list_metrics gives the names. For how values went over time use range_query.
        """
        moment = unix_seconds("time", time, self._now())
        told = await self._answer("query", {"query": _asked(query), "time": f"{moment:.3f}"}, max_series)
        told.time = rfc3339(moment)
        return result(series.text(told), told)

    async def range_query(
        self,
        *,
        query: PromQL,
        start: Annotated[
            str,
            Field(description="The beginning: now-1h, now-7d, 2026-01-31T10:00:00Z or Unix seconds", max_length=100),
        ] = "now-1h",
        end: Annotated[str, Field(description="The end, written like start", max_length=100)] = "now",
        step: Annotated[
            str,
            Field(
                description="Time between two points, such as 30s, 5m or 1h; empty: at most 60 of them", max_length=100
            ),
        ] = "",
        max_series: MaxSeries = 20,
    ) -> Annotated[CallToolResult, QueryAnswer]:
        """Ask Prometheus how values went over time: latest, first, min, max and average of each series in a range.

        Where the step gives at most 20 points, and there are at most 10 series, each point is shown too.
        """
        now = self._now()
        first, last = unix_seconds("start", start, now), unix_seconds("end", end, now)
        width = step_seconds(first, last, step)
        asked = {"query": _asked(query), "start": f"{first:.3f}", "end": f"{last:.3f}", "step": str(width)}
        told = await self._answer("query_range", asked, max_series)
        told.start, told.end, told.step_seconds = rfc3339(first), rfc3339(last), width
        return result(series.text(told), told)

    async def _answer(self, path: str, asked: dict[str, str], most: int) -> QueryAnswer:
        # Newer servers send no more than that, and say so in a warning; older ones take no notice.
        envelope = await self._api.ask(path, {**asked, "limit": str(_MAX_SERIES)})
        try:
            return series.answer(envelope, most)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._api.unreadable() from None

    async def list_metrics(
        self,
        *,
        contains: Annotated[
            str, Field(description="Only names with this in them, such as memory; empty: all", max_length=100)
        ] = "",
        job: Annotated[str, Field(description="Only metrics of this job", max_length=200)] = "",
        limit: Annotated[int, Field(description="Show at most so many", ge=1, le=500)] = 100,
    ) -> Annotated[CallToolResult, MetricList]:
        """List the metrics that Prometheus has, with type and meaning: the names to use in query and range_query."""
        matcher = {"match[]": series.selector({"job": job})} if job else {}
        # Both at once: one after the other they could take all the time that an agent waits for a tool.
        names, (metadata, notes) = await asyncio.gather(
            self._api.ask("label/__name__/values", matcher, CACHE_SECONDS), self._metadata()
        )
        try:
            found = sorted(name for name in map(str, names["data"]) if contains.lower() in name.lower())
            told = MetricList(
                metrics=inventory.metrics(found[:limit], metadata),
                total=len(found),
                left_out=max(len(found) - limit, 0),
                warnings=series.remarks(names),
                notes=notes or None,
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._api.unreadable() from None
        return result(inventory.metrics_text(told), told)

    async def _metadata(self) -> tuple[dict[str, Any], list[str]]:
        try:
            asked = {"limit_per_metric": "1", "limit": str(_MAX_METADATA)}
            return (await self._api.ask("metadata", asked, CACHE_SECONDS))["data"], []
        except CodedError as error:
            # The names alone are worth having; some servers of the same API keep no metadata.
            return {}, [f"types and meanings are missing: {error}"]

    async def server_info(self) -> Annotated[CallToolResult, ServerInfo]:
        """Show the Prometheus itself: version, retention, targets that it scrapes, which are down, alerts that fire."""
        asked = {
            "buildinfo": self._api.ask("status/buildinfo", {}),
            "runtimeinfo": self._api.ask("status/runtimeinfo", {}),
            "tsdb": self._api.ask("status/tsdb", {}),
            "targets": self._api.ask("query", {"query": "count by (job, instance) (up == 0)"}),
            "jobs": self._api.ask("query", {"query": "sum by (job) (up)"}),
            "counts": self._api.ask("query", {"query": "count by (job) (up)"}),
            "alerts": self._api.ask("query", {"query": 'count by (alertname) (ALERTS{alertstate="firing"})'}),
        }
        answers = dict(zip(asked, await asyncio.gather(*asked.values(), return_exceptions=True), strict=True))
        refused = {what: answer for what, answer in answers.items() if isinstance(answer, BaseException)}
        for error in refused.values():
            # Some servers of the same API do not have every question; that must not cost the rest.
            if not isinstance(error, CodedError) or error.code != "NOT_FOUND" or len(refused) == len(asked):
                raise error
        found = {what: answer["data"] for what, answer in answers.items() if not isinstance(answer, BaseException)}
        try:
            told = _info(found)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._api.unreadable() from None
        told.notes = [f"{what} cannot be asked of this server" for what in refused] or None
        return result(inventory.info_text(told), told)


def _asked(query: str) -> str:
    if not query.strip():
        raise CodedError("INVALID_INPUT", "query is empty; use PromQL, such as up")
    return query


def _info(found: dict[str, Any]) -> ServerInfo:
    runtime, told = found.get("runtimeinfo", {}), ServerInfo()
    told.version = found.get("buildinfo", {}).get("version")
    told.started, told.retention = runtime.get("startTime"), runtime.get("storageRetention")
    told.config_reloaded = runtime.get("reloadConfigSuccess")
    told.series = found.get("tsdb", {}).get("headStats", {}).get("numSeries")
    if "jobs" in found and "counts" in found:
        up = _by_label(found["jobs"], "job")
        jobs = [
            Job(job=job, up=up.get(job, 0), down=n - up.get(job, 0))
            for job, n in _by_label(found["counts"], "job").items()
        ]
        jobs.sort(key=lambda job: (-job.down, job.job))
        told.targets_up, told.targets_down = sum(job.up for job in jobs), sum(job.down for job in jobs)
        told.jobs, told.jobs_left_out = jobs[:_MAX_JOBS], max(len(jobs) - _MAX_JOBS, 0) or None
    if "targets" in found:
        labels = [item["metric"] for item in _vector(found["targets"])]
        told.down = sorted(f"{each.get('job', '')}/{each.get('instance', '')}" for each in labels)[:_MAX_NAMED]
    if "alerts" in found:
        told.alerts = sorted(_by_label(found["alerts"], "alertname"))[:_MAX_NAMED]
    return told


def _by_label(data: dict[str, Any], label: str) -> dict[str, int]:
    return {str(item["metric"].get(label, "")): int(float(item["value"][1])) for item in _vector(data)}


def _vector(data: dict[str, Any]) -> list[dict[str, Any]]:
    if data["resultType"] != "vector":
        raise ValueError(f"a {data['resultType']} is no vector")
    return list(data["result"])


def prometheus_server(tools: PrometheusTools, upstream: Upstream, registry: CollectorRegistry) -> ToolServer:
    """Return the server with its four tools."""
    instructions = "Measurements of systems, by a Prometheus: values now and over time. It only reads."
    server = ToolServer("ropewalk-prometheus", instructions, registry, upstream.lifespan)
    hints = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for tool in (tools.query, tools.range_query, tools.list_metrics, tools.server_info):
        server.add_tool(tool, description=inspect.getdoc(tool), annotations=hints)
    return server
