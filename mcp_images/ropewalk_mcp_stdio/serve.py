"""Runs the bridge: the mode, the HTTP server, and an orderly end at SIGTERM."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from ropewalk_mcp_process.hosts import own_names
from ropewalk_mcp_process.sockets import listening
from ropewalk_mcp_stdio.essential import essential
from ropewalk_mcp_stdio.http import Application, Mode
from ropewalk_mcp_stdio.options import SHARED, ServeOptions
from ropewalk_mcp_stdio.per_session import PerSession
from ropewalk_mcp_stdio.process import adopt_orphans, end_orphans, reap_orphans
from ropewalk_mcp_stdio.program import Program
from ropewalk_mcp_stdio.shared import Shared

_log = logging.getLogger("ropewalk.mcp.stdio")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The bridge has more to end than the HTTP server has: it takes the signals itself.
        yield


async def serve(options: ServeOptions, program: Program, listener: socket.socket, *, signals: bool = True) -> bool:
    """Serve until SIGTERM or SIGINT, or until cancelled; False where the bridge ended because it has failed."""
    loop = asyncio.get_running_loop()
    mode: Mode
    if options.session_mode == SHARED:
        mode = Shared(program)
    else:
        mode = PerSession(program, options.max_sessions, options.idle_timeout_seconds)
    application = Application(mode, options.path, program.name, own_names(os.environ))
    config = uvicorn.Config(
        application, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(program.timing.drain), server_header=False, date_header=False,
    )  # fmt: skip
    server = _Server(config)
    stopping = asyncio.Event()
    failed = asyncio.Event()

    def fail() -> None:
        failed.set()
        stopping.set()

    if signals:
        adopt_orphans()
        loop.add_signal_handler(signal.SIGCHLD, reap_orphans)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
    await mode.start(fail)
    serving = essential(server.serve(sockets=[listener]), fail)
    _log.info(
        "serving",
        extra={
            "server": program.name,
            "port": listener.getsockname()[1],
            "path": options.path,
            "mode": options.session_mode,
        },
    )
    try:
        await stopping.wait()
        _log.info("ending", extra={"server": program.name, "calls": application.active})
        application.draining = True
        # It begins with closing idle connections: the next calls of their clients go to another pod.
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(program.timing.drain):
                await application.drained()
    finally:
        application.draining = True
        application.end_streams()
        stopped = asyncio.create_task(mode.stop())
        server.should_exit = True
        with contextlib.suppress(Exception):
            await asyncio.shield(serving)
        await asyncio.shield(stopped)
        if signals:
            end_orphans()
    return not failed.is_set()


def run(options: ServeOptions) -> None:
    """Serve until the process is told to end; SystemExit with code 1 where the bridge has failed."""
    program = Program(
        options.name,
        options.command,
        dict(os.environ),
        python_package=options.python_package,
        node_package=options.node_package,
    )
    if not asyncio.run(serve(options, program, listening(options.port))):
        raise SystemExit(1)
