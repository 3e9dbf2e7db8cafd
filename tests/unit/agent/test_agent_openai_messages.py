"""A caller's messages in OpenAI's shape, as a history that every model takes, or a refusal that names the place."""

import json
from typing import Any

import pytest

from ropewalk_agent.errors import AgentError
from ropewalk_agent.routes.openai_messages import conversation
from ropewalk_agent.routes.openai_request import BadRequest, parsed
from ropewalk_agent.sessions import is_consistent


def call(name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}}


def user(text: str = "u") -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None = "a", *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def result(name: str, text: str = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": text}


def converted(*messages: dict[str, Any]) -> Any:
    return conversation(parsed(json.dumps({"model": "m", "messages": messages}).encode()).messages)


def shape(message: dict[str, Any]) -> str:
    kinds = [
        block["text"]
        if "text" in block
        else f"call {block['toolUse']['toolUseId']} {block['toolUse']['input']}"
        if "toolUse" in block
        else f"result {block['toolResult']['toolUseId']} {block['toolResult']['content'][0]['text']}"
        for block in message["content"]
    ]
    return f"{message['role']}: {', '.join(kinds)}"


NOT_ANSWERED = "assistant: (No answer was given.)"


@pytest.mark.parametrize(
    ("messages", "history", "query"),
    [
        ([user()], [], "u"),
        ([user("a"), user("b")], [], "a\n\nb"),
        ([user("a"), {"role": "system", "content": "s"}], [], "a"),
        ([user("a"), assistant("b"), user("c")], ["user: a", "assistant: b"], "c"),
        ([user("a"), assistant("b"), assistant("c"), user("d")], ["user: a", "assistant: b, c"], "d"),
        ([user("a"), assistant(""), user("b")], [], "a\n\nb"),
        ([user("a"), assistant(None), user("b")], [], "a\n\nb"),
        ([assistant("hi"), user("a")], ["user: (The assistant speaks first.)", "assistant: hi"], "a"),
        (
            [user("a"), assistant(None, call("1", '{"x": 1}'), call("2", "")), result("2"), result("1"), user("b")],
            [
                "user: a",
                "assistant: call call00001 {'x': 1}, call call00002 {}",
                "user: result call00002 r, result call00001 r",
                NOT_ANSWERED,
            ],
            "b",
        ),
        (
            [user("a"), assistant("t", call("1")), result("1", ""), assistant("b"), user("c")],
            ["user: a", "assistant: t, call call00001 {}", "user: result call00001 (empty)", "assistant: b"],
            "c",
        ),
        (
            [user("a"), assistant(None, call("1")), result("1"), assistant(None, call("1")), result("1"), user("b")],
            [
                "user: a",
                *("assistant: call call00001 {}", "user: result call00001 r"),
                *("assistant: call call00002 {}", "user: result call00002 r"),
                NOT_ANSWERED,
            ],
            "b",
        ),
        (
            [user("a"), assistant(" \n", call("a:1" * 80)), result("a:1" * 80, "\t"), assistant("b"), user("c")],
            ["user: a", "assistant: call call00001 {}", "user: result call00001 (empty)", "assistant: b"],
            "c",
        ),
        ([user("a"), assistant(" "), user("b")], [], "a\n\nb"),
        ([{"role": "user", "content": [{"type": "text", "text": t} for t in (" ", "a")]}], [], "a"),
    ],
)
def test_messages_become_a_history_in_which_roles_take_turns(
    messages: list[dict[str, Any]], history: list[str], query: str
) -> None:
    said = converted(*messages)
    assert ([shape(message) for message in said.history], said.query, said.content) == (history, query, ())
    assert is_consistent(said.history)


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([], "messages", "at least 1"),
        ([user("")], "messages[0].content", "is empty"),
        ([user(" \n\t")], "messages[0].content", "is empty"),
        ([{"role": "user", "content": []}], "messages[0].content", "is empty"),
        ([{"role": "user"}], "messages[0].content", "required"),
        ([{"role": "king", "content": "x"}], "messages[0]", "king"),
        ([{"role": "user", "content": 7}], "messages[0].content", "valid string"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text", "required"),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], "messages[0].content[0]", "'image_url'"),
        ([user(), assistant()], "messages[1].role", "last message must be the user's"),
        ([{"role": "system", "content": "x"}], "messages[0].role", "last message must be the user's"),
        ([user(), assistant(None, call("1"))], "messages[1].role", "last message must be the user's"),
        ([user(), assistant(None, call("1")), result("1")], "messages[2].role", "last message must be the user's"),
        ([user(), assistant(None, call("1")), user()], "messages[2]", "call 1 has no result"),
        ([user(), assistant(None, call("1")), assistant()], "messages[2]", "call 1 has no result"),
        ([user(), assistant(None, call("1"), call("2")), result("2"), user()], "messages[3]", "call 1 has no result"),
        ([result("1"), user()], "messages[0].tool_call_id", "no open tool call"),
        ([user(), assistant(None, call("1")), result("2"), user()], "messages[2].tool_call_id", "no open tool call"),
        ([user(), assistant(None, call("1")), result("1"), result("1")], "messages[3].tool_call_id", "no open tool"),
        ([user(), assistant(None, call("1"), call("1"))], "messages[1].tool_calls[1].id", "names two calls"),
        ([user(), assistant(None, call("1", "["))], "messages[1].tool_calls[0].function.arguments", "JSON object"),
        ([user(), assistant(None, call("1", "[]"))], "messages[1].tool_calls[0].function.arguments", "JSON object"),
        (
            [user(), assistant(None, call("1", '{"a": "\\ud800"}'))],
            "messages[1].tool_calls[0].function.arguments",
            "JSON",
        ),
        ([user(), {**assistant(), "function_call": {"name": "f"}}], "messages[1].function_call", "old protocol"),
    ],
)
def test_messages_that_make_no_history_are_refused_naming_the_place(
    messages: list[dict[str, Any]], param: str, words: str
) -> None:
    with pytest.raises(BadRequest, match=words) as raised:
        converted(*messages)
    assert raised.value.param == param


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x.png", "data:image/png,abc", "data:image/tiff;base64,abcd", "data:image/png;base64,é", "data:"],
)
def test_an_image_that_is_not_in_the_request_is_refused(url: str) -> None:
    with pytest.raises(AgentError, match=r"image_url\.url"):
        converted({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})


def test_at_most_five_problems_are_told() -> None:
    with pytest.raises(BadRequest) as raised:
        converted(*([{"role": "user"}] * 10_000))
    assert raised.value.message.count("required") == 5
