"""Answers that fit a JSON Schema: the schema is a tool that the model calls last, and what it says is checked here.

The schema is shown beside the agent's own tools and never run. A model that answers in prose is reminded once, one
whose object does not fit is told once why; then the turn fails. None of this is ever in the history: the session keeps
the question, the real tool calls and the answer as JSON text. What was not validated never leaves here as `value`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

from strands.hooks import AfterModelCallEvent, HookProvider, HookRegistry
from strands.middleware.stages import InvokeModelContext
from strands.types.events import ModelStopReason
from strands.types.tools import ToolChoiceTool, ToolSpec

from ropewalk_agent.errors import AgentError
from ropewalk_agent.output_schema import OutputSchema, Problem
from ropewalk_agent.sessions import Message
from ropewalk_agent.whole import whole

TOOL_NAME = "structured_answer"
_DESCRIPTION = (
    "Gives the final answer. Call this tool exactly once, as your very last step, with the whole answer in the form"
    " of its arguments; text beside it is not read."
)
_FORCE: dict[Literal["tool"], ToolChoiceTool] = {"tool": {"name": TOOL_NAME}}
_WRAPPED = "answer"


class Form:
    """An output schema as the tool that a model is shown."""

    def __init__(self, schema: OutputSchema) -> None:
        self.schema = schema
        self._wrapped = schema.document.get("type") != "object"
        shown = _wrapped(schema.document) if self._wrapped else schema.document
        self.tool_spec = ToolSpec(name=TOOL_NAME, description=_DESCRIPTION, inputSchema={"json": shown})

    def value_of(self, arguments: Any) -> Any:
        """Return the answer that the arguments of a call hold."""
        if self._wrapped and isinstance(arguments, dict):
            return arguments.get(_WRAPPED)
        return arguments


def _wrapped(document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's arguments, which must be an object, for an answer that is something else."""
    shared: dict[str, Any] = {key: document[key] for key in ("$defs", "definitions") if key in document}
    rest = {key: value for key, value in document.items() if key not in shared}
    return {"type": "object", "properties": {_WRAPPED: rest}, "required": [_WRAPPED], **shared}


class StructuredAnswer(HookProvider):
    """The answer of one turn in the making. Give its `call_model` to Strands as middleware, and itself as a hook."""

    def __init__(self, schema: OutputSchema) -> None:
        self._form = Form(schema)
        self._correction: list[Message] = []
        self._told: set[str] = set()
        self._ask_again = False
        self.found = False
        self.value: Any = None
        """The answer; it means something only once it was `found`."""
        self._said = self._raw = ""
        self._problem = "the model was stopped before it gave an answer"

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Tell Strands which calls to make."""
        registry.add_callback(AfterModelCallEvent, self._model_answered)

    def _model_answered(self, event: AfterModelCallEvent) -> None:
        event.retry, self._ask_again = event.retry or self._ask_again, False

    async def call_model(
        self, context: InvokeModelContext, call: Callable[[InvokeModelContext], AsyncGenerator[Any, None]]
    ) -> AsyncGenerator[Any, None]:
        """Show the schema to the model, insist on it in a correction, and judge what comes back."""
        if self._correction:
            context = context.replace(
                messages=[*context.messages, *self._correction],  # type: ignore[list-item]
                tool_specs=[self._form.tool_spec],
                tool_choice=_FORCE,
            )
        else:
            context = context.replace(tool_specs=[*context.tool_specs, self._form.tool_spec])
        try:
            async for event in call(context):
                yield await self._judged(event) if isinstance(event, ModelStopReason) else event
        except Exception as error:
            if not (self._correction and _refuses_force(error)):
                raise
            async for event in call(context.replace(tool_choice=None)):
                yield await self._judged(event) if isinstance(event, ModelStopReason) else event

    async def _judged(self, stop: ModelStopReason) -> ModelStopReason:
        """Return how the call of the model ended, with what concerns the schema taken out."""
        content: list[Any] = list(stop.message["content"])
        corrected, self._correction = bool(self._correction), []
        calls = [block["toolUse"] for block in content if "toolUse" in block]
        answers = [call for call in calls if call["name"] == TOOL_NAME]
        text = "".join(block["text"] for block in content if "text" in block)
        self._raw = json.dumps(answers[-1]["input"], ensure_ascii=False) if answers else text
        if stop.stop_reason not in ("tool_use", "end_turn"):
            self._problem = f"the model stopped early: {stop.stop_reason}"
            return stop
        if len(calls) > len(answers) and not corrected:
            # An answer beside calls whose results it cannot know yet is premature.
            rest = [block for block in content if block.get("toolUse", {}).get("name") != TOOL_NAME]
            return _ended(stop, "tool_use", rest)

        kind, problems = await self._verdict(answers, text)
        if not self.found and kind not in self._told:
            self._told.add(kind)
            self._ask_again = True
            self._correction = whole(_correction(content, calls, text, problems))
        self._problem = "; ".join(where for where, _ in problems)
        said = self._said if self.found else self._raw
        return _ended(stop, "end_turn", [{"text": said or "(nothing)"}])

    async def _verdict(self, answers: list[Any], text: str) -> tuple[str, list[Problem]]:
        """Take the answer if there is one that fits; return the kind of its fault and the problems otherwise."""
        if answers:
            value = self._form.value_of(answers[-1]["input"])
        else:
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                missing = f"it is not given by calling {TOOL_NAME}"
                return "prose", [Problem(missing, missing)]
        problems = await asyncio.to_thread(self._form.schema.problems, value)
        if not problems:
            try:
                self._said = json.dumps(value, ensure_ascii=False, allow_nan=False)
                self._said.encode()
            except ValueError:
                problems = [Problem("$ (JSON)", "$: it holds NaN, an infinity or half a character, which JSON cannot")]
            else:
                self.found, self.value = True, value
        return "misfit", problems

    def failure(self) -> AgentError:
        """Return the error of a turn that ended without a valid answer."""
        message = f"the model's answer does not fit the output schema: {self._problem}"
        return AgentError("invalid_answer", message, raw=self._raw)


def _refuses_force(error: Exception) -> bool:
    """Whether a provider says that this model, or a model that thinks, cannot be made to call a tool."""
    return any(word in str(error) for word in ("tool_choice", "toolChoice", "tool choice"))


def _correction(content: list[Any], calls: list[Any], text: str, problems: list[Problem]) -> list[Message]:
    """Return what the model is shown after its own words: they, and why they are no answer."""
    why = "\n".join(f"- {words}" for _, words in problems)
    words = f"This is not yet the answer:\n{why}\nCall {TOOL_NAME} now, once, with the whole answer."
    if not calls:
        asked: list[Any] = [{"text": words}]
        content = [{"text": text or "(nothing)"}]
    else:
        asked = [
            {"toolResult": {"toolUseId": call["toolUseId"], "status": "error", "content": [{"text": words}]}}
            for call in calls
        ]
    return [{"role": "assistant", "content": content}, {"role": "user", "content": asked}]


def _ended(stop: ModelStopReason, reason: Any, content: list[Any]) -> ModelStopReason:
    return ModelStopReason(reason, {"role": "assistant", "content": content}, stop.usage, stop.metrics)
