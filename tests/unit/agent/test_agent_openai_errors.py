"""What fails in OpenAI's protocol, and whether its client asks again: over real HTTP, asked by OpenAI's own client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from agent_models import Gate, ScriptedModel
from agent_openai import asked, say
from agent_server import running_agent
from ropewalk_agent.errors import AgentError


async def test_a_model_that_fails_is_an_internal_server_error_with_its_code() -> None:
    async with running_agent(ScriptedModel([RuntimeError("no luck")])) as agent, asked(agent) as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="no luck") as raised:
                await say(client, stream=stream)
            error = raised.value
            assert (error.status_code, error.code, error.type, error.param) == (
                502,
                "model_error",
                "server_error",
                None,
            )
            assert error.request_id == error.response.json()["error"]["request_id"]


async def test_a_full_queue_is_a_rate_limit_and_says_when_to_come_back() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel([gate, "x"]), concurrency=1, queue={"maxLength": 0}) as agent,
        asked(agent) as client,
    ):
        first = asyncio.create_task(say(client))
        await gate.wait_reached()
        with pytest.raises(openai.RateLimitError) as raised:
            await say(client)
        gate.open()
        await first
    assert (raised.value.code, raised.value.type) == ("queue_full", "rate_limit_error")
    assert raised.value.response.headers["retry-after"] == "1"
    assert raised.value.response.headers["x-should-retry"] == "true"


async def test_the_deadline_is_an_internal_server_error_of_504() -> None:
    async with (
        running_agent(ScriptedModel([Gate(), "x"]), limits={"requestTimeoutSeconds": 1}) as agent,
        asked(agent) as client,
    ):
        with pytest.raises(openai.InternalServerError) as raised:
            await say(client)
    assert (raised.value.status_code, raised.value.code) == (504, "timeout")


async def test_a_client_that_retries_by_default_does_not_repeat_a_turn_that_has_run() -> None:
    model = ScriptedModel([RuntimeError("no luck")], ["fine"])
    async with running_agent(model) as agent, asked(agent, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            await say(client)
        assert len(model.asked) == 1


async def test_a_pod_that_drains_is_503_and_may_be_asked_again() -> None:
    async with running_agent(ScriptedModel()) as agent, asked(agent) as client:
        await agent.runtime.drain(1)
        with pytest.raises(openai.InternalServerError) as raised:
            await say(client)
    assert (raised.value.status_code, raised.value.code) == (503, "not_ready")
    assert raised.value.response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("code", ["queue_full", "not_ready"])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_turn_that_had_begun_may_not_be_repeated_unasked(
    monkeypatch: pytest.MonkeyPatch, code: str, begun: bool
) -> None:
    async with running_agent(ScriptedModel()) as agent, asked(agent, max_retries=1) as client:
        runs: list[None] = []

        async def run(*_: Any, **__: Any) -> AsyncIterator[Any]:
            runs.append(None)
            raise AgentError(code, "no luck", begun=begun)
            yield

        monkeypatch.setattr(agent.runtime, "run", run)
        with pytest.raises(openai.APIStatusError) as raised:
            await say(client)
    assert (raised.value.code, len(runs)) == (code, 1 if begun else 2)
