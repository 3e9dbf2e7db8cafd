"""What is measured of a turn that does not end by itself."""

import asyncio

import pytest

from agent_models import Gate, ScriptedModel
from agent_server import running_agent
from waiting import eventually

DURATION = "gen_ai_client_inference_duration_seconds_count"
LABELS = {"gen_ai_provider_name": "openai-compatible", "gen_ai_request_model": "scripted"}


@pytest.mark.parametrize("after", [(), ("half an ",)])
async def test_a_call_that_the_deadline_ends_is_measured(after: tuple[str, ...]) -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([*after, gate, "late"])) as agent:
        assert (await agent.query("q", timeout_seconds=0.2)).status_code == 504
        await eventually(lambda: agent.runtime._bridge.running == 0)
        assert agent.metrics.registry.get_sample_value(DURATION, LABELS) == 1
        gate.open()


async def test_a_call_whose_client_has_left_is_measured() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "late"])) as agent:
        asked = asyncio.create_task(agent.query("q"))
        await gate.wait_reached()
        asked.cancel()
        await eventually(lambda: agent.runtime._bridge.running == 0)
        assert agent.metrics.registry.get_sample_value(DURATION, LABELS) == 1
        gate.open()


async def test_a_call_that_answers_is_measured_once() -> None:
    async with running_agent(ScriptedModel(["fine"])) as agent:
        assert (await agent.query("q")).status_code == 200
        assert agent.metrics.registry.get_sample_value(DURATION, LABELS) == 1
