"""What an agent refuses in OpenAI's protocol, over real HTTP, asked by OpenAI's own client."""

from typing import Any

import openai
import pytest

from agent_models import ScriptedModel
from agent_openai import asked, say
from agent_server import running_agent


async def test_another_model_is_not_found() -> None:
    async with running_agent(ScriptedModel()) as agent, asked(agent) as client:
        with pytest.raises(openai.NotFoundError, match="use 'tested'") as raised:
            await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
    assert (raised.value.param, raised.value.type) == ("model", "invalid_request_error")


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 2}, "n", "one answer"),
        ({"tools": [TOOL]}, "tools", "its own tools"),
        ({"functions": [{"name": "f"}]}, "functions", "its own tools"),
        ({"tool_choice": "required"}, "tool_choice", "its own tools"),
        ({"logprobs": True}, "logprobs", "not served"),
        ({"top_logprobs": 3}, "top_logprobs", "not served"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "not served"),
        ({"stop": "\n"}, "stop", "not served"),
        ({"modalities": ["text", "audio"]}, "modalities", "text only"),
        ({"audio": {"voice": "ash", "format": "wav"}}, "audio", "not served"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options", "not served"),
        ({"moderation": {"model": "m"}}, "moderation", "not served"),
        ({"response_format": {"type": "grammar"}}, "response_format", "'grammar'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "required",
        ),
        ({"user": "two words"}, "user", "pattern"),
        ({"metadata": {"session_id": ""}}, "metadata.session_id", "at least 1"),
        ({"extra_body": {"top_k": 3}}, "top_k", "not a field"),
    ],
)
async def test_what_would_change_the_meaning_is_refused_naming_the_field(
    fields: dict[str, Any], param: str, words: str
) -> None:
    async with running_agent(ScriptedModel()) as agent, asked(agent) as client:
        with pytest.raises(openai.BadRequestError, match=words) as raised:
            await say(client, **fields)
        assert agent.model.asked == []
    assert (raised.value.param, raised.value.code, raised.value.type) == (
        param,
        "invalid_request",
        "invalid_request_error",
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "\\ud800"}', b"\xff", b"[" * 10_000])
async def test_a_body_that_is_no_request_is_refused_in_openais_shape(body: bytes) -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await agent.client.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, "invalid_request", "invalid_request_error")
    assert error["request_id"] == answer.headers["x-request-id"]


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with running_agent(ScriptedModel()) as agent, asked(agent) as client:
        with pytest.raises(openai.BadRequestError, match="larger than"):
            await say(client, [{"role": "user", "content": "x" * 1024 * 1024}])
