"""What the modules about MCP connections share."""

from __future__ import annotations

import pytest

from ropewalk_agent.tools import mcp


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections list and reconnect in hundredths of a second."""
    monkeypatch.setattr(mcp, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(mcp, "_LEAST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(mcp, "_FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(mcp, "_LONGEST_RETRY_SECONDS", 0.05)
