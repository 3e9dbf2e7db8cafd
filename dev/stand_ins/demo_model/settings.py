"""The environment, read once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from stand_in_process import whole_number


@dataclass(frozen=True)
class Settings:
    """How the demo model behaves; times in seconds."""

    delay_seconds: float = 0.0
    chunk_seconds: float = 0.0


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; InvalidSettings names the first variable that is wrong."""
    return Settings(
        delay_seconds=whole_number(environment, "ROPEWALK_DEMO_DELAY_MILLISECONDS", 0, 600_000) / 1000,
        chunk_seconds=whole_number(environment, "ROPEWALK_DEMO_CHUNK_MILLISECONDS", 0, 60_000) / 1000,
    )
