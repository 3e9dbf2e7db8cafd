"""The environment, read once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How the demo model behaves; times in seconds."""

    port: int = 8080
    delay_seconds: float = 0.0
    chunk_seconds: float = 0.0


class InvalidSettings(ValueError):
    """A variable that cannot be used; the message names it."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; InvalidSettings names the first variable that is wrong."""
    return Settings(
        port=_whole(environment, "ROPEWALK_PORT", 8080, 65535),
        delay_seconds=_whole(environment, "ROPEWALK_DEMO_DELAY_MILLISECONDS", 0, 600_000) / 1000,
        chunk_seconds=_whole(environment, "ROPEWALK_DEMO_CHUNK_MILLISECONDS", 0, 60_000) / 1000,
    )


def _whole(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) > most:
        raise InvalidSettings(f"{name} is {text!r}; use a whole number from 0 to {most}")
    return int(text)
