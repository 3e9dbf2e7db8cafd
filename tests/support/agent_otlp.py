"""A real OTLP/HTTP receiver on this machine: decodes what an exporter sends, with OpenTelemetry's own protocol."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class ReceivedSpan:
    """One span, with ids in hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    failed: bool
    attributes: dict[str, Any]
    events: int
    resource: dict[str, Any]
    text: str
    """The whole span as text: everything that was sent of it."""


@dataclass
class Receiver:
    """What has arrived."""

    url: str = ""
    status: int = 200
    """How requests are answered."""
    requests: int = 0
    paths: set[str] = field(default_factory=set)
    spans: list[ReceivedSpan] = field(default_factory=list)

    def named(self, name: str) -> ReceivedSpan:
        """Return the one span of this name."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are named {name}: {self.names}")
        return found[0]

    def children(self, parent: ReceivedSpan) -> list[str]:
        """Return the names of the spans right below this one, in the order of their starts."""
        return [span.name for span in self.spans if span.parent_id == parent.span_id]

    @property
    def names(self) -> list[str]:
        """The names of all spans."""
        return [span.name for span in self.spans]

    def take(self, body: bytes) -> None:
        """Decode one request of an exporter."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for group in request.resource_spans:
            resource = _attributes(group.resource.attributes)
            spans = [span for scope in group.scope_spans for span in scope.spans]
            self.spans.extend(_received(span, resource) for span in sorted(spans, key=_started))


def _started(span: Span) -> int:
    return span.start_time_unix_nano


def _received(span: Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        failed=span.status.code == 2,
        attributes=_attributes(span.attributes),
        events=len(span.events),
        resource=resource,
        text=f"{span}{resource}",
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def otlp_receiver(address: str = "127.0.0.1") -> Iterator[Receiver]:
    """Receive at a free port of this address until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.requests += 1
            receiver.paths.add(self.path)
            if receiver.status == 200:
                receiver.take(body)
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    receiver.url = f"http://{address}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
