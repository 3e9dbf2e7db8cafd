"""From a request to its reply: reads the conversation, plans, answers. Pure; keeps nothing between requests."""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from json import dumps, loads

from demo_model import answer
from demo_model.plan import Plan, Tool, next_wave, plan, tool
from demo_model.protocol import Json, Refused, Reply, Request, prompt_words, text_of

_CONTROL = re.compile(r"\bdemo:(fail|slow|loop)(?:=(\d{1,9}))?\b")


@dataclass(frozen=True)
class Control:
    """What the control words of the last user message ask for."""

    slow_seconds: int = 0
    loop: bool = False


@dataclass(frozen=True)
class Conversation:
    """The last text of the user, the texts before it, and the results of the tools called since."""

    text: str
    earlier: list[str]
    waves: list[list[tuple[str, str]]]


def read(messages: list[Json]) -> Conversation:
    """Return what the messages say."""
    texts: list[str] = []
    waves: list[list[tuple[str, str]]] = []
    names: dict[str, str] = {}
    for message in messages:
        match message["role"]:
            case "user":
                texts.append(text_of(message))
                waves = []
            case "assistant" if message.get("tool_calls"):
                names = {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
                waves.append([])
            case "tool" if waves:
                waves[-1].append((names.get(message["tool_call_id"], "unknown"), text_of(message)))
    return Conversation(texts[-1] if texts else "", texts[:-1], waves)


def control(text: str) -> Control:
    """Return what the control words ask for; Refused if they ask for a failure."""
    slow, loop = 0, False
    for word, value in _CONTROL.findall(text):
        if word == "fail":
            status = int(value or 500)
            status = status if 400 <= status <= 599 else 500
            raise Refused(status, f"demo:fail asked the demo model for status {status}", code="demo_fail")
        slow = min(int(value or 1), 600) if word == "slow" else slow
        loop = loop or word == "loop"
    return Control(slow, loop)


@lru_cache(maxsize=256)
def _tools(described: str) -> list[Tool]:
    return [tool(function) for function in loads(described)]


def reply(request: Request, said: Conversation, asked: Control, created: int) -> Reply:
    """Return the reply to a request."""
    prompt_tokens = prompt_words(request.messages)
    text = _CONTROL.sub("", said.text).strip()
    # The words grow with each turn, so it is unique within a conversation, in which the same call may be made twice.
    identity = blake2b(f"{prompt_tokens} {text}".encode(errors="surrogatepass"), digest_size=8).hexdigest()
    made = Plan(())
    if request.tools and request.tool_choice != "none":
        tools = _tools(dumps(request.tools))
        forced = request.tool_choice[1:] if request.tool_choice.startswith("=") else None
        made = plan(text, tools, forced=forced, parallel=request.parallel)
        if request.tool_choice == "required" and not made.waves:
            made = plan(text, tools, forced=tools[0].name)
        calls = next_wave(made, [[result for _, result in wave] for wave in said.waves], loop=asked.loop)
        if calls:
            return Reply(identity, created, prompt_tokens, calls=calls)
    results = [result for wave in said.waves for result in wave]
    if results:
        words = answer.from_tools(results)
    else:
        words = answer.without_tools(text, said.earlier, len(request.tools), made.unfilled)
    cut = request.max_tokens is not None and len(words.split()) > request.max_tokens
    if cut:
        words = " ".join(words.split()[: request.max_tokens])
    return Reply(identity, created, prompt_tokens, text=words, cut=cut)
