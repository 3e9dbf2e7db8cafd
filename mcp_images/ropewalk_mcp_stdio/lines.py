"""Cuts a stream of bytes into lines of bounded length. What is longer is left out and reported."""

from collections.abc import Callable

# Of a line that is too long, its two ends are kept: one of them names the request that it answers.
KEPT_BYTES = 256


class Lines:
    """Feed it chunks; it calls `on_line` for each line, and `on_long` with both ends of each line that is too long."""

    def __init__(
        self, limit_bytes: int, on_line: Callable[[bytes], None], on_long: Callable[[bytes, bytes, int], None]
    ) -> None:
        self._limit, self._on_line, self._on_long = limit_bytes, on_line, on_long
        self._pieces: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next chunk of the stream."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            self._end_line()
            start = end + 1
        if start < len(data):
            self._hold(data[start:] if start else data)

    def close(self) -> None:
        """Take the end of the stream: what is left without a line break is a line too."""
        if self._size:
            self._end_line()

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._pieces.append(piece)
            return
        if self._pieces:
            held = b"".join(self._pieces)
            self._head, self._tail = held[:KEPT_BYTES], held[-KEPT_BYTES:]
            self._pieces.clear()
        self._head = (self._head + piece)[:KEPT_BYTES]
        self._tail = (self._tail + piece[-KEPT_BYTES:])[-KEPT_BYTES:]

    def _end_line(self) -> None:
        size, pieces = self._size, self._pieces
        self._size, self._pieces = 0, []
        if size > self._limit:
            head, tail, self._head, self._tail = self._head, self._tail, b"", b""
            self._on_long(head, tail, size)
        else:
            self._on_line(pieces[0] if len(pieces) == 1 else b"".join(pieces))
