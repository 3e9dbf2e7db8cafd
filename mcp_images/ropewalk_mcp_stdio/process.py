"""One child process: started in a process group of its own, read line by line, ended with all that it started.

It never waits for a child: what the child does not take yet is held by the transport, and `clogged` tells so.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, cast

from ropewalk_mcp_stdio.jsonrpc import LARGEST_MESSAGE_BYTES
from ropewalk_mcp_stdio.lines import Lines

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
_SET_CHILD_SUBREAPER = 36  # prctl(2): PR_SET_CHILD_SUBREAPER
_LONGEST_STDERR_LINE_BYTES = 64 * 1024
# What the child has not read yet may grow to this before requests wait in the bridge instead.
_CLOGGED_BYTES = 1024 * 1024
_TERMINATION_SECONDS = 5.0

_libc = ctypes.CDLL(None)


class StartError(Exception):
    """The program could not be started; the message says which and why."""


def _end_with_the_bridge() -> None:
    # Between fork and exec: whatever ends the bridge, even SIGKILL, ends the child too.
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


class Process(asyncio.SubprocessProtocol):
    """A running child. `on_line` gets each line of its stdout, `on_error_line` each of its stderr."""

    _alive: ClassVar[set[int]] = set()
    reaping_pauses: ClassVar[int] = 0

    def __init__(
        self,
        on_line: Callable[[bytes], None],
        on_long: Callable[[bytes, bytes, int], None],
        on_error_line: Callable[[bytes], None],
        on_room: Callable[[], None],
    ) -> None:
        self._out = Lines(LARGEST_MESSAGE_BYTES, on_line, on_long)
        self._err = Lines(_LONGEST_STDERR_LINE_BYTES, on_error_line, lambda head, _tail, _size: on_error_line(head))
        self._on_room = on_room
        self._out_ended = asyncio.Event()
        self._exited = asyncio.Event()
        self.pid = 0
        self.clogged = False
        self._stdin: asyncio.WriteTransport | None = None
        self._transport: asyncio.SubprocessTransport | None = None

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: dict[str, str],
        *,
        on_line: Callable[[bytes], None],
        on_long: Callable[[bytes, bytes, int], None],
        on_error_line: Callable[[bytes], None],
        on_room: Callable[[], None],
    ) -> "Process":
        """Start the program; StartError says why it cannot be."""
        loop = asyncio.get_running_loop()
        try:
            with reaping_paused():
                _, process = await loop.subprocess_exec(
                    lambda: cls(on_line, on_long, on_error_line, on_room),
                    *command,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=_end_with_the_bridge,
                )
        except FileNotFoundError:
            raise StartError(
                f"there is no program {command[0]!r} in this image; name one by its full path, or one of PATH "
                f"({environment.get('PATH') or 'which is empty'})"
            ) from None
        except OSError as problem:
            raise StartError(f"the program {command[0]!r} cannot be started: {problem.strerror}") from None
        return process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's: the process runs."""
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._alive.add(self.pid)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        self._stdin.set_write_buffer_limits(high=_CLOGGED_BYTES)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Asyncio's: the process has written."""
        (self._out if fd == 1 else self._err).feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Asyncio's: the process has closed one of its streams."""
        if fd == 1:
            self._out.close()
            self._out_ended.set()
        elif fd == 2:
            self._err.close()

    def process_exited(self) -> None:
        """Asyncio's: the process has ended and was reaped."""
        self._alive.discard(self.pid)
        self._exited.set()

    def pause_writing(self) -> None:
        """Asyncio's: the process reads slower than the bridge writes."""
        self.clogged = True

    def resume_writing(self) -> None:
        """Asyncio's: the process has read again."""
        self.clogged = False
        self._on_room()

    def write(self, line: bytes) -> None:
        """Send one line; dropped where the process has gone, which `wait` tells."""
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(line + b"\n")

    async def wait(self) -> str:
        """Wait until the process has ended or closed its stdout; return how, in words."""
        exited = asyncio.ensure_future(self._exited.wait())
        silent = asyncio.ensure_future(self._out_ended.wait())
        try:
            await asyncio.wait((exited, silent), return_when=asyncio.FIRST_COMPLETED)
            # The last lines may still be in the pipe; or the process is about to be reaped.
            await asyncio.wait((exited, silent), timeout=1.0)
        finally:
            exited.cancel()
            silent.cancel()
        return self.ending()

    def ending(self) -> str:
        """Say how the process ended."""
        code = self._transport.get_returncode() if self._transport else None
        if code is None:
            return "closed its stdout" if self._out_ended.is_set() else "is running"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
            return f"was ended by signal {-code}"
        return f"exited with code {code}"

    async def stop(self, *, polite: bool = True) -> None:
        """End the process and its group: stdin closed and SIGTERM, then SIGKILL after 5 seconds, or at once."""
        if self._transport is None:
            return
        if self._stdin is not None:
            self._stdin.abort() if self.clogged else self._stdin.close()
        if polite:
            self._signal_group(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TERMINATION_SECONDS):
                    await self._gone()
        self._signal_group(signal.SIGKILL)
        await self._exited.wait()
        self._transport.close()

    async def _gone(self) -> None:
        await self._exited.wait()
        while self._signal_group(0):
            reap_orphans()
            await asyncio.sleep(0.02)

    def _signal_group(self, number: int) -> bool:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def adopt_orphans() -> None:
    """Make this process the parent of whatever its children leave behind, as it is anyway where it is process 1."""
    _libc.prctl(_SET_CHILD_SUBREAPER, 1)


@contextlib.contextmanager
def reaping_paused() -> Iterator[None]:
    """Reap no orphans: there is a child of the bridge's own that is not known as such, and somebody waits for it."""
    Process.reaping_pauses += 1
    try:
        yield
    finally:
        Process.reaping_pauses -= 1


def reap_orphans() -> None:
    """Take the exit codes of adopted processes that have ended, and never those of the bridge's own children."""
    if Process.reaping_pauses:
        return
    for pid in children():
        if pid not in Process._alive:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def children() -> list[int]:
    """Return the process ids of all children of this process, adopted ones included."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


def end_orphans() -> None:
    """End what earlier children have left behind; called when the bridge itself ends."""
    for pid in children():
        if pid not in Process._alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    reap_orphans()
