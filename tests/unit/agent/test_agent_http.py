"""The agent over real HTTP, with a scripted model: shapes, codes, streaming, disconnects, metrics and logs."""

import asyncio
import json
import logging
from typing import Any

import pytest

from agent_models import Call, Gate, ScriptedModel
from agent_server import running_agent
from ropewalk_agent.logs import JsonFormatter
from ropewalk_agent.routes import turns
from waiting import eventually

MCP_DOWN = {"name": "math", "url": "http://127.0.0.1:9/mcp"}


def frames(text: str) -> list[tuple[str, dict[str, Any]]]:
    parsed = []
    for frame in filter(None, text.split("\n\n")):
        name, data = frame.split("\n")
        parsed.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return parsed


async def test_a_question_is_answered_in_the_promised_shape() -> None:
    async with running_agent(ScriptedModel(["42"])) as agent:
        answer = await agent.query("what?", session_id="s")
    body = answer.json()
    timings = body.pop("timings")
    assert body.pop("request_id") == answer.headers["x-request-id"]
    assert body == {
        "response": "42",
        "session_id": "s",
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "tools_used": [],
    }
    assert set(timings) == {"queue_seconds", "model_seconds", "tools_seconds", "total_seconds"}


async def test_a_session_goes_on_and_belongs_to_its_user() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent:
        session = (await agent.query("one", user_id="anna")).json()["session_id"]
        await agent.query("two", user_id="anna", session_id=session)
        await agent.query("three", user_id="bert", session_id=session)
        assert [len(asked) for asked in agent.model.asked] == [1, 3, 1]


async def test_a_request_id_is_accepted_and_a_strange_one_is_replaced() -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await agent.client.get("/health", headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        answer = await agent.client.get("/health", headers={"x-request-id": "no spaces please"})
        assert answer.headers["x-request-id"] != "no spaces please"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ("{}", "query is missing"),
        ('{"query": "a", "message": "b"}', "exactly one of query and message"),
        ('{"query": ""}', "query: "),
        ('{"query": "a", "session_id": 7}', "session_id: "),
        ('{"query": "a", "timeout_seconds": 0}', "timeout_seconds: "),
        ('{"query": "a", "output_schema": []}', "output_schema: "),
        ('{"query": "a", "output_schema": {"type": "objekt"}}', "output_schema: $.type"),
        ('{"query": "a", "tools": ["nothing"]}', "tools names 'nothing'; this agent has none"),
        ('{"query": "a", "tool_servers": ["nobody"]}', "tool_servers names 'nobody'; this agent has none"),
        ('{"query": "a", "temperature": 1}', "temperature is not a field"),
    ],
)
async def test_a_wrong_request_is_refused_naming_the_field(body: str, words: str) -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await agent.client.post("/query", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert words in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


async def test_a_body_that_is_too_large_and_unknown_paths_are_refused() -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await agent.query("x" * turns.LARGEST_BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        answer = await agent.client.get("/nothing")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        answer = await agent.client.get("/query")
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
        metrics = (await agent.client.get("/metrics")).text
    assert 'ropewalk_agent_requests_total{endpoint="/query",outcome="method_not_allowed"} 1.0' in metrics
    assert 'outcome="ok"' not in metrics


async def test_half_a_character_from_the_model_breaks_no_stream() -> None:
    async with running_agent(ScriptedModel(["a\ud83d"])) as agent:
        headers = {"accept": "text/event-stream"}
        async with agent.client.stream("POST", "/query", json={"query": "q"}, headers=headers) as answer:
            received = (await answer.aread()).decode()
    assert [name for name, _ in frames(received)] == ["text", "result"]
    assert frames(received)[0][1]["text"] == "a\ud83d"


async def test_streamed_text_leaves_before_the_model_has_finished() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel(["first ", gate, "second"])) as agent:
        headers = {"accept": "text/event-stream"}
        async with agent.client.stream("POST", "/query", json={"query": "q"}, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            received = ""
            async for chunk in answer.aiter_text():
                if not received:
                    assert frames(chunk) == [("text", {"text": "first "})]
                    gate.open()
                received += chunk
    names = [name for name, _ in frames(received)]
    assert names == ["text", "text", "result"]
    assert frames(received)[-1][1]["response"] == "first second"


async def test_an_error_before_the_first_event_has_a_status_and_one_after_it_is_an_event() -> None:
    model = ScriptedModel([RuntimeError("no luck")], ["some text", RuntimeError("no luck")])
    async with running_agent(model) as agent:
        headers = {"accept": "text/event-stream"}
        answer = await agent.client.post("/query", json={"query": "q"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_error")
        answer = await agent.client.post("/query", json={"query": "q"}, headers=headers)
        name, data = frames(answer.text)[-1]
        assert (answer.status_code, name, data["error"]["code"]) == (200, "error", "model_error")


async def test_the_deadline_is_504_and_the_history_stays_consistent() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel(["one"], ["two", gate], ["three"])) as agent:
        await agent.query("a", session_id="s")
        late = await agent.query("b", session_id="s", timeout_seconds=0.5)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert (await agent.query("c", session_id="s")).json()["response"] == "three"
        assert [m["content"][0]["text"] for m in agent.model.asked[2]] == ["a", "one", "c"]


async def test_a_client_that_leaves_cancels_its_turn_and_the_session_is_usable() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "never"], ["fine"]), concurrency=1) as agent:
        asking = asyncio.create_task(agent.query("a", session_id="s"))
        await gate.wait_reached()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await agent.query("b", session_id="s")).json()["response"] == "fine"
        assert len(agent.model.asked[1]) == 1


