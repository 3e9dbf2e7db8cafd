"""OpenAI's protocol over real HTTP, asked by OpenAI's own client, with a scripted model."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from mcp.server.mcpserver import MCPServer
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from agent_models import Call, Cut, Gate, ScriptedModel
from agent_server import LoopbackMcpServer, RunningAgent, running_agent
from ropewalk_agent.errors import AgentError
from waiting import eventually

PIXEL = b"\x89PNG\r\n\x1a\n not a real image, but nobody looks"
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"}}
QUESTION = [{"role": "user", "content": "what?"}]


@asynccontextmanager
async def asked(agent: RunningAgent, *, max_retries: int = 0) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client, which by default must not hide an error by asking again."""
    url = f"{agent.client.base_url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=max_retries, timeout=60) as client:
        yield client


async def say(client: AsyncOpenAI, messages: Any = QUESTION, **fields: Any) -> Any:
    return await client.chat.completions.create(model="tested", messages=messages, **fields)


async def chunks(client: AsyncOpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in await say(client, stream=True, **fields)]


def text_of(stream: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


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


# Answers


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


async def test_nothing_is_kept_between_requests() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        await say(client, user="anna")
        await say(client, user="anna")
        assert [len(asked) for asked in agent.model.asked] == [1, 1]
        assert agent.metrics.registry.get_sample_value("ropewalk_agent_sessions") == 0


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


async def test_a_named_session_goes_on_and_belongs_to_its_user() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        await say(client, user="anna", metadata={"session_id": "s", "project": "p"})
        await say(client, user="anna", metadata={"session_id": "s"})
        await say(client, user="bert", metadata={"session_id": "s"})
        await agent.query("and by /query", session_id="s", user_id="anna")
        with pytest.raises(openai.BadRequestError, match="send the new question alone"):
            await say(
                client, [*QUESTION, {"role": "assistant", "content": "x"}, *QUESTION], metadata={"session_id": "s"}
            )
    assert [len(asked) for asked in agent.model.asked] == [1, 3, 1, 5]


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


# Streams


async def test_a_stream_tells_the_role_first_then_text_the_end_and_the_usage() -> None:
    async with running_agent(ScriptedModel(["a", "b"])) as agent, asked(agent) as client:
        stream = await chunks(client, stream_options={"include_usage": True})
        plain = await chunks(client)
        raw = await agent.client.post(
            "/v1/chat/completions", json={"model": "tested", "messages": QUESTION, "stream": True}
        )
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in stream[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {}]
    assert [chunk.choices[0].finish_reason for chunk in stream[:-1]] == [None, None, None, "stop"]
    assert stream[-1].choices == []
    assert stream[-1].usage is not None
    assert stream[-1].usage.total_tokens == 15
    assert [chunk.usage for chunk in [*stream[:-1], *plain]] == [None] * 8
    assert len({chunk.id for chunk in stream}) == 1
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.endswith("data: [DONE]\n\n")
    assert "usage" not in raw.text


async def test_the_first_text_leaves_before_the_model_has_finished() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel(["first ", gate, "second"])) as agent, asked(agent) as client:
        received = []
        async for chunk in await say(client, stream=True):
            received.append(chunk)
            if text_of(received) == "first ":
                gate.open()
    assert text_of(received) == "first second"


@pytest.mark.parametrize(
    "pieces",
    [
        ['"', "'", "\\", '{"a": "b"}', "</script>"],
        ["\n", "\r\n", "\r", "\n\n", "data: [DONE]\n\n", "\ndata: x\n\n", ": comment\n"],
        ["🧶", "👩‍👩‍👧‍👦", "é", "e\u0301", "漢字", "\u2028", "\u2029", "\x85", "\ufeff", "\U0010ffff"],
        ["\x00", "\x01", "\x1b", "\x7f", "\ufffd"],
        ["x" * 1_000_000, "ü" * 500_000],
        [f"{i} " for i in range(2000)],
    ],
    ids=["quotes", "newlines", "unicode", "controls", "large", "many"],
)
async def test_any_text_arrives_as_the_model_wrote_it(pieces: list[str]) -> None:
    async with running_agent(ScriptedModel(pieces)) as agent, asked(agent) as client:
        stream = await chunks(client)
        whole = await say(client)
    assert [chunk.choices[0].delta.content for chunk in stream[1:-1]] == pieces
    assert whole.choices[0].message.content == "".join(pieces)


async def test_half_a_character_does_not_end_the_stream() -> None:
    async with running_agent(ScriptedModel(["a\ud83e", "\uddf6b"])) as agent, asked(agent) as client:
        stream = await chunks(client)
        whole = await say(client)
    assert text_of(stream).encode("utf-16", "surrogatepass").decode("utf-16") == "a🧶b"
    assert whole.choices[0].finish_reason == "stop"


async def test_an_error_in_a_stream_is_raised_by_the_client_and_no_end_is_told() -> None:
    async with running_agent(ScriptedModel(["some", RuntimeError("no luck")])) as agent, asked(agent) as client:
        received: list[ChatCompletionChunk] = []
        stream = await say(client, stream=True)

        async def read() -> None:
            async for chunk in stream:
                received.append(chunk)

        with pytest.raises(openai.APIError, match="no luck") as raised:
            await read()
    assert text_of(received) == "some"
    assert (raised.value.code, raised.value.type) == ("model_error", "server_error")
    assert [chunk.choices[0].finish_reason for chunk in received] == [None, None]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_turn_and_frees_its_place(stream: bool) -> None:
    gate = Gate()
    model = ScriptedModel(["text", gate, "never"], ["fine"])
    async with running_agent(model, concurrency=1) as agent, asked(agent) as client:
        if stream:
            leaving = await say(client, stream=True)
            await gate.wait_reached()
            await leaving.close()
        else:
            task = asyncio.create_task(say(client))
            await gate.wait_reached()
            task.cancel()
        assert (await say(client)).choices[0].message.content == "fine"

        async def both_are_counted() -> bool:
            metrics = (await agent.client.get("/metrics")).text
            counted = 'ropewalk_agent_requests_total{endpoint="/v1/chat/completions",outcome="%s"} 1.0'
            return counted % "cancelled" in metrics and counted % "ok" in metrics

        # Its place is free before the request that was left is counted.
        await eventually(both_are_counted)


# Errors


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


async def test_an_answer_can_be_fed_back_as_a_message() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        answer = await say(client)
        await say(client, [*QUESTION, answer.choices[0].message, *QUESTION])
        await say(client, [*QUESTION, answer.choices[0].message.model_dump(), *QUESTION])
    assert [len(asked) for asked in agent.model.asked] == [1, 3, 3]


async def test_a_request_over_plain_http_needs_no_key() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, httpx.AsyncClient() as anybody:
        url = f"{agent.client.base_url}/v1/chat/completions"
        answer = await anybody.post(
            url, json={"model": "tested", "messages": QUESTION}, headers={"x-request-id": "mine"}
        )
    assert (answer.status_code, answer.headers["x-request-id"], answer.json()["id"]) == (200, "mine", "chatcmpl-mine")
