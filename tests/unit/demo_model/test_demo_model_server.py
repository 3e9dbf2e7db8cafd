"""The demo model over the wire, asked by the official openai client."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from demo_model.app import create_app
from demo_model.settings import Settings
from mcp_wire import served

ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with served(create_app(Settings())) as address:
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made:
        yield made


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def ask(client: openai.AsyncOpenAI, *messages: Any, **options: Any) -> Any:
    return await client.chat.completions.create(model="any", messages=list(messages), **options)


async def test_it_says_that_it_is_no_language_model(client: openai.AsyncOpenAI, url: str) -> None:
    [model] = (await client.models.list()).data
    assert model.id == "ropewalk-demo"
    assert model.model_dump()["description"] == "demo model: not a language model"
    async with httpx.AsyncClient() as http:
        assert "not a language model" in (await http.get(f"{url}/health")).text
    answer = await ask(client, user("Hello"))
    assert answer.model == "ropewalk-demo"
    assert "not a language model" in answer.choices[0].message.content
    assert '"Hello"' in answer.choices[0].message.content


async def test_a_tool_is_called_and_its_result_is_in_the_answer(client: openai.AsyncOpenAI) -> None:
    question = user("What is 21.5 plus 20.5?")
    first = await ask(client, question, tools=[ADD])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 21.5, "b": 20.5})
    result = {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": "21.5 + 20.5 = 42"}]}
    second = await ask(client, question, first.choices[0].message.model_dump(exclude_none=True), result, tools=[ADD])
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content == "The tool add answered: 21.5 + 20.5 = 42"


async def test_a_long_result_is_in_the_answer_with_all_its_lines(client: openai.AsyncOpenAI) -> None:
    names = [f"pod-{number}" for number in range(200)]
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    made = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "\n".join(names)}
    answer = await ask(client, user("add all of them"), made, result, tools=[ADD])
    assert answer.choices[0].message.content.splitlines()[1:] == names


async def test_a_stream_joins_to_the_same_answer_with_the_same_usage(client: openai.AsyncOpenAI) -> None:
    whole = await ask(client, user("Hello  there,\nyou"))
    text, usages = "", []
    stream = await ask(client, user("Hello  there,\nyou"), stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usages += [chunk.usage] if chunk.usage else []
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert usages == [whole.usage]
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_parallel_calls_are_streamed_each_with_an_id_of_its_own(client: openai.AsyncOpenAI) -> None:
    calls: dict[int, list[str]] = {}
    stream = await ask(client, user("What is 1 plus 2 and 3 plus 4?"), tools=[ADD], stream=True)
    async for chunk in stream:
        assert chunk.usage is None
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.id:
                calls[part.index] = [part.id, part.function.name, ""]
            calls[part.index][2] += part.function.arguments
    assert [(name, json.loads(arguments)) for _, name, arguments in calls.values()] == [
        ("add", {"a": 1, "b": 2}),
        ("add", {"a": 3, "b": 4}),
    ]
    assert len({call[0] for call in calls.values()}) == 2


async def test_usage_counts_the_words(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, {"role": "system", "content": "be brief"}, user("one two  three"), max_tokens=5)
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == 10
    assert answer.choices[0].finish_reason == "length"


async def test_the_same_request_gives_the_same_answer(client: openai.AsyncOpenAI) -> None:
    answers = [(await ask(client, user("Hello"))).model_dump(exclude={"created"}) for _ in range(2)]
    assert answers[0] == answers[1]


async def test_the_same_call_in_a_later_turn_has_another_id(client: openai.AsyncOpenAI) -> None:
    question = user("What is 1 plus 2?")
    first = (await ask(client, question, tools=[ADD])).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "3"}
    messages = [question, first.model_dump(exclude_none=True), result, {"role": "assistant", "content": "3"}, question]
    again = (await ask(client, *messages, tools=[ADD])).choices[0].message
    assert again.tool_calls[0].id != first.tool_calls[0].id


async def test_earlier_turns_are_recalled(client: openai.AsyncOpenAI) -> None:
    turns = [user("My name is Ada"), {"role": "assistant", "content": "ok"}]
    asked = await ask(client, *turns, user("What did I ask before?"))
    assert '"My name is Ada"' in asked.choices[0].message.content
    named = await ask(client, *turns, user("What is my name?"))
    assert "your name is Ada" in named.choices[0].message.content
    first = await ask(client, user("What did I ask before?"))
    assert "first message" in first.choices[0].message.content


async def test_what_is_missing_is_asked_for(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, user("add 7"), tools=[ADD])
    assert "it needs b" in answer.choices[0].message.content


async def test_tool_choice_is_followed(client: openai.AsyncOpenAI) -> None:
    none = await ask(client, user("What is 1 plus 2?"), tools=[ADD], tool_choice="none")
    assert none.choices[0].message.tool_calls is None
    required = await ask(client, user("Hello"), tools=[ADD], tool_choice="required")
    assert required.choices[0].message.tool_calls[0].function.name == "add"
    named = {"type": "function", "function": {"name": "add"}}
    forced = await ask(client, user("Hello"), tools=[ADD], tool_choice=named)
    assert forced.choices[0].message.tool_calls[0].function.name == "add"


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_it_fails_when_it_is_told_to(client: openai.AsyncOpenAI, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(client, user(f"What is 1 plus 2? demo:fail={status}"), tools=[ADD])
    assert caught.value.status_code == status
    assert caught.value.code == "demo_fail"


async def test_control_words_of_earlier_turns_have_no_effect(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, user("demo:fail=500"), {"role": "assistant", "content": "x"}, user("Hello"))
    assert answer.choices[0].finish_reason == "stop"


async def test_it_calls_for_ever_when_it_is_told_to(client: openai.AsyncOpenAI) -> None:
    messages = [user("What is 1 plus 2? demo:loop")]
    for _ in range(3):
        message = (await ask(client, *messages, tools=[ADD])).choices[0].message
        assert message.tool_calls
        messages += [message.model_dump(exclude_none=True)]
        messages += [{"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "1 + 2 = 3"}]


async def test_a_long_text_is_answered_like_a_short_one(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, user("ask " * 100_000))
    assert "not a language model" in answer.choices[0].message.content


@pytest.mark.parametrize(
    ("settings", "text", "waits"),
    [
        (Settings(delay_seconds=0.25), "Hello", [0.25]),
        (Settings(), "Hello demo:slow=5", [5]),
        (Settings(delay_seconds=0.25), "Hello demo:slow=5000", [600.25]),
        (Settings(), "Hello", []),
    ],
)
async def test_it_waits_before_the_first_token_as_long_as_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, text: str, waits: list[float]
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("demo_model.app.sleep", sleep)
    async with served(create_app(settings)) as address, httpx.AsyncClient() as http:
        for stream in (False, True):
            body = {"messages": [user(text)], "stream": stream}
            assert (await http.post(f"{address}/v1/chat/completions", json=body)).status_code == 200
            assert waited == waits
            waited.clear()


async def test_it_waits_between_the_chunks_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("demo_model.app.sleep", sleep)
    async with served(create_app(Settings(chunk_seconds=0.01))) as address, httpx.AsyncClient() as http:
        body = {"messages": [user("Hello")], "stream": True}
        answer = await http.post(f"{address}/v1/chat/completions", json=body)
    events = answer.text.count("data: ")
    assert waited == [0.01] * (events - 1)


NODE = {"type": "object", "properties": {"node": {"$ref": "#/$defs/Node"}}, "required": ["node"]}


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        (True, {}),
        (None, {}),
        ([], {}),
        ({}, {}),
        ({"type": ["object", "null"]}, {}),
        ({"properties": None, "required": ["label"]}, {}),
        ({"properties": {"label": True}, "required": ["label"]}, {"label": "add 1 2"}),
        ({"properties": {"label": {"type": ["null", "integer"]}}, "required": ["label"]}, {"label": 1}),
        (
            {"properties": {"label": {"type": {"not": "a type"}, "enum": 5}}, "required": ["label"]},
            {"label": "add 1 2"},
        ),
        ({"properties": {"label": {"type": "number"}}, "required": {"label": True}}, {}),
        ({"properties": {"label": {"type": "array", "items": True}}, "required": ["label"]}, {"label": ["add 1 2"]}),
        (
            {"properties": {"label": {"anyOf": [False, {"type": "number"}]}}, "required": ["label"]},
            {"label": "add 1 2"},
        ),
        (
            {
                "properties": {"label": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"$ref": "#/$defs/A"}},
                "required": ["label"],
            },
            {"label": "add 1 2"},
        ),
    ],
)
async def test_a_tool_with_an_odd_schema_is_called_with_what_can_be_read_of_it(
    client: openai.AsyncOpenAI, parameters: Any, arguments: object
) -> None:
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    answer = await ask(client, user("add 1 2"), tools=[tool], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == arguments


async def test_a_schema_that_must_hold_itself_is_filled_some_levels_deep(client: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": NODE | {"$defs": {"Node": NODE}}}}
    answer = await ask(client, user("add 1 2"), tools=[tool], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"node": {"node": {"node": {}}}}


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body is a JSON list"),
        ({}, "messages is missing or empty"),
        ({"messages": []}, "messages is missing or empty"),
        ({"messages": ["hi"]}, "messages[0].role is None"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role is 'robot'"),
        ({"messages": [{"role": "tool", "tool_call_id": "c9", "content": ""}]}, "tool call 'c9', which no message"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, "tool call 'c1' has no result"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL]}, user("hi")]},
            "before the result of tool call 'c1'",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": ["x"]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [user("hi")], "tools": [{"type": "function"}]}, "tools[0] has no function with a name"),
        ({"messages": [user("hi")], "tools": "add"}, "tools[0]"),
        ({"messages": [user("hi")], "tools": [ADD], "tool_choice": "sometimes"}, "tool_choice is 'sometimes'"),
        ({"messages": [user("hi")], "tools": [ADD], "tool_choice": {"function": "add"}}, "tool_choice is {"),
        (
            {"messages": [user("hi")], "tools": [{"function": {"name": "add", "description": 5}}]},
            "tools[0] has a description that is no string",
        ),
        (b'{"messages": ' + b"[" * 100_000, "the body is nested too deeply"),
        ({"messages": [user("hi")], "max_tokens": "5"}, "max_tokens is '5'"),
        ({"messages": [user("hi")], "stream_options": "usage"}, "stream_options is 'usage'"),
    ],
)
async def test_a_malformed_request_is_refused_in_the_format_of_openai(url: str, body: object, words: str) -> None:
    async with httpx.AsyncClient() as http:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await http.post(f"{url}/v1/chat/completions", content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/v1/chat/completions", 405)])
async def test_a_wrong_path_or_method_is_refused_in_the_format_of_openai(
    url: str, method: str, path: str, status: int
) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.request(method, f"{url}{path}")
    assert answer.status_code == status
    assert "/v1/chat/completions" in answer.json()["error"]["message"]


async def test_half_a_character_and_calls_of_a_user_do_no_harm(url: str) -> None:
    # Python's clients cannot send half of a surrogate pair as text; in JSON it may be escaped.
    body = {"messages": [user("Hello \ud800") | {"tool_calls": [5]}]}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{url}/v1/chat/completions", content=json.dumps(body))
    assert answer.status_code == 200


async def test_a_body_that_is_too_large_is_refused(url: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{url}/v1/chat/completions", content=b" " * (10 * 2**20 + 1))
    assert answer.status_code == 413
