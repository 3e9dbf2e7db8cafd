"""Each limit over real HTTP: what the client is told, what is counted, and that the agent goes on."""

import asyncio
import threading

import pytest

from agent_models import Call, Gate, ScriptedModel
from agent_server import RunningAgent, running_agent
from ropewalk_agent.tools import shipped
from waiting import eventually

FIBONACCI = Call("fibonacci", {"n": 5})


def counted(agent: RunningAgent, outcome: str) -> float | None:
    labels = {"endpoint": "/query", "outcome": outcome}
    return agent.metrics.registry.get_sample_value("ropewalk_agent_requests_total", labels)


def calls(agent: RunningAgent, tool: str, outcome: str) -> float | None:
    labels = {"tool": tool, "server": "", "outcome": outcome}
    return agent.metrics.registry.get_sample_value("ropewalk_agent_tool_calls_total", labels)


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [({"maxTurns": 2}, "limit_turns"), ({"maxTokensPerRequest": 20}, "limit_tokens")],
)
async def test_turns_and_tokens_end_a_turn_with_an_answer_that_says_so(limits: dict[str, int], outcome: str) -> None:
    model = ScriptedModel(["so far", FIBONACCI], ["more", FIBONACCI], ["never"])
    async with running_agent(model, localTools=["fibonacci"], limits=limits) as agent:
        answer = await agent.query("a", session_id="s")
        assert (answer.status_code, answer.json()["stop_reason"]) == (200, outcome)
        assert answer.json()["response"] == "more"
        assert (counted(agent, outcome), counted(agent, "ok")) == (1, None)
        model.answers[2:] = [["fine"]]
        assert (await agent.query("b", session_id="s")).json()["response"] == "fine"


async def test_time_ends_a_turn_with_504_also_while_a_tool_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = threading.Event(), threading.Event()

    def fibonacci(n: int) -> str:
        """Wait."""
        entered.set()
        release.wait(20)
        return str(n)

    monkeypatch.setattr(shipped, "fibonacci", fibonacci)
    async with running_agent(ScriptedModel([FIBONACCI], ["fine"]), localTools=["fibonacci"]) as agent:
        late = await agent.query("a", session_id="s", timeout_seconds=0.2)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert entered.is_set()
        assert (await agent.query("b", session_id="s")).json()["response"] == "fine"
        assert (counted(agent, "timeout"), calls(agent, "fibonacci", "cancelled")) == (1, 1)
        release.set()


async def test_a_tool_that_takes_too_long_is_an_error_for_the_model_and_the_turn_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def fibonacci(n: int) -> str:
        """Wait."""
        release.wait(20)
        return str(n)

    monkeypatch.setattr(shipped, "fibonacci", fibonacci)
    model, limits = ScriptedModel([FIBONACCI], ["sorry"]), {"toolTimeoutSeconds": 1}
    async with running_agent(model, localTools=["fibonacci"], limits=limits) as agent:
        answer = (await agent.query("a")).json()
        release.set()
        assert answer["response"] == "sorry"
        assert (counted(agent, "ok"), calls(agent, "fibonacci", "timeout")) == (1, 1)
    told = model.asked[1][-1]["content"][0]["toolResult"]
    assert (told["status"], told["content"][0]["text"]) == (
        "error",
        "local tool fibonacci did not answer within 1 s",
    )


async def test_a_full_queue_is_429_and_says_when_to_come_back() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"]), concurrency=1, queue={"maxLength": 0}) as agent:
        first = asyncio.create_task(agent.query("a"))
        await gate.wait_reached()
        refused = await agent.query("b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1"
        gate.open()
        assert (await first).status_code == 200
        assert (counted(agent, "queue_full"), counted(agent, "ok")) == (1, 1)


async def test_no_more_than_concurrency_turns_run_at_once() -> None:
    gate = Gate()
    model = ScriptedModel([gate, "x"])
    async with running_agent(model, concurrency=3) as agent:
        asking = [asyncio.create_task(agent.query(str(n))) for n in range(5)]
        await eventually(lambda: agent.metrics.registry.get_sample_value("ropewalk_agent_queue_depth") == 2)
        await eventually(lambda: len(model.asked) == 3)
        assert agent.metrics.registry.get_sample_value("ropewalk_agent_requests_in_flight") == 3
        gate.open()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}


async def test_the_largest_number_of_turns_that_can_be_set_can_be_reached() -> None:
    # Strands nests its generators one deeper with each turn.
    model = ScriptedModel([FIBONACCI])
    schema, limits = {"type": "object"}, {"maxTurns": 200, "requestTimeoutSeconds": 100}
    async with running_agent(model, localTools=["fibonacci"], limits=limits) as agent:
        agent.client.timeout = 100
        answer = await agent.query("a", output_schema=schema)
    assert (answer.status_code, answer.json().get("stop_reason")) == (200, "limit_turns")
    assert len(model.asked) == 200