async def test_a_caller_that_does_not_wait_for_its_session_gets_409_while_a_turn_of_it_runs() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"])) as agent:
        first = asyncio.create_task(agent.query("first", session_id="s"))
        await gate.wait_reached()
        refused = await agent.query("second", session_id="s", wait_for_session=False)
        other = asyncio.create_task(agent.query("third", session_id="t", wait_for_session=False))
        gate.open()
        assert (await first).status_code == (await other).status_code == 200
        assert (await agent.query("fourth", session_id="s", wait_for_session=False)).status_code == 200
        metrics = (await agent.client.get("/metrics")).text
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_busy")
    assert 'ropewalk_agent_requests_total{endpoint="/query",outcome="session_busy"} 1.0' in metrics


async def test_two_turns_of_a_session_are_answered_in_order_and_a_full_queue_is_429() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"]), concurrency=2, queue={"maxLength": 1}) as agent:
        first = asyncio.create_task(agent.query("first", session_id="s"))
        await gate.wait_reached()
        second = asyncio.create_task(agent.query("second", session_id="s"))
        await eventually(lambda: agent.metrics.registry.get_sample_value("ropewalk_agent_queue_depth") == 1)
        refused = await agent.query("third", session_id="s")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1"
        gate.open()
        assert {(await first).status_code, (await second).status_code} == {200}
        assert agent.model.texts_asked == ["first", "second"]


async def test_an_agent_that_leaves_is_not_ready_but_answers_and_closes_connections() -> None:
    async with running_agent(ScriptedModel(["done"])) as agent:
        agent.runtime.leave()
        ready = await agent.client.get("/ready")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["the agent is shutting down"])
        answered = await agent.query("a")
        assert (answered.status_code, answered.json()["response"]) == (200, "done")
        assert answered.headers["connection"] == "close"


async def test_a_drain_finishes_running_turns_refuses_new_ones_and_closes_connections() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "done"])) as agent:
        running = asyncio.create_task(agent.query("a"))
        await gate.wait_reached()
        draining = asyncio.create_task(agent.runtime.drain(5))
        ready = await agent.until("/ready", 503)
        assert ready.json() == {"ready": False, "reasons": ["the agent is shutting down"]}
        refused = await agent.query("b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert refused.headers["connection"] == "close"
        assert (await agent.client.get("/health")).status_code == 200
        gate.open()
        assert (await running).json()["response"] == "done"
        await draining


async def test_a_required_server_that_is_down_makes_the_agent_not_ready_and_is_named() -> None:
    async with running_agent(ScriptedModel(), wait=False, mcpServers=[MCP_DOWN]) as agent:
        body = (await agent.until("/ready", 503, saying="connecting since")).json()
        assert body["reasons"][0].startswith("mcp server math: connecting since ")


async def test_an_optional_server_that_is_down_leaves_the_agent_ready_and_answering() -> None:
    async with running_agent(ScriptedModel(["fine"]), mcpServers=[{**MCP_DOWN, "required": False}]) as agent:
        assert (await agent.query("a")).json()["response"] == "fine"
        server = (await agent.client.get("/tools")).json()["servers"][0]
        assert (server["name"], server["required"], server["state"]) == ("math", False, "connecting")


async def test_metrics_count_requests_tokens_and_time() -> None:
    async with running_agent(ScriptedModel(["fine"], [RuntimeError("no")])) as agent:
        await agent.query("a")
        await agent.query("b")
        text = (await agent.client.get("/metrics")).text
        openmetrics = await agent.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    for line in (
        'ropewalk_agent_requests_total{endpoint="/query",outcome="ok"} 1.0',
        'ropewalk_agent_requests_total{endpoint="/query",outcome="model_error"} 1.0',
        "ropewalk_agent_requests_in_flight 0.0",
        "ropewalk_agent_sessions 1.0",
        'ropewalk_agent_build_info{version="0.1.0"} 1.0',
        'gen_ai_client_inference_usage_input_tokens_total{gen_ai_provider_name="openai-compatible",'
        'gen_ai_request_model="scripted"} 10.0',
        "ropewalk_agent_queue_wait_seconds_count 2.0",
        "gen_ai_invoke_agent_duration_seconds_count 2.0",
    ):
        assert line in text
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")


async def test_what_is_asked_and_said_is_in_no_log_and_no_metric(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    model = ScriptedModel([Call("canary_tool", {"x": "canary"})], ["canary answer"], [RuntimeError("canary failure")])
    async with running_agent(model, systemPrompt="canary prompt") as agent:
        await agent.query("canary question", session_id="s1")
        await agent.query("canary question", session_id="s2")
        metrics = (await agent.client.get("/metrics")).text
    ours = [
        record for record in caplog.records if record.name.startswith("ropewalk") or record.levelno >= logging.WARNING
    ]
    lines = [JsonFormatter().format(record) for record in ours]
    assert any("turn ended" in line and '"s1"' in line for line in lines)
    assert "canary" not in metrics
    assert 'ropewalk_agent_tool_calls_total{outcome="unknown",server="",tool=""} 1.0' in metrics
    assert [line for line in lines if "canary" in line.replace("canary_tool", "")] == []


async def test_a_defect_of_ours_is_500_with_only_a_request_id(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_agent(ScriptedModel(["x"])) as agent:
        monkeypatch.setattr("ropewalk_agent.turn.windowed", lambda *_: 1 / 0)
        answer = await agent.query("a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "division" not in answer.text
