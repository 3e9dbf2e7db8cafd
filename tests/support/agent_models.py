"""A scripted Strands model: it says what the test wrote down, and remembers what it was asked. Calls nothing."""

import json
import threading
from collections.abc import AsyncGenerator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from strands.models.model import Model

from ropewalk_agent.models import BuiltModel, KeyFile
from waiting import eventually


class Gate:
    """Holds a scripted answer until `open` is called, from whatever thread."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        """Let everyone through from now on."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Wait until the gate is open."""
        self.reached.set()
        await eventually(self._opened.is_set)

    async def wait_reached(self) -> None:
        """Wait until a turn stands before the gate."""
        await eventually(self.reached.is_set)


@dataclass(frozen=True)
class Call:
    """The model asks for a tool."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """The model stops because its own bound on tokens is reached."""


Step = str | Call | Cut | Gate | Exception
"""A piece of text, a tool call, a pause, or the failure of the model."""


class ScriptedModel(Model):
    """Answers the n-th call with the n-th list of steps, and every later call with the last one."""

    def __init__(self, *answers: Sequence[Step]) -> None:
        self.answers: list[Sequence[Step]] = list(answers) or [["ok"]]
        self.asked: list[list[dict[str, Any]]] = []
        self.tools_shown: list[list[str]] = []
        self.specs_shown: list[list[Any]] = []
        self.tool_choices: list[Any] = []
        self.system_prompts: list[str | None] = []

    def update_config(self, **_: Any) -> None:
        """Has no settings."""

    def get_config(self) -> dict[str, Any]:
        """Has no settings."""
        return {}

    def structured_output(self, *_: Any, **__: Any) -> Any:
        """Not scripted."""
        raise NotImplementedError

    async def stream(
        self, messages: Any, tool_specs: Any = None, system_prompt: str | None = None, *_: Any, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Play the next answer."""
        steps = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(deepcopy(messages))
        self.system_prompts.append(system_prompt)
        self.specs_shown.append(deepcopy(tool_specs or []))
        self.tool_choices.append(options.get("tool_choice"))
        self.tools_shown.append([spec["name"] for spec in tool_specs or []])
        reason = "end_turn"
        yield {"messageStart": {"role": "assistant"}}
        for i, step in enumerate(steps):
            if isinstance(step, Gate):
                await step.pass_through()
            elif isinstance(step, Exception):
                raise step
            elif isinstance(step, Cut):
                reason = "max_tokens"
            elif isinstance(step, Call):
                reason = "tool_use"
                use = {"name": step.tool, "toolUseId": f"use-{len(self.asked)}-{i}"}
                yield {"contentBlockStart": {"start": {"toolUse": use}}}
                yield {"contentBlockDelta": {"delta": {"toolUse": {"input": json.dumps(step.arguments)}}}}
                yield {"contentBlockStop": {}}
            else:
                yield {"contentBlockStart": {"start": {}}}
                yield {"contentBlockDelta": {"delta": {"text": step}}}
                yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": reason}}
        usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
        yield {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}}

    @property
    def texts_asked(self) -> list[str]:
        """The last text of each call, so the order of the turns."""
        return [asked[-1]["content"][-1].get("text", "") for asked in self.asked]


async def _close() -> None:
    pass


def built(model: Model, key: KeyFile | None = None) -> BuiltModel:
    """Return the model as models.build would."""
    file = key or KeyFile(None)

    def refresh_key() -> None:
        file.read()

    return BuiltModel(model, file, refresh_key, _close)
