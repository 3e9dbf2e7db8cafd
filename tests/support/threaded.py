"""Serves an ASGI application in a thread of its own, for tests that are not asynchronous themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def threaded(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Yield the base URL while the application is served."""
    config = uvicorn.Config(app, host=host, port=port, log_config=None, ws="none", timeout_graceful_shutdown=0)
    server, begun = uvicorn.Server(config), threading.Event()
    startup = server.startup

    async def told(*arguments: Any, **options: Any) -> None:
        await startup(*arguments, **options)
        begun.set()

    server.startup = told  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert begun.wait(60), "the server did not start"
        yield f"http://{host}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
