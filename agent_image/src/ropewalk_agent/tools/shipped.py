"""The local tools of the image, as plain functions whose docstrings the models read. They change nothing."""

import re
from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

_LARGEST_N = 10_000

_STYLES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "sentence": str.capitalize,
    "trim": str.strip,
    "squeeze": lambda text: " ".join(text.split()),
    "slug": lambda text: re.sub(r"[\W_]+", "-", text.lower()).strip("-"),
}


def current_time(zone: str = "UTC") -> str:
    """Tell the current date and time in a time zone, as RFC 3339 with the zone's offset.

    Args:
        zone: An IANA time zone, such as Europe/Paris.
    """
    try:
        return datetime.now(ZoneInfo(zone)).isoformat(timespec="seconds")
    except (KeyError, ValueError, OSError):
        alike = get_close_matches(zone, sorted(available_timezones())) or ["UTC", "Europe/Paris"]
        raise ValueError(f"zone is {zone!r}; use an IANA time zone, such as {', '.join(alike)}") from None


def format_text(text: str, style: str) -> str:
    """Change the form of a text: its case, its spaces, or all of it into a slug for addresses.

    Args:
        text: The text.
        style: One of upper, lower, title, sentence, trim, squeeze (runs of spaces become one) and slug.
    """
    if style not in _STYLES:
        raise ValueError(f"style is {style!r}; use one of {', '.join(_STYLES)}")
    return _STYLES[style](text)


def fibonacci(n: int) -> str:
    """Give the n-th Fibonacci number in decimal digits; number 0 is 0 and number 1 is 1.

    Args:
        n: Which number, from 0 to 10000.
    """
    if not 0 <= n <= _LARGEST_N:
        raise ValueError(f"n is {n}; use 0 to {_LARGEST_N}")
    number, following = 0, 1
    for _ in range(n):
        number, following = following, number + following
    return str(number)


TOOLS = ("current_time", "format_text", "fibonacci")
