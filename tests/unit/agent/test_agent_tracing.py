"""One trace runs from the client through the agent to the model and the tools, over real sockets, without content."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode, use_span
from strands.telemetry import tracer as strands_tracer
from websockets.asyncio.client import ClientConnection, connect

from agent_models import Call, Gate, ScriptedModel
from agent_otlp import Receiver, otlp_receiver
from agent_providers import Calls, Provider, Refuses, Says, provider
from agent_server import LoopbackMcpServer, RunningAgent, agent_config, agent_document, running_agent
from ports import free_port
from ropewalk_agent import tracing, turn_spans
from ropewalk_agent.logs import JsonFormatter
from ropewalk_agent.spans import ids
from waiting import eventually

SOURCES = Path(__file__).parents[3] / "agent_image" / "src"
TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@dataclass
class Recorder:
    """An MCP server that writes down how it was called."""

    server: LoopbackMcpServer
    headers: list[str]
    metas: list[str]


@asynccontextmanager
async def recording_tools() -> AsyncIterator[Recorder]:
    server = MCPServer("math")
    headers: list[str] = []
    metas: list[str] = []

    @server.tool()
    def add(a: float, b: float, context: Context[Any, Any]) -> float:
        """Add two numbers."""
        request = context.request_context.request
        headers.append(request.headers.get("traceparent", "") if request is not None else "")
        metas.append(str((context.request_context.meta or {}).get("traceparent", "")))
        return a + b

    @server.tool()
    def divide(a: float, b: float) -> float:
        """Divide two numbers."""
        raise ToolError("cannot divide")

    loopback = LoopbackMcpServer(server)
    await asyncio.to_thread(loopback.start)
    try:
        yield Recorder(loopback, headers, metas)
    finally:
        await asyncio.to_thread(loopback.stop)


@asynccontextmanager
async def traced_agent(model: ScriptedModel | None, /, **changes: Any) -> AsyncIterator[RunningAgent]:
    """Run an agent as its pod does; its spans have arrived when the block has ended. Without a model, its own."""
    config = agent_config(**changes)
    traces = tracing.start(os.environ, config)
    async with running_agent(model, traces=traces, **changes) as agent:
        yield agent
    if traces is not None:
        await traces.close(5)


def tool_server(recorder: Recorder) -> list[dict[str, Any]]:
    return [{"name": "math", "url": recorder.server.url}]


def model_at(server: Provider) -> dict[str, Any]:
    return {"provider": "openai-compatible", "id": "small", "baseURL": f"{server.url}/v1"}


async def test_one_trace_runs_through_client_agent_model_and_tool(collector: Receiver) -> None:
    async with (
        recording_tools() as tools,
        provider("openai", Calls("add", {"a": 1, "b": 2}), Says(("3",))) as model,
        traced_agent(None, mcpServers=tool_server(tools), model=model_at(model)) as agent,
    ):
        answer = await agent.client.post("/query", json={"query": "1+2?"}, headers={"traceparent": TRACEPARENT})
    assert answer.json()["response"] == "3"
    request, turn = collector.named("POST /query"), collector.named("invoke_agent tested")
    assert (request.parent_id, request.kind, turn.parent_id) == (CLIENT_SPAN, "SERVER", request.span_id)
    assert collector.children(turn) == ["chat small", "execute_tool add", "chat small"]
    assert {span.trace_id for span in collector.spans} == {TRACE}
    tool = collector.named("execute_tool add")
    assert tools.headers == tools.metas == [f"00-{TRACE}-{tool.span_id}-01"]
    chats = [span.span_id for span in collector.spans if span.name == "chat small"]
    assert [asked.headers["traceparent"] for asked in model.asked] == [f"00-{TRACE}-{span}-01" for span in chats]
    assert len(collector.spans) == 5


async def test_the_span_of_a_call_names_the_fallback_that_answered(collector: Receiver) -> None:
    async with (
        recording_tools() as tools,
        provider("ollama", Refuses(503, "busy")) as busy,
        provider("openai", Calls("add", {"a": 1, "b": 2}), Says(("3",))) as second,
        traced_agent(
            None,
            mcpServers=tool_server(tools),
            model={"provider": "ollama", "id": "first", "baseURL": busy.url},
            fallbacks=[{**model_at(second), "id": "org/second"}],
        ) as agent,
    ):
        assert (await agent.query("q")).json()["response"] == "3"
    chats = [span for span in collector.spans if span.kind == "CLIENT"]
    assert [span.name for span in chats] == ["chat org/second"] * 2
    for chat in chats:
        assert chat.attributes["gen_ai.provider.name"] == "openai-compatible"
        assert chat.attributes["gen_ai.request.model"] == "org/second"


async def test_a_request_without_a_trace_begins_one_of_its_own(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel(["hi"])) as agent:
        await agent.query("a")
        await agent.query("b")
    roots = [span for span in collector.spans if not span.parent_id]
    assert [span.name for span in roots] == ["POST /query", "POST /query"]
    assert len({span.trace_id for span in collector.spans}) == 2


async def test_spans_have_the_attributes_of_the_conventions(collector: Receiver) -> None:
    async with recording_tools() as tools:
        model = ScriptedModel([Call("add", {"a": 1, "b": 2})], ["3"])
        async with traced_agent(model, mcpServers=tool_server(tools)) as agent:
            await agent.client.post("/query", json={"query": "q"}, headers={"x-request-id": "r-1"})
    assert collector.named("POST /query").attributes == {
        "http.request.method": "POST",
        "http.route": "/query",
        "http.response.status_code": 200,
        "url.path": "/query",
        "url.scheme": "http",
        "ropewalk.request_id": "r-1",
        "ropewalk.outcome": "ok",
    }
    tool = dict(collector.named("execute_tool add").attributes)
    assert tool.pop("gen_ai.tool.call.id")
    assert tool == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.type": "function",
        "mcp.method.name": "tools/call",
        "ropewalk.mcp.server": "math",
        "ropewalk.tool.outcome": "ok",
    }
    chat = next(span for span in collector.spans if span.name == "chat scripted")
    assert (chat.kind, chat.attributes["gen_ai.usage.input_tokens"], chat.attributes["gen_ai.usage.output_tokens"]) == (
        "CLIENT",
        10,
        5,
    )
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["tool_use"]
    turn = collector.named("invoke_agent tested").attributes
    assert (turn["gen_ai.usage.input_tokens"], turn["gen_ai.response.finish_reasons"]) == (20, ["end_turn"])
    assert turn["gen_ai.provider.name"] == "openai-compatible"


async def test_a_failing_tool_and_a_failing_model_mark_their_spans_by_class_alone(collector: Receiver) -> None:
    async with recording_tools() as tools:
        model = ScriptedModel([Call("divide", {"a": 1, "b": 0})], [ValueError("canary")])
        async with traced_agent(model, mcpServers=tool_server(tools)) as agent:
            assert (await agent.query("q")).status_code == 502
    tool, turn = collector.named("execute_tool divide"), collector.named("invoke_agent tested")
    assert (tool.failed, tool.attributes["error.type"]) == (True, "error")
    assert (turn.failed, turn.attributes["error.type"]) == (True, "ValueError")
    assert [span.failed for span in collector.spans if span.name == "chat scripted"] == [False, True]
    request = collector.named("POST /query")
    assert (request.failed, request.attributes["error.type"]) == (True, "model_error")
    assert [span.events for span in collector.spans] == [0] * len(collector.spans)


async def test_a_turn_that_runs_out_of_time_leaves_no_span_open(collector: Receiver) -> None:
    gate = Gate()
    async with traced_agent(ScriptedModel([gate, "late"])) as agent:
        assert (await agent.query("q", timeout_seconds=0.2)).status_code == 504
        await eventually(lambda: agent.runtime._bridge.running == 0)
        gate.open()
    assert sorted(collector.names) == ["POST /query", "chat scripted", "invoke_agent tested"]
    assert collector.named("invoke_agent tested").attributes["ropewalk.cancelled"] is True
    assert collector.named("POST /query").attributes["error.type"] == "timeout"


async def test_a_tool_name_that_the_model_invented_is_in_no_span(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel([Call("canary-tool")], ["ok"])) as agent:
        await agent.query("q")
    assert collector.named("POST /query")
    assert [span.name for span in collector.spans if "canary" in span.text] == []


async def test_turns_at_once_stay_in_their_own_traces(collector: Receiver) -> None:
    gate = Gate()
    async with traced_agent(ScriptedModel([gate, "ok"]), concurrency=2) as agent:
        traces = [f"{i:032x}" for i in range(1, 7)]
        headers = [{"traceparent": f"00-{trace}-{CLIENT_SPAN}-01"} for trace in traces]
        asked = [asyncio.create_task(agent.client.post("/query", json={"query": "q"}, headers=h)) for h in headers]
        await eventually(lambda: agent.runtime._bridge.waiting == 4)
        gate.open()
        await asyncio.gather(*asked)
    for trace in traces:
        of_trace = {span.name: span for span in collector.spans if span.trace_id == trace}
        assert of_trace["invoke_agent tested"].parent_id == of_trace["POST /query"].span_id
        assert of_trace["chat scripted"].parent_id == of_trace["invoke_agent tested"].span_id


async def test_a_client_that_does_not_sample_is_obeyed_and_its_trace_passed_on(collector: Receiver) -> None:
    async with provider("openai", Says(("hi",))) as model, traced_agent(None, model=model_at(model)) as agent:
        headers = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-00"}
        await agent.client.post("/query", json={"query": "q"}, headers=headers)
    assert collector.spans == []
    passed_on = model.asked[0].headers["traceparent"]
    assert (passed_on[:36], passed_on[-2:]) == (f"00-{TRACE}-", "00")


async def test_the_standard_sampler_variable_counts(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with traced_agent(ScriptedModel(["hi"])) as agent:
        await agent.query("q")
    assert collector.spans == []


async def test_probes_scrapes_and_unknown_paths_make_no_spans(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel(["hi"])) as agent:
        for path in ("/health", "/ready", "/metrics", "/tools", "/nowhere"):
            await agent.client.get(path)
        await agent.query("q")
    assert sorted(collector.names) == ["POST /query", "chat scripted", "invoke_agent tested"]


async def test_an_idle_agent_with_tools_makes_no_spans(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ropewalk_agent.tools.mcp.CHECK_SECONDS", 0.01)
    async with recording_tools() as tools, traced_agent(ScriptedModel(), mcpServers=tool_server(tools)) as agent:
        listings = agent.metrics.mcp_operation_duration.labels("tools/list", "math")
        await eventually(lambda: sum(bucket.get() for bucket in listings._buckets) > 3)
    assert collector.spans == []


async def test_a_stream_ends_its_span_with_its_last_event(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel(["a", "b"])) as agent:
        answer = await agent.client.post("/query", json={"query": "q"}, headers={"accept": "text/event-stream"})
    assert "event: result" in answer.text
    assert collector.named("POST /query").attributes["ropewalk.outcome"] == "ok"


async def test_a_stream_that_fails_late_marks_its_span(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel(["a", ValueError("broken")])) as agent:
        answer = await agent.client.post("/query", json={"query": "q"}, headers={"accept": "text/event-stream"})
    assert answer.status_code == 200
    assert collector.named("POST /query").attributes["error.type"] == "model_error"


async def test_the_turns_log_line_names_its_trace(collector: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    lines: list[dict[str, Any]] = []

    class Writing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler = Writing()
    handler.setFormatter(JsonFormatter(ids))
    logging.getLogger("ropewalk").addHandler(handler)
    caplog.set_level("INFO", "ropewalk")
    try:
        async with traced_agent(ScriptedModel(["hi"])) as agent:
            await agent.client.post("/query", json={"query": "q"}, headers={"traceparent": TRACEPARENT})
    finally:
        logging.getLogger("ropewalk").removeHandler(handler)
    ended = next(line for line in lines if line["message"] == "turn ended")
    assert (ended["trace_id"], ended["span_id"]) == (TRACE, collector.named("POST /query").span_id)
    assert "trace_id" not in next(line for line in lines if line["message"] == "agent starting")


async def test_a_duration_has_an_exemplar_in_openmetrics(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel(["hi"])) as agent:
        await agent.client.post("/query", json={"query": "q"}, headers={"traceparent": TRACEPARENT})
        exposition = await agent.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        plain = await agent.client.get("/metrics")
    assert f'trace_id="{TRACE}"' in exposition.text
    assert TRACE not in plain.text


async def test_the_resource_says_which_agent_it_is(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOSTNAME", "calc-agent-1")
    async with traced_agent(ScriptedModel(["hi"]), namespace="team") as agent:
        await agent.query("q")
    resource = collector.named("POST /query").resource
    named = ("service.name", "service.namespace", "k8s.namespace.name", "k8s.pod.name")
    assert [resource[name] for name in named] == ["tested", "team", "team", "calc-agent-1"]
    assert resource["service.version"]
    assert collector.paths == {"/v1/traces"}


async def test_the_environment_has_the_last_word_on_the_resource(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with traced_agent(ScriptedModel(["hi"])) as agent:
        await agent.query("q")
    resource = collector.named("POST /query").resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("mine", "test")


async def test_a_collector_that_is_not_there_changes_no_answer_and_ends_no_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    traces = tracing.start(os.environ, agent_config())
    assert traces is not None
    async with running_agent(ScriptedModel(["hi"]), traces=traces) as agent:
        assert (await agent.query("q")).json()["response"] == "hi"
    async with asyncio.timeout(10):
        await traces.close(0.2)


class Failing(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.FAILURE


def test_lost_spans_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 1.0, 59.0, 60.0, 61.0))
    exporter = tracing.reporting(Failing(), clock=lambda: next(times))
    batch: Any = ["a span", "another"]
    for _ in range(5):
        exporter.export(batch)
    told = [record.__dict__["fields"]["spans_lost"] for record in caplog.records]
    assert told == [2, 8]


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_traces_are_made_only_where_a_collector_is_named(environment: dict[str, str], *, wanted: bool) -> None:
    assert tracing.is_wanted(environment) is wanted


async def test_without_a_collector_no_span_is_made_and_no_trace_goes_out() -> None:
    async with provider("openai", Says(("hi",))) as model, traced_agent(None, model=model_at(model)) as agent:
        await agent.client.post("/query", json={"query": "q"}, headers={"traceparent": TRACEPARENT})
    assert "traceparent" not in model.asked[0].headers


def test_the_tracer_answers_for_every_span_that_a_turn_may_make() -> None:
    ours = ("agent_span", "_cycle_span", "_invoke_span", "_call_span", "with_error", "with_cancellation")
    spans = {
        name for name in vars(strands_tracer.Tracer) if name.startswith(("start_", "end_")) and name.endswith(ours)
    }
    assert len(spans) == 11
    assert spans - vars(turn_spans.TurnTracer).keys() == {"start_multiagent_span"}


async def test_a_traced_turn_serialises_no_message(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def serialised(*_: Any) -> str:
        raise AssertionError("a history was serialised")

    monkeypatch.setattr("strands.telemetry.tracer.serialize", serialised)
    async with traced_agent(ScriptedModel(["fine"])) as agent:
        assert (await agent.query("q")).json()["response"] == "fine"
    assert collector.named("chat scripted")


async def test_the_messages_of_a_websocket_share_the_trace_of_its_request(collector: Receiver) -> None:
    async with traced_agent(ScriptedModel(["hi"])) as agent:
        url = f"{str(agent.client.base_url).replace('http', 'ws', 1)}/ws"
        async with connect(url, additional_headers={"traceparent": TRACEPARENT}) as socket:
            for _ in range(2):
                await socket.send(json.dumps({"prompt": "q"}))
                await until_result(socket)
    request = collector.named("GET /ws")
    assert (request.trace_id, request.parent_id) == (TRACE, CLIENT_SPAN)
    assert collector.children(request) == ["invoke_agent tested", "invoke_agent tested"]


async def until_result(socket: ClientConnection) -> None:
    async with asyncio.timeout(10):
        while json.loads(await socket.recv()).get("type") != "result":
            pass


async def test_an_agents_process_sends_its_last_spans_before_it_ends(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "agent.json"
    with otlp_receiver() as collector:
        async with provider("openai", Says(("hi",))) as model:
            file.write_text(json.dumps(agent_document(model=model_at(model))))
            variables = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(SOURCES),
                "ROPEWALK_HOST": "127.0.0.1",
                "ROPEWALK_PORT": str(port),
                "ROPEWALK_CONFIG_FILE": str(file),
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            }
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ropewalk_agent", env=variables, stdout=asyncio.subprocess.PIPE
            )
            try:
                address = f"http://127.0.0.1:{port}"
                async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                    await eventually(lambda: is_ready(client), "the agent is ready", 60)
                    await client.post("/query", json={"query": "q"}, headers={"traceparent": TRACEPARENT})
                child.send_signal(signal.SIGTERM)
                output, _ = await child.communicate()
            finally:
                if child.returncode is None:
                    child.kill()
    assert child.returncode == 0
    assert sorted(collector.names) == ["POST /query", "chat small", "invoke_agent tested"]
    ended = next(json.loads(line) for line in output.splitlines() if b'"turn ended"' in line)
    assert ended["trace_id"] == TRACE


async def is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


async def test_what_others_write_to_a_span_is_not_recorded(collector: Receiver) -> None:
    traces = tracing.start(os.environ, agent_config())
    assert traces is not None
    span = traces.request("POST", "/query", {})
    span.set_attribute("canary", "canary")
    span.set_attributes({"canary": "canary"})
    span.add_event("canary")
    span.record_exception(ValueError("canary"))
    span.set_status(Status(StatusCode.ERROR, "canary"))
    span.update_name("canary")
    with suppress(ValueError), use_span(span, end_on_exit=True):
        raise ValueError("canary")
    span.finish("internal")
    await traces.close(5)
    received = collector.named("POST /query")
    assert (received.failed, received.events, "canary" in received.text) == (True, 0, False)
