"""How the end of a child and the end of whoever waits for it meet."""

import asyncio
import os
import sys

import pytest

from ropewalk_mcp_stdio.process import Process


async def test_who_is_cancelled_in_the_moment_that_the_child_ends_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    process = await Process.start(
        [sys.executable, "-c", "input()"],
        dict(os.environ),
        on_line=lambda _line: None,
        on_long=lambda _head, _tail, _size: None,
        on_error_line=lambda _line: None,
        on_room=lambda: None,
    )

    async def gone_just_now(_process: Process) -> None:
        stopping.cancel()

    monkeypatch.setattr(Process, "_gone", gone_just_now)
    stopping = asyncio.create_task(process.stop())
    with pytest.raises(asyncio.CancelledError):
        await stopping
    monkeypatch.undo()
    await process.stop()
