"""What somebody who waits for figures sees meanwhile."""

from __future__ import annotations

import sys
import time


def say(what: str) -> None:
    """Print a line with the time (UTC) where it does not mix with the figures."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {what}", file=sys.stderr, flush=True)
