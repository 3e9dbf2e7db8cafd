"""`python -m chart_reference` writes the table of the chart's values into docs/reference/chart.md, from values.yaml.

The comment above a value is its meaning. What stands outside the two marks of the page is left alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from cluster.layout import REPOSITORY

VALUES = REPOSITORY / "charts" / "ropewalk" / "values.yaml"
PAGE = REPOSITORY / "docs" / "reference" / "chart.md"
BEGIN, END = "<!-- from values.yaml, by make fix -->\n", "<!-- end of values.yaml -->\n"
_KEY = re.compile(r"( *)([A-Za-z]\w*):")


class Value(NamedTuple):
    """A commented key of values.yaml."""

    path: str
    meaning: str
    default: Any


def values(text: str) -> Iterator[Value]:
    """Every key that has a comment, in the order of the file. Below others, Kubernetes says what they mean."""
    whole = yaml.safe_load(text)
    above: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        if key := _KEY.match(line):
            indent = len(key[1])
            above = [*(each for each in above if each[0] < indent), (indent, key[2])]
            if comment:
                names = [name for _, name in above]
                yield Value(".".join(names), " ".join(comment), _below(whole, names))
        comment = []


def table(text: str) -> str:
    """The values as Markdown: a heading and a table for each of the file's first level, or a row of the first table."""
    known = list(values(text))
    groups = [each for each in known if "." not in each.path and _holds_others(each, known)]
    singles = [each for each in known if "." not in each.path and not _holds_others(each, known)]
    parts = [_rows(singles)]
    for group in groups:
        below = [each for each in known if each.path.startswith(f"{group.path}.")]
        parts.append(f"### {group.path}\n\n{_escaped(group.meaning)}\n\n{_rows(below, known)}")
    return "\n".join(parts)


def page(before: str, text: str) -> str:
    """The page with the table of these values. Raises ValueError where it has no marks."""
    if before.count(BEGIN) != 1 or before.count(END) != 1:
        raise ValueError(f"{PAGE.name} has not one line {BEGIN.strip()!r} and one {END.strip()!r}; add them")
    head, rest = before.split(BEGIN)
    return f"{head}{BEGIN}\n{table(text)}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write the page; 0."""
    PAGE.write_text(page(PAGE.read_text(), VALUES.read_text()))
    return 0


def _below(whole: Mapping[str, Any], names: list[str]) -> Any:
    found: Any = whole
    for name in names:
        found = found[name]
    return found


def _holds_others(value: Value, known: list[Value]) -> bool:
    return any(each.path.startswith(f"{value.path}.") for each in known)


def _rows(rows: list[Value], known: list[Value] | None = None) -> str:
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for each in rows:
        default = "" if known and _holds_others(each, known) else f"`{json.dumps(each.default, ensure_ascii=False)}`"
        lines.append(f"| `{each.path}` | {default} | {_escaped(each.meaning)} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text of a comment as Markdown: what is set as code stays, and nothing else is taken for a tag or a column."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", r"\|") if part.startswith("`") else re.sub(r"([|<*_])", r"\\\1", part) for part in parts
    )


if __name__ == "__main__":
    sys.exit(main())
