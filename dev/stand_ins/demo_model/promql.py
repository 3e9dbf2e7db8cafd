"""Puts a question about a process, such as how much memory it uses, into PromQL. Pure.

It knows the metrics that Prometheus' client libraries give every process, and finds the process by its job's name.
"""

import re

from demo_model.words import STOP_WORDS, words

# The words that ask for a figure, and the figure, where %s takes the selector.
_FIGURES = (
    ({"memory", "ram", "rss"}, "process_resident_memory_bytes%s"),
    ({"cpu", "cores"}, "rate(process_cpu_seconds_total%s[5m])"),
    ({"descriptors", "fds"}, "process_open_fds%s"),
    ({"uptime"}, "time() - process_start_time_seconds%s"),
    ({"target", "targets"}, "up%s"),
)
_SUBJECT = re.compile(
    r"\b(?:does|did|do|is|what's|has|of|by|for)\s+((?:(?!\b(?:of|by|for)\b).)+?)"
    r"(?=\s+(?:us|need|tak|consum|hav|grow|develop|chang|over|during|in|since|now|at)\w*\b|[?.!,;](?:\s|$)|$)",
    re.IGNORECASE,
)
_PERIOD = re.compile(r"\b(?:last|past|previous)\s+(?:\d+\s+)?(?:minutes?|hours?|days?|weeks?)\b", re.IGNORECASE)
_NO_NAMES = {"current", "file", "much", "most", "open", "usage", "use"}


def expression(text: str) -> str | None:
    """Return the PromQL that answers a question, or None when it asks for no figure that every process has.

    Who speaks of metrics wants their names, not their values.
    """
    said = set(words(text))
    for asked_by, figure in _FIGURES:
        if asked_by & said and "metrics" not in said:
            return figure % _selector(_subject(text, asked_by))
    return None


def over_time(text: str) -> bool:
    """Tell whether a question is about a period, rather than about now."""
    return bool(_PERIOD.search(text))


def _subject(text: str, asked_by: set[str]) -> list[str]:
    """Return the words of what a question is about: `API server` in `how much memory does the API server use?`."""
    # Most name it after the figure: memory of what. What stands before may belong to another question.
    after = re.split(rf"\b(?:{'|'.join(asked_by)})\b", text, maxsplit=1, flags=re.IGNORECASE)[-1]
    for found in [*_SUBJECT.finditer(after), *_SUBJECT.finditer(text)]:
        named = [word for word in words(found[1].replace("'s", "")) if word not in STOP_WORDS | _NO_NAMES | asked_by]
        if named:
            return named
    return []


def _selector(name: list[str]) -> str:
    """Return what selects the jobs with these words in their names: `API server` is found as apiserver, too."""
    if not name:
        return ""
    pattern = "[-_. ]?".join(word.replace(".", "[.]") for word in name)
    return f'{{job=~"(?i).*{pattern}.*"}}'
