"""The transport that gathers writes: what leaves, when, and in how many pieces."""

import asyncio
from typing import Any

from ropewalk_agent.transport import GatheringTransport


class RecordingTransport:
    def __init__(self) -> None:
        self.done: list[Any] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


def gathering() -> tuple[RecordingTransport, GatheringTransport]:
    real = RecordingTransport()
    return real, GatheringTransport(real, asyncio.get_running_loop())  # type: ignore[arg-type]


async def test_what_is_written_in_one_round_leaves_in_one_piece_and_without_waiting() -> None:
    real, transport = gathering()
    transport.write(b"head ")
    transport.write(b"body")
    assert real.done == []
    await asyncio.sleep(0)
    assert real.done == [b"head body"]
    transport.write(b"more")
    await asyncio.sleep(0)
    assert real.done == [b"head body", b"more"]


async def test_closing_sends_what_is_left_first_and_once() -> None:
    real, transport = gathering()
    transport.write(b"last words")
    transport.close()
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert real.done == [b"last words", "closed"]
