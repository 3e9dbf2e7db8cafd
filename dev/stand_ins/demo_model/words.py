"""Words, numbers and names in a text. Pure, and as simple as a demonstration may be."""

import math
import re

_WORD = re.compile(r"[^\W_][\w.-]*[^\W_]|[^\W_]|[-+*/^×÷](?=\s)")
_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w-]|\.\d)", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
# "3*4" as people type it, but neither a date (2026-11-21) nor a name (web-1).
_TIGHT = re.compile(r"(?<!\S)\(?(\d+(?:\.\d+)?)([-+*/^×÷])(\d+(?:\.\d+)?)\)?(?=[\s?.,!=]|$)")
_SPLIT_NAME = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")

_MEANS = {
    **dict.fromkeys(("plus", "sum", "added", "adding", "total", "+"), "add"),
    **dict.fromkeys(("minus", "subtracted", "difference", "-"), "subtract"),
    **dict.fromkeys(("times", "multiplied", "product", "*", "×"), "multiply"),
    **dict.fromkeys(("divided", "quotient", "/", "÷"), "divide"),
    **dict.fromkeys(("squared", "cubed", "raised", "raise", "^"), "power"),
    **dict.fromkeys(("wrong", "broken", "unhealthy", "failing", "crashing", "problem", "problems"), "describe"),
}
_NUMERALS_IN_ORDER = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_NUMERALS = {word: value for value, word in enumerate(_NUMERALS_IN_ORDER.split())}
_WITHOUT_MEANING = (
    "a about all am an and any are as at be been by can could did do does for from get give had has have how i if in "
    "into is it its list many me much my no not now of on one or our please run running show tell than that the them "
    "then there these they this to us use using was we were what when where which who why will with without would you "
    "your"
)
STOP_WORDS = frozenset(_WITHOUT_MEANING.split())


def spaced(text: str) -> str:
    """Return the text with 1,000 as 1000 and 3*4 as 3 * 4."""
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return _TIGHT.sub(r"\1 \2 \3", text)


def stem(word: str) -> str:
    """Return the word that stands for this one: its synonym, or itself without a plural s."""
    word = word.lower()
    if word in _MEANS:
        return _MEANS[word]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def words(text: str) -> list[str]:
    """Return the words of a text in small letters, in order; names such as kube-system stay whole."""
    return [match.lower() for match in _WORD.findall(text)]


def stems(text: str) -> frozenset[str]:
    """Return the stems of the words that carry meaning."""
    return frozenset(stem(word) for word in words(text) if word not in STOP_WORDS)


def name_parts(name: str) -> frozenset[str]:
    """Return the stems in an identifier: pod_management and podManagement give pod and management."""
    return frozenset(stem(part) for part in _SPLIT_NAME.split(name) if part and part.lower() not in STOP_WORDS)


def numbers(text: str) -> list[int | float]:
    """Return the numbers of a text in order, in figures or in words up to twenty."""
    found: list[tuple[int, int | float]] = [
        (match.start(), number(match[0])) for match in _NUMBER.finditer(text) if _is_finite(match[0])
    ]
    for match in re.finditer(r"[A-Za-z]+", text):
        word = match[0].lower()
        if word in _NUMERALS:
            found.append((match.start(), _NUMERALS[word]))
        elif word in ("squared", "cubed"):
            found.append((match.start(), 2 if word == "squared" else 3))
    values = [value for _, value in sorted(found)]
    if len(values) == 2 and re.search(r"\b(?:subtract|take)\b.*\bfrom\b", text, re.IGNORECASE):
        values.reverse()
    return values


def number(text: str) -> int | float:
    """Return the number that a text is, whole where it is written so."""
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _is_finite(text: str) -> bool:
    # What is beyond a float has no form in JSON, and beyond some thousand digits Python reads no integer.
    return math.isfinite(float(text))


def last_number(text: str) -> int | float | None:
    """Return the last number of a text: in `3 * 4 = 12` the result."""
    found = [each for each in _NUMBER.findall(text) if _is_finite(each)]
    return number(found[-1]) if found else None


def summary(text: str, most: int = 200) -> str:
    """Return the text on one line, cut after so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
