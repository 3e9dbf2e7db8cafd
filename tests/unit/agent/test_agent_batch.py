"""POST /batch over real HTTP: order, failures that stay with their item, bounds, and a client that leaves."""

import asyncio
from typing import Any

import httpx
import pytest

from agent_models import Call, Gate, ScriptedModel
from agent_server import RunningAgent, running_agent
from waiting import eventually


async def batch(agent: RunningAgent, *queries: Any) -> httpx.Response:
    return await agent.client.post("/batch", json={"queries": list(queries)})


class Echo(ScriptedModel):
    """Answers with the question; fails on "fail", stands before its gate on "wait"."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    async def stream(self, messages: Any, *arguments: Any, **options: Any) -> Any:
        question = messages[-1]["content"][0]["text"]
        steps: list[Any] = [RuntimeError("no luck")] if question == "fail" else [f"echo {question}"]
        self.answers = [[self.gate, *steps] if question.startswith("wait") else steps]
        async for chunk in super().stream(messages, *arguments, **options):
            yield chunk


async def test_questions_are_answered_in_their_order_each_in_a_session_of_its_own() -> None:
    async with running_agent(Echo(), concurrency=3) as agent:
        answer = await batch(agent, *[f"q{n}" for n in range(10)])
    results = answer.json()["results"]
    assert [result["ok"]["response"] for result in results] == [f"echo q{n}" for n in range(10)]
    assert len({result["ok"]["session_id"] for result in results}) == 10
    assert all(len(asked) == 1 for asked in agent.model.asked)
    assert [result["ok"]["request_id"] for result in results] == [
        f"{answer.headers['x-request-id']}-{n}" for n in range(10)
    ]


async def test_items_may_be_strings_or_bodies_of_query_and_may_share_a_session_in_order() -> None:
    async with running_agent(Echo()) as agent:
        same = {"session_id": "s", "user_id": "anna"}
        answer = await batch(agent, "one", {"message": "two", **same}, {"query": "three", **same})
        assert [result["ok"]["response"] for result in answer.json()["results"]] == [
            "echo one",
            "echo two",
            "echo three",
        ]
    assert [len(asked) for asked in agent.model.asked if asked[0]["content"][0]["text"] == "two"] == [1, 3]


async def test_one_failure_does_not_stop_the_rest() -> None:
    async with running_agent(Echo()) as agent:
        answer = await batch(agent, "one", "fail", {"query": "x", "tools": ["nothing"]}, "two")
        metrics = (await agent.client.get("/metrics")).text
    first, failed, refused, last = answer.json()["results"]
    assert answer.status_code == 200
    assert (first["ok"]["response"], last["ok"]["response"]) == ("echo one", "echo two")
    assert (failed["error"]["code"], refused["error"]["code"]) == ("model_error", "invalid_request")
    assert failed["error"]["request_id"].endswith("-1")
    assert 'ropewalk_agent_requests_total{endpoint="/batch",outcome="ok"} 1.0' in metrics
    assert 'ropewalk_agent_batch_items_total{outcome="ok"} 2.0' in metrics
    assert 'ropewalk_agent_batch_items_total{outcome="model_error"} 1.0' in metrics


async def test_an_item_can_ask_for_a_structured_answer() -> None:
    schema = {"type": "object", "required": ["a"]}
    async with running_agent(ScriptedModel([Call("structured_answer", {"a": 1})])) as agent:
        answer = await batch(agent, {"query": "x", "output_schema": schema})
    assert answer.json()["results"][0]["ok"]["structured"] == {"a": 1}


async def test_several_run_at_once_but_a_batch_does_not_fill_the_queue_of_others() -> None:
    model = Echo()
    async with running_agent(model, concurrency=2, queue={"maxLength": 1}) as agent:
        batches = asyncio.create_task(batch(agent, *["wait"] * 5))
        await eventually(lambda: len(model.asked) == 2)
        assert agent.metrics.registry.get_sample_value("ropewalk_agent_queue_depth") == 0
        other = asyncio.create_task(agent.query("other"))
        await eventually(lambda: agent.metrics.registry.get_sample_value("ropewalk_agent_queue_depth") == 1)
        model.gate.open()
        assert (await other).json()["response"] == "echo other"
        assert [result["ok"]["response"] for result in (await batches).json()["results"]] == ["echo wait"] * 5


async def test_an_item_that_meets_a_full_queue_comes_back_until_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pauses = Echo(), []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        model.gate.open()
        await eventually(lambda: agent.metrics.registry.get_sample_value("ropewalk_agent_requests_in_flight") == 0)

    monkeypatch.setattr("ropewalk_agent.routes.batch._pause", pause)
    async with running_agent(model, concurrency=1, queue={"maxLength": 0}) as agent:
        other = asyncio.create_task(agent.query("wait"))
        await model.gate.wait_reached()
        hasty, patient = (await batch(agent, {"query": "hasty", "timeout_seconds": 0.9}, "patient")).json()["results"]
        await other
    assert (hasty["error"]["code"], patient["ok"]["response"]) == ("queue_full", "echo patient")
    assert pauses == [1]


async def test_items_of_a_session_keep_their_order_where_others_fill_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pauses = Echo(), []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            # Whoever paused after this item goes before it.
            await eventually(lambda: len(model.asked) > 2)
        else:
            model.gate.open()
            await others

    monkeypatch.setattr("ropewalk_agent.routes.batch._pause", pause)
    same = {"session_id": "s"}
    async with running_agent(model, concurrency=2, queue={"maxLength": 0}) as agent:
        others = asyncio.gather(agent.query("wait"), agent.query("wait"))
        await eventually(lambda: len(model.asked) == 2)
        await batch(agent, {"query": "first", **same}, {"query": "second", **same}, {"query": "other"})
    asked = [asked[-1]["content"][0]["text"] for asked in model.asked]
    assert asked.index("first") < asked.index("second")


async def test_each_item_has_its_own_deadline() -> None:
    model = Echo()
    async with running_agent(model) as agent:
        answer = await batch(agent, {"query": "wait", "timeout_seconds": 0.05}, "fine")
        model.gate.open()
    late, fine = answer.json()["results"]
    assert (late["error"]["code"], fine["ok"]["response"]) == ("timeout", "echo fine")


async def test_a_client_that_leaves_cancels_what_runs_and_what_has_not_begun() -> None:
    model = Echo()
    async with running_agent(model, concurrency=2) as agent:
        asking = asyncio.create_task(batch(agent, "wait", "wait", "never", "never"))
        await eventually(lambda: len(model.asked) == 2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        samples = agent.metrics.registry
        labels = {"endpoint": "/batch", "outcome": "cancelled"}
        await eventually(lambda: samples.get_sample_value("ropewalk_agent_requests_total", labels) == 1)
        await eventually(lambda: samples.get_sample_value("ropewalk_agent_requests_in_flight") == 0)
        assert (await agent.query("after")).json()["response"] == "echo after"
        assert samples.get_sample_value("ropewalk_agent_batch_items_total", {"outcome": "cancelled"}) == 2
    assert [asked[-1]["content"][0]["text"] for asked in model.asked] == ["wait", "wait", "after"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "queries: "),
        ({"queries": []}, "queries: "),
        ({"queries": ["x"] * 101}, "at most 100"),
        ({"queries": ["fine", {"query": "a", "message": "b"}]}, "queries.1: query is missing"),
        ({"queries": ["fine", ""]}, "queries.1.query"),
        ({"queries": ["fine", 7]}, "queries.1: "),
        ({"queries": ["fine", {"query": "a", "colour": "red"}]}, "queries.1.colour is not a field"),
        ({"queries": ["fine"], "parallel": 3}, "parallel is not a field of this endpoint; it takes queries"),
    ],
)
async def test_a_wrong_batch_is_refused_as_a_whole_naming_the_field(body: Any, words: str) -> None:
    async with running_agent(Echo()) as agent:
        answer = await agent.client.post("/batch", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert words in answer.json()["error"]["message"]
    assert agent.model.asked == []
