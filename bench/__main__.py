"""`python -m bench [NAME …]`: measure, and print a Markdown table of figures beside their goals."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import signal
import sys

_PARTS = (
    "throughput",
    "lifecycle",
    "imports",
    "tools",
    "mcp_faults",
    "stdio",
    "soak",
    "scale",
    "standby",
    "autoscaling",
    "pods",
    "swaps",
    "upgrade",
    "truth",
    "faults",
)
# It has to be named: nobody who measures the rest wants to wait for alerts for three quarters of an hour.
_LONG_PARTS = ("alerts",)


def main() -> int:
    """Run the named parts, or all but the long ones."""
    known = (*_PARTS, *_LONG_PARTS)
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="NAME", help=f"which to run: {', '.join(known)} (all but {', '.join(_LONG_PARTS)})"
    )
    chosen = parser.parse_args().parts or list(_PARTS)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"{', '.join(unknown)} is no part; there are {', '.join(known)}")
    # What a part has begun in a cluster, it ends in its finally.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    print(f"On {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}:\n")
    print("| measure | figure | goal |\n|---|---|---|")
    for name in chosen:
        print(f"Measuring {name} …", file=sys.stderr, flush=True)
        for row in importlib.import_module(f"bench.{name}").run():
            print(f"| {' | '.join(map(_cell, row))} |", flush=True)
    return 0


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
