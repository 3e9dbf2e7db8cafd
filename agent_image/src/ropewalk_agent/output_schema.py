"""A JSON Schema that somebody else wrote: is it usable, and does an answer fit it? Knows neither models nor turns.

A schema may come from any caller. So nothing that it refers to is fetched, and the check of an answer has a time limit,
which also holds within a regular expression. Call `usable` and `problems` in a thread: a schema of 64 KiB takes about a
second of CPU.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

LARGEST_SCHEMA = 64 * 1024
"""Bytes of an output schema as compact JSON."""
CHECK_SECONDS = 5.0
"""How long the check of one answer may take; an honest one takes milliseconds."""
_MOST_PROBLEMS = 5
_LONGEST_PROBLEM = 300
_KEPT_SCHEMAS = 16

_ends_at: ContextVar[float] = ContextVar("ropewalk_check_ends_at")


class SchemaProblem(ValueError):
    """A schema cannot be used; the text says where and why."""


class Problem(NamedTuple):
    """One way in which an answer does not fit."""

    where: str
    """The place in the answer and the keyword of the schema; quotes no value."""
    words: str
    """The same for the model; may quote the value."""


class OutputSchema:
    """A schema (draft 2020-12, formats not checked) that has been found usable."""

    def __init__(self, document: dict[str, Any], validator: "Validator") -> None:
        self.document = document
        self._validator = validator

    def problems(self, value: Any) -> list[Problem]:
        """Return the first few ways in which `value` does not fit; empty if it does."""
        found: list[Problem] = []
        _ends_at.set(time.monotonic() + CHECK_SECONDS)
        try:
            for error in self._validator.iter_errors(value):
                words = f"{error.json_path}: {error.message}"
                found.append(Problem(f"{error.json_path} ({error.validator})", words[:_LONGEST_PROBLEM]))
                if len(found) == _MOST_PROBLEMS:
                    break
        except TimeoutError:
            found.append(_unfinished(f"the check takes more than {CHECK_SECONDS:g} s"))
        except RecursionError:
            found.append(_unfinished("it is nested too deeply, or the schema refers to itself without end"))
        except Exception as error:
            # A reference may lead to where no schema has to be, so nothing has checked what is there.
            found.append(_unfinished(f"the schema refers to what is no schema: {type(error).__name__}"))
        return found


def usable(document: dict[str, Any]) -> OutputSchema:
    """Return the schema, ready for use; raises SchemaProblem."""
    try:
        text = json.dumps(document, separators=(",", ":"))
        size = len(text.encode())
        if size > LARGEST_SCHEMA:
            raise SchemaProblem(f"it has {size} bytes; use at most {LARGEST_SCHEMA}")
        return _checked(text)
    except RecursionError:
        raise SchemaProblem("it is nested too deeply") from None


@lru_cache(_KEPT_SCHEMAS)
def _checked(text: str) -> OutputSchema:
    # Imported here and below because most agents give no structured answers.
    import regex  # type: ignore[import-untyped]
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    document = json.loads(text)
    for _, node in _nodes(document, "$"):
        # One dialect for all: wherever `$schema` stands, the validator would go on with another, which has no deadline.
        if isinstance(node.get("$schema"), str):
            del node["$schema"]
    # What a pattern is, that library decides which will search for it.
    patterns = FormatChecker(formats=())
    patterns.checks("regex", raises=regex.error)(lambda text: regex.compile(text) is not None)
    try:
        Draft202012Validator.check_schema(document, format_checker=patterns)
    except SchemaError as error:
        raise SchemaProblem(f"{error.json_path}: {error.message[:_LONGEST_PROBLEM]}") from None
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(document))
    for where, node in _nodes(document, "$"):
        for key in ("$ref", "$dynamicRef"):
            try:
                if isinstance(reference := node.get(key), str):
                    resolver.lookup(reference)
            # The others where a pointer leads through what is no schema.
            except (Unresolvable, LookupError, TypeError, ValueError):
                raise SchemaProblem(f"{where}.{key}: {reference!r} is not found within the schema") from None
    # An empty registry knows no address to fetch from.
    return OutputSchema(document, _bounded_validator()(document, registry=Registry()))


def _nodes(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object within a schema, and its place."""
    if isinstance(node, dict):
        yield where, node
        for key, item in node.items():
            yield from _nodes(item, f"{where}.{key}")
    elif isinstance(node, list):
        for i, item in enumerate(node):
            yield from _nodes(item, f"{where}[{i}]")


def _unfinished(why: str) -> Problem:
    return Problem(f"$ ({why})", f"$: {why}")


@cache
def _bounded_validator() -> "Callable[..., Validator]":
    """Return jsonschema's validator for draft 2020-12 with a deadline in each keyword and each regular expression."""
    import jsonschema._keywords
    import jsonschema._utils
    from jsonschema import Draft202012Validator, validators

    # Python's own regular expressions can take for ever and cannot be stopped. These are the only uses of them.
    jsonschema._keywords.re = jsonschema._utils.re = _StoppableRe  # type: ignore[attr-defined]

    def bounded(keyword: Callable[..., Any]) -> Callable[..., Any]:
        def check(*arguments: Any) -> Any:
            _seconds_left()
            return keyword(*arguments)

        return check

    keywords = {name: bounded(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items()}
    return cast("Callable[..., Validator]", validators.extend(Draft202012Validator, keywords))  # type: ignore[no-untyped-call]


class _StoppableRe:
    """What jsonschema uses of the module `re`."""

    @staticmethod
    def search(pattern: str, text: str) -> Any:
        """Search as `re.search` does; raises TimeoutError at the deadline of the check."""
        import regex

        # `concurrent` lets go of the interpreter's lock meanwhile.
        return regex.search(pattern, text, timeout=_seconds_left(), concurrent=True)


def _seconds_left() -> float:
    """Return the time until the deadline; raises TimeoutError behind it."""
    left = _ends_at.get(time.monotonic() + CHECK_SECONDS) - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
