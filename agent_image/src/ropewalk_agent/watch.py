"""What one turn does, counted and measured: for its answer and in the pod's metrics. Decides nothing."""

import time
from typing import Any

from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeModelCallEvent, HookProvider, HookRegistry

from ropewalk_agent import turn_spans
from ropewalk_agent.metrics import Metrics, ModelMetrics
from ropewalk_agent.tools import Tool


class Watch(HookProvider):
    """Counts and measures what one turn does, in its own numbers (for the answer) and in the pod's metrics."""

    def __init__(self, metrics: Metrics, models: tuple[ModelMetrics, ...]) -> None:
        """Take the metrics of the agent's model and of its fallbacks, in order."""
        self._metrics = metrics
        self._models = models
        self._model_metrics = models[0]
        self._model_called_at = 0.0
        self._model_is_called = False
        self._first_chunk_seen = True
        self._tools_running = 0
        self._tools_busy_since = 0.0
        self.tools_used: list[str] = []
        self.input_tokens = self.output_tokens = 0
        self.model_seconds = self.tool_seconds = 0.0
        self.model_error: Exception | None = None

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Tell Strands which calls to make."""
        registry.add_callback(BeforeModelCallEvent, self._model_called)
        registry.add_callback(AfterModelCallEvent, self._model_answered)
        registry.add_callback(AfterToolCallEvent, self._tool_answered)

    def _model_called(self, event: BeforeModelCallEvent) -> None:
        self._model_called_at, self._model_is_called = time.monotonic(), True
        self._first_chunk_seen = False

    def fell_back(self, place: int) -> None:
        """Note that the model has failed and the fallback at this place, from 1, is asked: each has its own time."""
        self._model_called_at, self._model_metrics = self._call_ended(), self._models[place]

    def _model_answered(self, event: AfterModelCallEvent) -> None:
        self._model_is_called = False
        self.model_error = event.exception
        self._call_ended()

    def turn_ended(self) -> None:
        """Measure the call that the turn's end has cut off, if any: Strands tells of no end when it is cancelled."""
        if self._model_is_called:
            self._model_is_called = False
            self._call_ended()

    def _call_ended(self) -> float:
        now = time.monotonic()
        self.model_seconds += now - self._model_called_at
        self._model_metrics.inference_duration.observe(now - self._model_called_at)
        return now

    def _tool_answered(self, event: AfterToolCallEvent) -> None:
        # A tool that the model was not shown. Its name is the model's invention and so no label.
        if event.selected_tool is None:
            self._metrics.tool_calls.labels(tool="", server="", outcome="unknown").inc()

    def note(self, event: dict[str, Any]) -> None:
        """Take the first content and the usage out of the model's own chunks."""
        chunk = event.get("event")
        if chunk is None:
            return
        if not self._first_chunk_seen and ("contentBlockStart" in chunk or "contentBlockDelta" in chunk):
            self._first_chunk_seen = True
            seconds = time.monotonic() - self._model_called_at
            self._model_metrics.time_to_first_chunk.observe(seconds)
        usage = chunk.get("metadata", {}).get("usage")
        if usage is not None:
            self.input_tokens += usage["inputTokens"]
            self.output_tokens += usage["outputTokens"]
            self._model_metrics.input_tokens.inc(usage["inputTokens"])
            self._model_metrics.output_tokens.inc(usage["outputTokens"])

    def tool_started(self, tool: Tool) -> float:
        """Note that a call begins; return the moment, for `tool_ended`."""
        if tool.name not in self.tools_used:
            self.tools_used.append(tool.name)
        now = time.monotonic()
        if self._tools_running == 0:
            self._tools_busy_since = now
        self._tools_running += 1
        return now

    def tool_ended(self, tool: Tool, started: float, outcome: str) -> None:
        """Note how a call ended. Calls that run side by side count once in `tool_seconds`."""
        now = time.monotonic()
        self._tools_running -= 1
        if self._tools_running == 0:
            self.tool_seconds += now - self._tools_busy_since
        turn_spans.tool_ended(tool.server, outcome)
        self._metrics.tool_calls.labels(tool=tool.name, server=tool.server, outcome=outcome).inc()
        self._metrics.execute_tool_duration.labels(gen_ai_tool_name=tool.name).observe(now - started)
