"""A defect of the bridge itself: it ends, for it would answer /health for ever and never serve again."""

import asyncio
import os
import socket
from typing import Any

import pytest

from mcp_stdio import BY_HAND, PER_SESSION, QUICK, SHARED
from ropewalk_mcp_stdio import supervisor, trial
from ropewalk_mcp_stdio.options import ServeOptions
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.serve import serve


async def broken(*_: Any) -> None:
    """Fail in a way that nobody has thought of."""
    raise ZeroDivisionError


@pytest.mark.parametrize("mode", [SHARED, PER_SESSION])
async def test_a_bridge_whose_own_work_fails_ends_and_says_so(
    mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "greet", broken)
    monkeypatch.setattr(trial, "greet", broken)
    options = ServeOptions("tested", 0, "/mcp", mode, 1, 300, None, None, BY_HAND)
    program = Program("tested", BY_HAND, dict(os.environ), timing=QUICK)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended_well = await asyncio.wait_for(serve(options, program, listener, signals=False), 30)
    assert not ended_well
    assert "the bridge has failed and ends" in caplog.messages
