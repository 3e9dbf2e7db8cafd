"""The metrics have the names and labels that were promised, and their number does not grow with traffic."""

import asyncio
import re
from typing import Any

import pytest

from agent_models import Call, ScriptedModel, Step
from agent_server import RunningAgent, running_agent
from ropewalk_agent.metrics import Metrics

MODEL = ("gen_ai_provider_name", "gen_ai_request_model")
PROMISED = {
    "ropewalk_agent_requests_total": ("endpoint", "outcome"),
    "ropewalk_agent_request_duration_seconds": ("endpoint",),
    "ropewalk_agent_requests_in_flight": (),
    "ropewalk_agent_queue_depth": (),
    "ropewalk_agent_queue_wait_seconds": (),
    "ropewalk_agent_sessions": (),
    "ropewalk_agent_mcp_server_up": ("server",),
    "ropewalk_agent_mcp_reconnects_total": ("server",),
    "ropewalk_agent_tool_calls_total": ("tool", "server", "outcome"),
    "ropewalk_agent_build_info": ("version",),
    "ropewalk_agent_loop_lag_seconds": ("loop",),
    "ropewalk_agent_threads": (),
    "gen_ai_client_inference_duration_seconds": MODEL,
    "gen_ai_client_inference_time_to_first_chunk_seconds": MODEL,
    "gen_ai_client_inference_usage_input_tokens_total": MODEL,
    "gen_ai_client_inference_usage_output_tokens_total": MODEL,
    "gen_ai_invoke_agent_duration_seconds": (),
    "gen_ai_execute_tool_duration_seconds": ("gen_ai_tool_name",),
    "mcp_client_operation_duration_seconds": ("mcp_method_name", "server"),
}
FORBIDDEN_LABELS = {"session", "session_id", "user", "user_id", "pod", "error", "message", "reason", "request_id"}


def labels_by_name() -> dict[str, tuple[str, ...]]:
    collectors: dict[str, Any] = Metrics().registry._names_to_collectors
    return {name: getattr(collector, "_labelnames", ()) for name, collector in collectors.items()}


@pytest.mark.parametrize(("name", "labels"), PROMISED.items(), ids=PROMISED.keys())
def test_the_promised_metric_has_the_promised_labels(name: str, labels: tuple[str, ...]) -> None:
    assert labels_by_name()[name] == labels


def test_no_metric_has_a_label_without_bounds() -> None:
    assert [name for name, labels in labels_by_name().items() if FORBIDDEN_LABELS & set(labels)] == []


async def series(agent: RunningAgent) -> set[str]:
    """The names and labels of everything that is exposed."""
    text = (await agent.client.get("/metrics")).text
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


async def turn(agent: RunningAgent, i: int) -> None:
    headers = {"x-request-id": f"request-{i}", "traceparent": f"00-{i + 1:032x}-{i + 1:016x}-01"}
    body = {"query": f"question {i}", "session_id": f"session-{i}", "user_id": f"user-{i}"}
    assert (await agent.client.post("/query", json=body, headers=headers)).status_code == 200


async def nonsense(agent: RunningAgent, i: int) -> None:
    await agent.client.get(f"/path-{i}")
    await agent.client.request(f"METHOD{i}", "/query")
    await agent.client.post(f"/query?{i}", json={f"field-{i}": i})


async def test_a_hundred_sessions_users_and_made_up_tools_paths_and_methods_add_no_series() -> None:
    count, at_once = 100, 20
    answers: list[list[Step]] = []
    for i in range(count + 1):
        answers += [[Call(f"made-up-{i}")], [f"answer {i}"]]
    async with running_agent(ScriptedModel(*answers), sessions={"maxSessions": 2 * count}) as agent:
        await turn(agent, 0)
        await nonsense(agent, 0)
        before = await series(agent)
        for first in range(1, count + 1, at_once):
            await asyncio.gather(*(turn(agent, i) for i in range(first, first + at_once)))
            await nonsense(agent, first)
        after = await series(agent)
    assert len(agent.model.asked) > count
    assert after - before == set()


async def test_a_scrape_tells_the_lag_of_both_loops_and_the_threads() -> None:
    async with running_agent(ScriptedModel()) as agent:
        text = (await agent.client.get("/metrics")).text
    lags = re.findall(r'^ropewalk_agent_loop_lag_seconds\{loop="(\w+)"\} (\S+)$', text, re.M)
    assert {loop for loop, _ in lags} == {"server", "worker"}
    assert all(float(lag) > 0 for _, lag in lags)
    threads = re.search(r"^ropewalk_agent_threads (\S+)$", text, re.M)
    assert threads is not None
    assert float(threads[1]) >= 2
