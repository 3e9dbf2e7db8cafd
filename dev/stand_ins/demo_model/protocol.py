"""OpenAI's chat completions as bytes: requests are checked, answers and chunks are written. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from demo_model.plan import Call

MODEL = "ropewalk-demo"
Json = dict[str, Any]
_CHUNK_WORDS = 4


class Refused(Exception):
    """A request that is answered with an error in OpenAI's format."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> Json:
        """Return OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Request:
    """What a request asks for."""

    messages: list[Json]
    tools: list[Json]
    stream: bool
    include_usage: bool
    tool_choice: str
    parallel: bool
    max_tokens: int | None


@dataclass(frozen=True)
class Reply:
    """What is answered: a text or calls, with the words counted."""

    id: str
    created: int
    prompt_tokens: int
    text: str = ""
    calls: tuple[Call, ...] = ()
    cut: bool = field(default=False)

    @property
    def finish_reason(self) -> str:
        """Return why the answer ends."""
        return "length" if self.cut else "tool_calls" if self.calls else "stop"

    @property
    def usage(self) -> Json:
        """Return the counted words as OpenAI's usage."""
        completion = sum(1 + len(_arguments(call).split()) for call in self.calls) + len(self.text.split())
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


def parsed(body: bytes) -> Request:
    """Return the request in a body; Refused says what is wrong with it."""
    try:
        asked = json.loads(body)
    except ValueError:
        raise Refused(400, "the body is not JSON; send a JSON object with messages") from None
    if not isinstance(asked, dict):
        raise Refused(400, f"the body is a JSON {type(asked).__name__}; send an object with messages")
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages is missing or empty; send a list with at least one message", "messages")
    _check_messages(messages)
    tools = asked.get("tools") or []
    for index, item in enumerate(tools if isinstance(tools, list) else [None]):
        function = item.get("function") if isinstance(item, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refused(400, f"tools[{index}] has no function with a name", f"tools[{index}]")
        if not isinstance(function.get("description") or "", str):
            raise Refused(400, f"tools[{index}] has a description that is no string", f"tools[{index}]")
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise Refused(400, f"max_tokens is {limit!r}; use a whole number of 1 or more", "max_tokens")
    options = asked.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refused(400, f"stream_options is {options!r}; use an object with include_usage", "stream_options")
    return Request(
        messages=messages,
        tools=[item["function"] for item in tools],
        stream=bool(asked.get("stream")),
        include_usage=bool(options.get("include_usage")),
        tool_choice=_tool_choice(asked.get("tool_choice"), tools),
        parallel=asked.get("parallel_tool_calls") is not False,
        max_tokens=limit,
    )


def _tool_choice(choice: Any, tools: list[Json]) -> str:
    """Return auto, required, none, or `=` and the name of the tool to call."""
    if choice is None or choice in ("auto", "none", "required"):
        return choice or "auto"
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in [item["function"]["name"] for item in tools]:
        raise Refused(400, f"tool_choice is {choice!r}; use auto, none, required or a function of tools", "tool_choice")
    return f"={name}"


def _check_messages(messages: list[Any]) -> None:
    """Refuse what OpenAI refuses, above all a tool call without its result: clients must keep their history whole."""
    waiting: list[str] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise Refused(400, f"{where}.role is {role!r}; use system, developer, user, assistant or tool", where)
        if role == "tool":
            call_id = message.get("tool_call_id")
            if call_id not in waiting:
                raise Refused(400, f"{where} answers tool call {call_id!r}, which no message before it makes", where)
            waiting.remove(call_id)
            continue
        if waiting:
            raise Refused(400, f"{where} comes before the result of tool call {waiting[0]!r}", where)
        if role == "assistant":
            waiting = _call_ids(message.get("tool_calls") or [], where)
    if waiting:
        raise Refused(400, f"tool call {waiting[0]!r} has no result; add a message with role tool", "messages")


def _call_ids(calls: Any, where: str) -> list[str]:
    for index, call in enumerate(calls if isinstance(calls, list) else [None]):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or "name" not in function or not isinstance(call.get("id"), str):
            raise Refused(
                400, f"{where}.tool_calls[{index}] is no call; give it an id and a function with a name", where
            )
    return [call["id"] for call in calls]


def text_of(message: Json) -> str:
    """Return the text of a message, whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict) and "text" in part)


def prompt_words(messages: list[Json]) -> int:
    """Return how many words the messages hold."""
    count = 0
    for message in messages:
        count += len(text_of(message).split())
        for call in (message.get("tool_calls") or ()) if message["role"] == "assistant" else ():
            count += 1 + len(str(call["function"].get("arguments", "")).split())
    return count


def _arguments(call: Call) -> str:
    return json.dumps(call.arguments)


def _tool_calls(reply: Reply) -> list[Json]:
    return [
        {
            "index": index,
            "id": f"call_{reply.id}_{index}",
            "type": "function",
            "function": {"name": call.tool, "arguments": _arguments(call)},
        }
        for index, call in enumerate(reply.calls)
    ]


def completion(reply: Reply) -> bytes:
    """Return the whole answer as one JSON object."""
    message: Json = {"role": "assistant", "content": reply.text or None}
    if reply.calls:
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in _tool_calls(reply)
        ]
    return json.dumps(
        {
            "id": f"chatcmpl-{reply.id}",
            "object": "chat.completion",
            "created": reply.created,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            "usage": reply.usage,
        }
    ).encode()


def chunks(reply: Reply, include_usage: bool) -> Iterator[bytes]:
    """Return the answer as server-sent events: pieces of a few words, or the calls, then the end and the usage."""
    head = json.dumps(
        {"id": f"chatcmpl-{reply.id}", "object": "chat.completion.chunk", "created": reply.created, "model": MODEL}
    )[:-1]
    tail = ', "usage": null' if include_usage else ""

    def event(delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return f'data: {head}, "choices": [{json.dumps(choice)}]{tail}}}\n\n'.encode()

    yield event({"role": "assistant", "content": None if reply.calls else ""})
    for call in _tool_calls(reply):
        function = call["function"]
        yield event({"tool_calls": [{**call, "function": {**function, "arguments": ""}}]})
        yield event({"tool_calls": [{"index": call["index"], "function": {"arguments": function["arguments"]}}]})
    # With their spaces and line ends: joined they are the text again.
    pieces = reply.text.split(" ")
    for start in range(0, len(pieces) if reply.text else 0, _CHUNK_WORDS):
        piece = " ".join(pieces[start : start + _CHUNK_WORDS])
        yield event({"content": piece + (" " if start + _CHUNK_WORDS < len(pieces) else "")})
    yield event({}, reply.finish_reason)
    if include_usage:
        yield f'data: {head}, "choices": [], "usage": {json.dumps(reply.usage)}}}\n\n'.encode()
    yield b"data: [DONE]\n\n"
