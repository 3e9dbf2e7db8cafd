"""The everything-server over stdio behind the bridge, deployed in a pod of the local cluster by an MCPServer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.conformance.targets import SessionMode


@contextmanager
def bridged(mode: SessionMode) -> Iterator[str]:
    """Deploy, and forward a local port to the pod; gives the URL."""
    raise NotImplementedError(mode)
    yield ""
