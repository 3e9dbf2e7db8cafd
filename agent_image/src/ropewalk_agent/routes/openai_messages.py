"""A caller's messages, in OpenAI's shape, as a history and a question in Strands' shape. Pure: no I/O, no Strands."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

from pydantic_core import from_json

from ropewalk_agent.routes.openai_request import (
    AssistantMessage,
    AssistantPart,
    BadRequest,
    InstructionMessage,
    Message,
    TextPart,
    ToolMessage,
    UserMessage,
)

_IMAGE_FORMATS = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A caller's messages as a turn wants them; `history` holds no tool call without its result."""

    instructions: str
    history: tuple[dict[str, Any], ...]
    query: str
    content: tuple[dict[str, Any], ...]
    """The question's blocks where it is more than text, else empty."""


def conversation(messages: list[Message]) -> Conversation:
    """Return the messages as a history that models take, and the question; raises BadRequest where they are none.

    Roles take turns in it, beginning with the user's, and each tool call is answered in the very next message. No text
    is blank, and tool calls have ids of their own: nine letters and digits, the only ones that every provider takes.
    """
    instructions: list[str] = []
    turns: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    calls = count(1)
    last: tuple[int, str] = (0, messages[0].role)
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        if isinstance(message, InstructionMessage):
            instructions.append(_text(message.content))
            continue
        if missing and not isinstance(message, ToolMessage):
            _refuse(path, f"the tool call {next(iter(missing))} has no result; send a tool message for each call first")
        match message:
            case UserMessage():
                blocks = _user_blocks(message, path)
                if turns and _has_results(turns[-1]):
                    _say(turns, "assistant", [{"text": "(No answer was given.)"}])
                _say(turns, "user", blocks)
            case AssistantMessage():
                missing = _call_ids(message, path, calls)
                blocks = _assistant_blocks(message, path, missing)
                if blocks:
                    if not turns:
                        _say(turns, "user", [{"text": "(The assistant speaks first.)"}])
                    _say(turns, "assistant", blocks)
            case ToolMessage():
                if message.tool_call_id not in missing:
                    _refuse(f"{path}.tool_call_id", "is no open tool call of the assistant's message before")
                content = [{"text": _text(message.content) or "(empty)"}]
                result = {"toolUseId": missing.pop(message.tool_call_id), "status": "success", "content": content}
                _say(turns, "user", [{"toolResult": result}])
        last = i, message.role
    if last[1] != "user":
        _refuse(f"messages[{last[0]}].role", f"is {last[1]}; the last message must be the user's")
    question = turns.pop()["content"]
    only_text = all("text" in block for block in question)
    return Conversation(
        instructions="\n\n".join(filter(None, instructions)),
        history=tuple(turns),
        query="\n\n".join(block["text"] for block in question if "text" in block),
        content=() if only_text else tuple(question),
    )


def _say(turns: list[dict[str, Any]], role: str, blocks: list[dict[str, Any]]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1] = {"role": role, "content": [*turns[-1]["content"], *blocks]}
    else:
        turns.append({"role": role, "content": blocks})


def _has_results(message: dict[str, Any]) -> bool:
    return any("toolResult" in block for block in message["content"])


def _user_blocks(message: UserMessage, path: str) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        blocks = [{"text": message.content}]
    else:
        blocks = [
            {"text": part.text}
            if isinstance(part, TextPart)
            else _image(part.image_url.url, f"{path}.content[{i}].image_url.url")
            for i, part in enumerate(message.content)
        ]
    blocks = [block for block in blocks if "text" not in block or block["text"].strip()]
    if not blocks:
        _refuse(f"{path}.content", "is empty; say something")
    return blocks


def _call_ids(message: AssistantMessage, path: str, calls: Iterator[int]) -> dict[str, str]:
    """Return the ids that the message's tool calls get in the history, by those that they have."""
    ids: dict[str, str] = {}
    for i, call in enumerate(message.tool_calls or []):
        if call.id in ids:
            _refuse(f"{path}.tool_calls[{i}].id", "names two calls of the same message; give each its own id")
        ids[call.id] = f"call{next(calls):05}"
    return ids


def _assistant_blocks(message: AssistantMessage, path: str, ids: dict[str, str]) -> list[dict[str, Any]]:
    text = _text(message.content or "") or _text(message.refusal or "")
    blocks: list[dict[str, Any]] = [{"text": text}] if text else []
    for i, call in enumerate(message.tool_calls or []):
        arguments = _arguments(call.function.arguments, f"{path}.tool_calls[{i}].function.arguments")
        blocks.append({"toolUse": {"toolUseId": ids[call.id], "name": call.function.name, "input": arguments}})
    return blocks


def _arguments(text: str, path: str) -> dict[str, Any]:
    try:
        value = from_json(text or "{}", allow_inf_nan=False)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        _refuse(path, "is not a JSON object")
    return value


def _text(content: str | list[TextPart] | list[AssistantPart]) -> str:
    """Return the text; "" where it is blank, which not every provider takes."""
    if not isinstance(content, str):
        content = "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
    return content if content.strip() else ""


def _image(url: str, path: str) -> dict[str, Any]:
    head, _, data = url.partition(",")
    kind, *parameters = head.removeprefix("data:").lower().split(";")
    if not head.startswith("data:") or parameters[-1:] != ["base64"] or kind not in _IMAGE_FORMATS:
        _refuse(path, f"is no data:{'|'.join(_IMAGE_FORMATS)};base64, URL; this agent fetches no images")
    try:
        image = base64.b64decode(data, validate=True)
    except ValueError:
        image = b""
    if not image:
        _refuse(path, "holds no base64")
    return {"image": {"format": _IMAGE_FORMATS[kind], "source": {"bytes": image}}}


def _refuse(path: str, why: str) -> NoReturn:
    raise BadRequest(f"{path}: {why}", path)
