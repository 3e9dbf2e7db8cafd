"""Answers in OpenAI's protocol, with a scripted model, over real HTTP, asked by OpenAI's own client."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

from agent_models import Call, Cut, Gate, ScriptedModel
from agent_openai import QUESTION, asked, chunks, say, text_of
from agent_server import LoopbackMcpServer, running_agent
from waiting import eventually

PIXEL = b"\x89PNG\r\n\x1a\n not a real image, but nobody looks"
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"}}


@pytest.fixture(scope="module")
def adder() -> Iterator[LoopbackMcpServer]:
    server = MCPServer("adder")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    loopback = LoopbackMcpServer(server)
    loopback.start()
    yield loopback
    loopback.stop()


async def test_the_official_client_gets_an_answer_with_the_models_own_usage() -> None:
    async with running_agent(ScriptedModel(["42"])) as agent, asked(agent) as client:
        answer = await say(client)
    choice = answer.choices[0]
    assert (answer.object, answer.model, choice.message.role) == ("chat.completion", "tested", "assistant")
    assert (choice.message.content, choice.finish_reason) == ("42", "stop")
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
    }
    assert answer.id == f"chatcmpl-{answer._request_id}"


async def test_models_lists_the_agent_alone_without_a_turn() -> None:
    async with running_agent(ScriptedModel()) as agent, asked(agent) as client:
        assert [model.id async for model in client.models.list()] == ["tested"]
        assert (await client.models.retrieve("tested")).id == "tested"
        with pytest.raises(openai.NotFoundError, match="use 'tested'"):
            await client.models.retrieve("gpt/4")
        assert agent.model.asked == []


async def test_a_request_over_plain_http_needs_no_key() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, httpx.AsyncClient() as anybody:
        url = f"{agent.client.base_url}/v1/chat/completions"
        answer = await anybody.post(
            url, json={"model": "tested", "messages": QUESTION}, headers={"x-request-id": "mine"}
        )
    assert (answer.status_code, answer.headers["x-request-id"], answer.json()["id"]) == (200, "mine", "chatcmpl-mine")


async def test_the_callers_messages_reach_the_model_and_system_messages_join_the_system_prompt() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "three"}, {"type": "text", "text": "four"}]},
    ]
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        await say(client, messages)
        await say(client)
    assert [(m["role"], [b["text"] for b in m["content"]]) for m in agent.model.asked[0]] == [
        ("user", ["one"]),
        ("assistant", ["two"]),
        ("user", ["three\n\nfour"]),
    ]
    assert agent.model.system_prompts == ["You are tested.\n\nBe brief.\n\nBe kind.", "You are tested."]


async def test_an_image_within_the_request_reaches_the_model_as_bytes() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}]
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        await say(client, messages)
    assert agent.model.asked[0][0]["content"] == [
        {"text": "what is it?"},
        {"image": {"format": "png", "source": {"bytes": PIXEL}}},
    ]


async def test_a_turn_that_uses_tools_counts_every_model_call(adder: LoopbackMcpServer) -> None:
    model = ScriptedModel(["Let me add.", Call("add", {"a": 2, "b": 3})], ["It is 5."])
    async with running_agent(model, mcpServers=[{"name": "adder", "url": adder.url}]) as agent, asked(agent) as client:
        answer = await say(client)
        model.asked.clear()
        stream = await chunks(client, stream_options={"include_usage": True})
    assert (answer.choices[0].message.content, answer.choices[0].message.tool_calls) == ("It is 5.", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 10)
    assert text_of(stream) == "Let me add.\n\nIt is 5."
    assert stream[-1].usage is not None
    assert stream[-1].usage.total_tokens == 30


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answers", "changes", "finish_reason", "stop_reason"),
    [
        ([["a"]], {}, "stop", "end_turn"),
        ([["a", Cut()]], {}, "length", "max_tokens"),
        ([["a", Call("nothing")]], {"limits": {"maxTurns": 1}}, "length", "limit_turns"),
        ([["a", Call("nothing")]], {"limits": {"maxTokensPerRequest": 1}}, "length", "limit_tokens"),
    ],
)
async def test_the_finish_reason_tells_whether_the_answer_is_whole(
    answers: list[Any], changes: dict[str, Any], finish_reason: str, stop_reason: str, stream: bool
) -> None:
    async with running_agent(ScriptedModel(*answers), **changes) as agent, asked(agent) as client:
        choice: Any = (await chunks(client))[-1].choices[0] if stream else (await say(client)).choices[0]
    assert (choice.finish_reason, choice.stop_reason) == (finish_reason, stop_reason)


async def test_two_clients_are_answered_at_once() -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel([gate, "x"]), concurrency=2) as agent,
        asked(agent) as one,
        asked(agent) as two,
    ):
        answers = [asyncio.create_task(say(client, user="same")) for client in (one, two)]
        await eventually(lambda: len(agent.model.asked) == 2)
        gate.open()
        assert [(await answer).choices[0].message.content for answer in answers] == ["x", "x"]


class Sum(BaseModel):
    total: int


PROSE = ["Let me think."]
SUM = [Call("structured_answer", {"total": 5})]


async def test_an_answer_in_a_schema_is_json_and_only_json_in_a_stream_too() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "sum", "schema": Sum.model_json_schema()}}
    async with running_agent(ScriptedModel(PROSE, SUM, PROSE, SUM, SUM)) as agent, asked(agent) as client:
        answer = await client.chat.completions.parse(
            model="tested", messages=[{"role": "user", "content": "2 + 3?"}], response_format=Sum
        )
        stream = await chunks(client, response_format=schema)
        loose = await say(client, response_format={"type": "json_object"})
    assert answer.choices[0].message.parsed == Sum(total=5)
    assert [chunk.choices[0].delta.content for chunk in stream] == ["", '{"total": 5}', None]
    assert json.loads(loose.choices[0].message.content) == {"total": 5}


async def test_the_agents_own_schema_holds_where_the_caller_brings_none() -> None:
    async with running_agent(ScriptedModel(SUM), outputSchema=Sum.model_json_schema()) as agent, asked(agent) as client:
        assert text_of(await chunks(client)) == '{"total": 5}'


async def test_an_answer_that_does_not_fit_is_an_error_with_what_the_model_said() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "sum", "schema": Sum.model_json_schema()}}
    async with running_agent(ScriptedModel(PROSE)) as agent, asked(agent) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await say(client, response_format=schema)
    assert (raised.value.status_code, raised.value.code) == (502, "invalid_answer")
    assert raised.value.response.json()["error"]["raw"] == "Let me think."


async def test_what_does_no_harm_is_accepted() -> None:
    harmless: dict[str, Any] = {
        "n": 1,
        "max_tokens": 5,
        "max_completion_tokens": 5,
        "temperature": 0.1,
        "top_p": 0.5,
        "seed": 7,
        "frequency_penalty": 1,
        "presence_penalty": 1,
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "service_tier": "auto",
        "store": True,
        "tools": [],
        "tool_choice": "auto",
        "logprobs": False,
        "top_logprobs": 0,
        "stop": None,
        "modalities": ["text"],
        "response_format": {"type": "text"},
    }
    async with running_agent(ScriptedModel(["fine"])) as agent, asked(agent) as client:
        assert (await say(client, **harmless)).choices[0].message.content == "fine"
