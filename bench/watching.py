"""A watch of the local cluster's API server, in a thread of its own, for as long as something is measured."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from cluster.layout import Layout
from e2e_cluster import Json

# Longer than anybody looks; without it the API server ends a watch after half an hour or later.
_SECONDS = 6 * 3600


@contextmanager
def watching(path: str, see: Callable[[str, Json], None]) -> Iterator[Callable[[], bool]]:
    """Call `see` with type and object of each event, first of all that there is, until the end of the block.

    What is yielded tells whether the watch still goes on: of one that has ended, a change may have been missed.
    """
    here = Layout.default()
    query = f"{path}?watch=true&timeoutSeconds={_SECONDS}"
    command = [str(here.bin / "kubectl"), f"--kubeconfig={here.kubeconfig}", "get", "--raw", query]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    thread = threading.Thread(target=_read, args=(process.stdout, see))
    thread.start()
    try:
        yield lambda: process.poll() is None and thread.is_alive()
    finally:
        process.terminate()
        process.wait()
        thread.join()


def _read(lines: IO[str], see: Callable[[str, Json], None]) -> None:
    for line in lines:
        if not line.endswith("\n"):
            return  # cut off: the watch was ended
        event = json.loads(line)
        see(event["type"], event["object"])
