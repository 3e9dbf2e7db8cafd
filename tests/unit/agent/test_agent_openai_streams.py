"""Streams in OpenAI's protocol, with a scripted model, over real HTTP, asked by OpenAI's own client."""

import asyncio

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from agent_models import Gate, ScriptedModel
from agent_openai import QUESTION, asked, chunks, say, text_of
from agent_server import running_agent
from waiting import eventually


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
