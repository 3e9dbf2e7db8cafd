"""A real Redis server on a free loopback port, which keeps nothing on disk and can hang, die and come back."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port
from waiting import until

_SECONDS_TO_START = 10


def _program() -> str:
    # Debian's redis-tools bring the server too, under another name: it goes by what it is called as.
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if program is None:
        raise RuntimeError("there is no redis-server on this machine; `make tools` installs it (Debian: redis-tools)")
    return program


@contextmanager
def serving_redis(folder: Path) -> Iterator["RedisServer"]:
    """A server in `folder` until the end of the block."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class RedisServer:
    """A server in `folder`, which also gets the file with its URL. It keeps its port when it comes back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url_file = folder / "redis-url"
        self.port = free_port()
        self.tell_password("")

    def tell_password(self, password: str) -> None:
        """Write the URL file anew, as the kubelet does when a Secret changes."""
        self.url_file.write_text(f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0\n")

    def start(self, *options: str) -> None:
        """Serve; returns when the port is open."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder), *options]
        self._process = subprocess.Popen(
            ["redis-server", *words], executable=_program(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(self._is_open, f"redis-server opens its port {self.port}", _SECONDS_TO_START)
        except AssertionError:
            self.stop()
            raise

    def _is_open(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return True

    def stop(self) -> None:
        """Die at once, with everything that was kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Keep the port open and answer nothing, until `go_on`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
