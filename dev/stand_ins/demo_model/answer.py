"""Words the answers. Pure; says what it is wherever no tool has spoken."""

import re

from demo_model.words import summary

_MOST_CHARACTERS = 50_000
_SAID = re.compile(r"\b(?:ask|asked|say|said|tell|told|question|message)\b", re.IGNORECASE)
_BEFORE = re.compile(r"\b(?:before|earlier|previous|previously|last|first)\b", re.IGNORECASE)
_NAME = re.compile(r"\bmy name is ([\w-]+)", re.IGNORECASE)


def from_tools(results: list[tuple[str, str]]) -> str:
    """Return an answer that holds what each tool said, in order; results are pairs of a tool's name and its text."""
    lines = []
    for tool, text in results:
        said = text.strip() or "nothing"
        lines.append(f"The tool {tool} answered:{chr(10) if chr(10) in said else ' '}{said}")
    return "\n".join(lines)[:_MOST_CHARACTERS]


def without_tools(text: str, earlier: list[str], tool_count: int, unfilled: str) -> str:
    """Return an answer to a text for which no tool was called; `earlier` are the user's texts before it."""
    if unfilled:
        return f"{unfilled} Please say it in one sentence with everything in it. {_WHAT_I_AM}"
    if re.search(r"\bwhat(?:'s| is) my name\b", text, re.IGNORECASE):
        for before in reversed(earlier):
            if found := _NAME.search(before):
                return f"You said that your name is {found[1]}. {_WHAT_I_AM}"
    if _SAID.search(text) and _BEFORE.search(text):
        if not earlier:
            return f"This is your first message in this conversation. {_WHAT_I_AM}"
        asked = "\n".join(f'- "{summary(before)}"' for before in earlier[-5:])
        return f"Before this you asked:\n{asked}\n{_WHAT_I_AM}"
    offered = f"none of the {tool_count} tools fits" if tool_count else "no tools were given to me"
    return (
        f'{_WHAT_I_AM} Here {offered}. You said: "{summary(text)}". '
        f"This is message {len(earlier) + 1} of yours in this conversation."
    )


_WHAT_I_AM = "(I am the demo model: not a language model. I pick tools by matching words.)"
