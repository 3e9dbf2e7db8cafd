"""The agent's Prometheus metrics, in a registry of their own. No label ever holds a session, a user or a raw error."""

import threading
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from ropewalk_agent import __version__

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_MODEL = ("gen_ai_provider_name", "gen_ai_request_model")


class ModelMetrics(NamedTuple):
    """What is counted of one model, with its labels already looked up."""

    inference_duration: Histogram
    time_to_first_chunk: Histogram
    input_tokens: Counter
    output_tokens: Counter


class Metrics:
    """Every metric of an agent pod. The objects may be used from any thread."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(name, text, labels, buckets=_SECONDS, registry=registry)

        self.requests = counter(
            "ropewalk_agent_requests", "Requests answered, by outcome: ok or a code.", ("endpoint", "outcome")
        )
        self.request_duration = histogram(
            "ropewalk_agent_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ("endpoint",),
        )
        self.batch_items = counter(
            "ropewalk_agent_batch_items", "Items of batches, by outcome: ok or a code.", ("outcome",)
        )
        self.requests_in_flight = gauge("ropewalk_agent_requests_in_flight", "Turns that run on the worker now.")
        self.queue_depth = gauge("ropewalk_agent_queue_depth", "Requests that wait for a place now.")
        self.queue_wait = histogram("ropewalk_agent_queue_wait_seconds", "Time that turns waited for a place.")
        self.sessions = gauge("ropewalk_agent_sessions", "Sessions that are kept now.")
        self.mcp_server_up = gauge(
            "ropewalk_agent_mcp_server_up", "1 while the server is connected and its tools are listed.", ("server",)
        )
        self.mcp_reconnects = counter(
            "ropewalk_agent_mcp_reconnects", "Connections that were made again after a loss.", ("server",)
        )
        self.mcp_retries = counter("ropewalk_agent_mcp_retries", "Tool calls that were made again.", ("server",))
        self.mcp_breaker_open = gauge(
            "ropewalk_agent_mcp_breaker_open", "1 while calls are not made because too many failed.", ("server",)
        )
        self.tool_calls = counter(
            "ropewalk_agent_tool_calls",
            "Tool calls, by outcome: ok, error, timeout, unavailable, cancelled, or unknown (no tool has that name).",
            ("tool", "server", "outcome"),
        )
        build_info = gauge("ropewalk_agent_build_info", "Always 1; the label says what runs.", ("version",))
        build_info.labels(version=__version__).set(1)
        self.worker_stuck = gauge(
            "ropewalk_agent_worker_stuck_seconds", "How long the worker's loop has not answered; 0 when it does."
        )
        self.loop_lag = gauge(
            "ropewalk_agent_loop_lag_seconds",
            "How long a loop (server, worker) took at this scrape until it ran what it was given.",
            ("loop",),
        )
        threads = gauge("ropewalk_agent_threads", "Threads of the process now.")
        threads.set_function(threading.active_count)
        self.model_fallbacks = counter(
            "ropewalk_agent_model_fallbacks",
            "Calls that one model failed and the next was asked, as provider/id.",
            ("from_model", "to_model"),
        )
        self.inference_duration = histogram(
            "gen_ai_client_inference_duration_seconds", "Time of a model call, to its last chunk.", _MODEL
        )
        self.time_to_first_chunk = histogram(
            "gen_ai_client_inference_time_to_first_chunk_seconds",
            "Time from a model call to its first content.",
            _MODEL,
        )
        self.input_tokens = counter(
            "gen_ai_client_inference_usage_input_tokens", "Tokens sent to the model, as it counts them.", _MODEL
        )
        self.output_tokens = counter(
            "gen_ai_client_inference_usage_output_tokens", "Tokens that the model wrote, as it counts them.", _MODEL
        )
        self.invoke_agent_duration = histogram(
            "gen_ai_invoke_agent_duration_seconds", "Time of a turn on the worker, without the queue."
        )
        self.execute_tool_duration = histogram(
            "gen_ai_execute_tool_duration_seconds", "Time of a tool call.", ("gen_ai_tool_name",)
        )
        self.mcp_operation_duration = histogram(
            "mcp_client_operation_duration_seconds",
            "Time of a request to an MCP server.",
            ("mcp_method_name", "server"),
        )

    def watch(
        self,
        *,
        running: Callable[[], float],
        waiting: Callable[[], float],
        sessions: Callable[[], float],
        stuck: Callable[[], float],
    ) -> None:
        """Tell where to look up, at each scrape, what is a state rather than an event."""
        self.requests_in_flight.set_function(running)
        self.queue_depth.set_function(waiting)
        self.sessions.set_function(sessions)
        self.worker_stuck.set_function(stuck)

    def of_model(self, provider: str, model: str) -> ModelMetrics:
        """Return the metrics of one model."""
        return ModelMetrics(
            self.inference_duration.labels(provider, model),
            self.time_to_first_chunk.labels(provider, model),
            self.input_tokens.labels(provider, model),
            self.output_tokens.labels(provider, model),
        )

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that the Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type
