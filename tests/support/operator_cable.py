"""The network between one operator and the API server, which can be cut without anybody else noticing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml


class Cable:
    """Carries bytes to a port of this machine and back. While it is `cut`, nothing gets there; answers come back.

    What waits in it of a client that has reset its connection is gone, as it is in a kernel's buffers.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self.port = 0
        self.waiting = 0
        """Connections of which something waits."""

    def cut(self) -> None:
        """Nothing that is sent arrives any more, and nobody is told."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """Everything passes again, what has waited first."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def kubeconfig(self, of: Path, to: Path) -> Path:
        """A kubeconfig that leads through this cable."""
        config = yaml.safe_load(of.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        to.write_text(json.dumps(config))
        return to

    async def serve(self, started: threading.Event) -> None:
        """Carry until cancelled."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    def run(self, started: threading.Event) -> None:
        """In a thread of its own, until `end`."""
        self._task = self._loop.create_task(self.serve(started))
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(self._cancel_all())
            self._loop.close()

    def end(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._task.cancel)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        far, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            # Whoever closes first closes both: there is nobody to read what is left.
            ways = {
                asyncio.create_task(self._carry(near, far_writer, self._whole)),
                asyncio.create_task(self._carry(far, near_writer, _never_cut())),
            }
            _, others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
        finally:
            for writer in (near_writer, far_writer):
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, whole: asyncio.Event) -> None:
        while True:
            try:
                data = await reader.read(65536)
            except ConnectionError:
                return
            if not data:
                return
            self.waiting += 1
            await whole.wait()
            self.waiting -= 1
            if reader.exception() is not None or writer.is_closing():
                return
            writer.write(data)


def _never_cut() -> asyncio.Event:
    whole = asyncio.Event()
    whole.set()
    return whole


@contextmanager
def cable(target_port: int) -> Iterator[Cable]:
    """A cable that carries, in a thread of its own."""
    laid = Cable(target_port)
    started = threading.Event()
    thread = threading.Thread(target=laid.run, args=(started,), name="cable")
    thread.start()
    try:
        assert started.wait(60)
        yield laid
    finally:
        laid.end()
        thread.join()
