"""Traces by OTLP over HTTP where the environment names a collector; otherwise nothing is made, kept or imported.

The exporter works in a thread of its own, from a queue that drops what it cannot hold: an unreachable collector costs
spans, never time. It is the OpenTelemetry SDK's and takes its standard variables (docs/reference/observability.md).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ropewalk_agent import __version__
from ropewalk_agent.config import AgentConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from ropewalk_agent.spans import Handle

_log = logging.getLogger("ropewalk.tracing")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"
_WARNING_SECONDS = 60.0
_NOISY = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a collector for traces and does not switch them off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter in ("", "otlp") and any(environment.get(name, "").strip() for name in _ENDPOINTS)


def start(environment: Mapping[str, str], config: AgentConfig) -> "Tracing | None":
    """Return the agent's traces where the environment wants any."""
    return Tracing(environment, config) if is_wanted(environment) else None


def log_fields(environment: Mapping[str, str]) -> Callable[[], dict[str, str]]:
    """Return what gives log lines the ids of their trace; nothing where no traces are wanted."""
    if not is_wanted(environment):
        return dict
    from ropewalk_agent import spans

    return spans.ids


class Tracing:
    """The traces of one agent. Make it only where `is_wanted`: it imports the SDK and starts the exporter's thread."""

    def __init__(self, environment: Mapping[str, str], config: AgentConfig) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from ropewalk_agent.spans import Source

        for name in _PROTOCOLS:
            if environment.get(name, _SPOKEN) != _SPOKEN:
                _log.warning("traces are sent by http/protobuf only", extra={"fields": {"ignored": name}})
        for name in _NOISY:  # they would repeat themselves with each batch; ReportingExporter says it once a minute
            logging.getLogger(name).disabled = True
        # What the environment says of the resource (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) has the last word.
        resource = Resource(resource_of(environment, config)).merge(OTELResourceDetector().detect())
        self._processor = BatchSpanProcessor(reporting(OTLPSpanExporter()))
        provider = TracerProvider(resource=Resource.create().merge(resource), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        tracer = provider.get_tracer("ropewalk", __version__)
        self.source = Source(tracer, config.name, config.model.provider, config.model.id)

    def request(self, method: str, route: str, headers: Mapping[str, str]) -> "Handle":
        """Start the span of one HTTP request, below the client's own where `headers` name it."""
        from opentelemetry.trace import SpanKind

        from ropewalk_agent import spans

        attributes = {"http.request.method": method, "http.route": route, "url.path": route, "url.scheme": "http"}
        context = spans.parent(headers)
        return spans.Handle(self.source, f"{method} {route}", attributes, kind=SpanKind.SERVER, context=context)

    async def close(self, seconds: float) -> None:
        """Send what is left, and give up after `seconds`; no span is taken any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(self._processor._batch_processor.shutdown, int(seconds * 1000))


def resource_of(environment: Mapping[str, str], config: AgentConfig) -> dict[str, str]:
    """Return what all spans say of the pod, by OpenTelemetry's conventions for resources."""
    attributes = {"service.name": config.name, "service.version": __version__}
    if config.namespace:
        attributes |= {"service.namespace": config.namespace, "k8s.namespace.name": config.namespace}
    if environment.get("KUBERNETES_SERVICE_HOST") and environment.get("HOSTNAME"):
        attributes["k8s.pod.name"] = environment["HOSTNAME"]
    return attributes


def reporting(exporter: "SpanExporter", clock: Callable[[], float] = time.monotonic) -> "SpanExporter":
    """Return an exporter that tells at most once a minute that spans were lost, and how many so far."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class ReportingExporter(SpanExporter):
        def __init__(self) -> None:
            self._lost = 0
            self._quiet_until = float("-inf")

        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = exporter.export(spans)
            if result is not SpanExportResult.SUCCESS:
                self._lost += len(spans)
                now = clock()
                if now >= self._quiet_until:
                    self._quiet_until = now + _WARNING_SECONDS
                    fields = {"spans_lost": self._lost, "variable": _ENDPOINTS[1]}
                    _log.warning("the collector takes no spans", extra={"fields": fields})
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return ReportingExporter()
