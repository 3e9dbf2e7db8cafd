"""/health, /ready and /metrics: what Kubernetes and Prometheus ask."""

from typing import Protocol

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.metrics import CHILDREN, IN_FLIGHT, QUEUED
from ropewalk_mcp_stdio.wire import Send, respond, write_json


class Linked(Protocol):
    """What has connections to children."""

    @property
    def links(self) -> list[Link]:
        """The connections to children."""


async def operate(path: str, headers: dict[bytes, bytes], send: Send, mode: Linked, problem: str | None) -> None:
    """Answer one of the three; `problem` is what keeps the bridge from being ready."""
    if path == "/health":
        await write_json(send, 200, {"status": "ok"})
    elif path == "/metrics":
        links = mode.links
        IN_FLIGHT.set(sum(link.in_flight for link in links))
        QUEUED.set(sum(len(link.queue) for link in links))
        CHILDREN.set(sum(link.process is not None and link.gone is None for link in links))
        encode, content_type = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))
        await respond(send, 200, [(b"content-type", content_type.encode())], encode(REGISTRY))
    else:
        # In the words of an agent's /ready: the operator reads both.
        reasons = [] if problem is None else [problem]
        await write_json(send, 503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
