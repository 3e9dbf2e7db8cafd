"""Decides what to do with a text: which tools to call, with what, in which order. Pure and without memory.

The plan of a text is a list of waves; the calls of one wave are made at once, and a wave may use the number that the
wave before gave.
"""

import re
from dataclasses import dataclass

from demo_model import promql
from demo_model.arguments import PREVIOUS, Previous, filled, names_namespace, takes_promql
from demo_model.dates import span
from demo_model.schema import Json, sound
from demo_model.words import last_number, name_parts, numbers, spaced, stems

_STEPS = re.compile(r",?\s*\b(?:and then|then|after that|afterwards)\b|;|[.?!]\s+|\n+", re.IGNORECASE)
_PARTS = re.compile(r",\s*(?:and\s+)?|\s+and\s+", re.IGNORECASE)
# A word of the tool's name is enough; words of its description alone are not.
_ENOUGH = 3
# A code such as INVALID_INPUT, or words like "Error while"; `Result: 42` is none.
_FAILED = re.compile(r"\s*(?:[A-Z]+_?[A-Z]+:|(?i:error))")


@dataclass(frozen=True)
class Tool:
    """A tool as the request offers it, with the words by which it is found."""

    name: str
    parameters: Json
    name_words: frozenset[str]
    parameter_words: frozenset[str]
    description_words: frozenset[str]

    @property
    def takes_promql(self) -> bool:
        """Whether it asks a Prometheus what it is told to."""
        return any(takes_promql(name, part) for name, part in self.parameters.get("properties", {}).items())


@dataclass(frozen=True)
class Call:
    """One call; its arguments may hold PREVIOUS."""

    tool: str
    arguments: Json


@dataclass(frozen=True)
class Plan:
    """The waves of calls, and what kept a tool that fits from being called."""

    waves: tuple[tuple[Call, ...], ...]
    unfilled: str = ""


def tool(function: Json) -> Tool:
    """Return a tool from OpenAI's description of a function."""
    parameters = sound(function.get("parameters"))
    parts: set[str] = set()
    for name, part in parameters.get("properties", {}).items():
        parts |= name_parts(name) | {str(option).lower() for option in part.get("enum", [])}
    return Tool(
        name=function["name"],
        parameters=parameters,
        name_words=name_parts(function["name"]),
        parameter_words=frozenset(parts),
        description_words=stems(function.get("description") or ""),
    )


def plan(text: str, tools: list[Tool], *, forced: str | None = None, parallel: bool = True) -> Plan:
    """Return what to call for a text. `forced` names the only tool that may be called, whether it fits or not."""
    waves: list[tuple[Call, ...]] = []
    unfilled = ""
    for step in _STEPS.split(spaced(text)):
        if not step.strip():
            continue
        calls = _parts(step, tools) if forced is None and not waves else []
        if calls:
            waves += [tuple(calls)] if parallel else [(call,) for call in calls]
            continue
        chosen = _best(step, tools) if forced is None else next((t for t in tools if t.name == forced), None)
        if chosen is None:
            continue
        chain, missing = _chain(chosen, step, has_previous=bool(waves))
        if not missing or forced is not None:
            waves += [(call,) for call in chain]
        else:
            unfilled = (
                f"The tool {chosen.name} fits, but it needs {' and '.join(missing)}, which the text does not give."
            )
        if forced is not None:
            break
    return Plan(tuple(waves), unfilled)


def _best(text: str, tools: list[Tool]) -> Tool | None:
    said = stems(text)
    best, most = None, _ENOUGH - 1
    for candidate in tools:
        score = 5 * len(said & candidate.name_words) + 2 * len(said & candidate.parameter_words)
        score += len(said & candidate.description_words)
        score += 2 * ("namespace" in candidate.parameter_words - said and names_namespace(text))
        score += 6 * ("date" in candidate.parameter_words and span(text) is not None)
        if candidate.takes_promql and promql.expression(text):
            score += 6 + 3 * (promql.over_time(text) and "range" in candidate.name_words)
        if score > most:
            best, most = candidate, score
    return best


def _parts(step: str, tools: list[Tool]) -> list[Call]:
    """Return a call for each part of `2 plus 3 and 4 times 5`, or nothing unless each part stands by itself."""
    parts = [part for part in _PARTS.split(step) if part.strip()]
    calls = []
    for part in parts:
        chosen = _best(part, tools)
        if chosen is None:
            return []
        arguments, missing = filled(chosen.parameters, part, has_previous=False)
        if missing:
            return []
        calls.append(Call(chosen.name, arguments))
    # Two parts that ask the same are one question with a comma in it.
    return calls if len(calls) > 1 and len({repr(call) for call in calls}) == len(calls) else []


def _chain(chosen: Tool, step: str, *, has_previous: bool) -> tuple[list[Call], list[str]]:
    """Return one call, or for `add 1, 2 and 3` one for each number after the first."""
    arguments, missing = filled(chosen.parameters, step, has_previous=has_previous)
    calls = [Call(chosen.name, arguments)]
    names = list(arguments)
    found = numbers(step)
    if not missing and len(names) == 2 and len(found) > 2 and [arguments[name] for name in names] == found[:2]:
        calls += [Call(chosen.name, {names[0]: PREVIOUS, names[1]: value}) for value in found[2:]]
    return calls, missing


def next_wave(made: Plan, results: list[list[str]], *, loop: bool = False) -> tuple[Call, ...]:
    """Return the calls to make now, given the results of each wave before; none if the answer is due."""
    done = len(results)
    if loop and made.waves:
        return made.waves[0]
    if done >= len(made.waves) or (results and any(_FAILED.match(text) for text in results[-1])):
        return ()
    calls = []
    for call in made.waves[done]:
        arguments = dict(call.arguments)
        for name, value in arguments.items():
            if isinstance(value, Previous):
                number = last_number(results[-1][-1]) if results and results[-1] else None
                if number is None:
                    return ()
                arguments[name] = number
        calls.append(Call(call.tool, arguments))
    return tuple(calls)
