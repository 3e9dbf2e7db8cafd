"""Bedrock's calls run in threads, which nobody can interrupt: how they end all the same."""

import asyncio
from pathlib import Path

from agent_model_desk import Desk, model_document
from agent_providers import IsSilent, provider
from waiting import eventually


async def test_a_call_that_breaks_after_its_turn_has_ended_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-key")
    broken = asyncio.Event()
    async with (
        provider("bedrock", IsSilent(broken)) as server,
        Desk(model_document("bedrock", server.url, tmp_path / "key")) as desk,
    ):
        running = asyncio.create_task(desk.answer())
        await eventually(lambda: len(server.asked) == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        broken.set()
        await asyncio.get_running_loop().shutdown_default_executor()  # returns when the call's thread has ended
        assert len(server.asked) == 1
