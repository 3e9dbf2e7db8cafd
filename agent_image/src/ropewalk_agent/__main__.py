"""Starts the agent of this pod: socket, settings, server. Binds before it imports anything heavy.

The kubelet's first probe so waits in the backlog of a socket that is already there, rather than being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from ropewalk_agent.address import AddressError, listen_address

if TYPE_CHECKING:
    from ropewalk_agent.config import AgentConfig, Settings

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_CLOSE_SECONDS = 2
_FAREWELL_SECONDS = 0.5
_LEAVE_SECONDS = 0.25
"""So long turns are still taken on connections that are open at the end: whoever keeps one comes here whatever the
Service says, until an answer closes it. Those that are idle then are closed: a turn would be refused from here on."""
_ARRIVAL_SECONDS = 3
"""So much longer for requests that a busy client has begun, or opened a connection for, and not yet sent. A connection
that is kept in reserve looks the same, and costs the end this time."""


def main() -> int:
    """Run until SIGTERM; return the exit code: 0 after a drain, 1 with a message if the agent cannot start."""
    # asyncio sets TCP_NODELAY only on a socket that names its protocol; without it every answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with contextlib.suppress(AddressError):  # config.load reports it, with all that is wrong beside it
        host, port = listen_address(os.environ)
        try:
            listener.bind((host, port))
        except (OSError, UnicodeError) as error:
            return _fail(f"the agent cannot start:\n- port {port} of {host!r} cannot be bound: {error}")
        listener.listen(_BACKLOG)

    from ropewalk_agent import config, lean, logs, tracing
    from ropewalk_agent.models import need_boto

    try:
        settings, agent = config.load(os.environ)
    except config.ConfigError as error:
        return _fail(str(error))
    logs.configure(settings.log_level, tracing.log_fields(os.environ))
    lean.install(with_boto=need_boto((agent.model, *agent.fallbacks)))
    failures = asyncio.run(_serve(settings, agent, listener))
    return _fail("\n".join(failures)) if failures else 0


def _fail(message: str) -> int:
    # Plain text, as the last words of the pod: they become its termination message.
    print(message, file=sys.stderr)  # noqa: T201
    return 1


async def _serve(settings: Settings, agent: AgentConfig, listener: socket.socket) -> list[str]:
    """Serve until told to stop; return what kept the agent from starting, empty for a good life."""
    import uvicorn

    from ropewalk_agent import tracing
    from ropewalk_agent.app import create_app
    from ropewalk_agent.metrics import Metrics
    from ropewalk_agent.routes.turns import LARGEST_BODY
    from ropewalk_agent.runtime import Runtime
    from ropewalk_agent.transport import Protocol, close_kept, until_arrived, until_websockets_closed

    metrics = Metrics()
    traces = tracing.start(os.environ, agent)
    failures: list[str] = []

    def give_up(reason: str) -> None:
        failures.append(reason)
        server.should_exit = True

    runtime = Runtime(agent, metrics, on_failure=give_up)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(agent, runtime, metrics, traces),
            http=Protocol,
            ws="websockets-sansio",  # 0.5 MiB; the other implementations are deprecated or not installed
            ws_max_size=LARGEST_BODY,
            ws_per_message_deflate=False,  # frames are small, and a compressor for each socket is not
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nothing here asks who the client is
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )
    )

    async def drain() -> None:
        ends = time.monotonic() + settings.drain_seconds
        runtime.leave()
        if server.server_state.connections:
            await asyncio.sleep(_LEAVE_SECONDS)
            close_kept(server.server_state.connections)
            await until_arrived(server.server_state.connections, min(_ARRIVAL_SECONDS, settings.drain_seconds))
        # The socket stays open meanwhile, so that whoever still comes gets an answer rather than a refusal.
        await runtime.drain(ends - time.monotonic())
        # Their routes say why; the server would say only that it starts anew.
        await until_websockets_closed(server.server_state.connections, _FAREWELL_SECONDS)
        server.should_exit = True

    drains: list[asyncio.Task[None]] = []

    def terminate() -> None:
        if drains:  # asked a second time: leave now
            server.should_exit = server.force_exit = True
        drains.append(asyncio.ensure_future(drain()))

    # Uvicorn's own handlers would close the socket first and drain afterwards.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, terminate)
    await server.serve(sockets=[listener])
    if traces is not None:
        await traces.close(_CLOSE_SECONDS)
    return failures


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without waiting for the threads of tools that never return: all that is to be kept is kept by now.
    os._exit(code)
