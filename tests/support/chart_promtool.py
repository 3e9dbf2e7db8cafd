"""Debian's promtool, which `make tools` fetches."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cluster.layout import Layout


def promtool(*arguments: str | Path) -> None:
    """Run it; what it has against it is the failure's text."""
    done = subprocess.run([Layout.default().bin / "promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
