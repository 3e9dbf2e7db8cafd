"""A server on loopback that answers with the very bytes of a test, or with none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


def plain(body: bytes | str = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP answer."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass
class Raw:
    """What is answered next, the last of them for ever; None never answers. Requests are kept as they came."""

    answers: list[bytes | None]
    requests: list[str] = field(default_factory=list)
    url: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is None:
                await reader.read()
                self.gone.set()
                return
            writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def answering(*answers: bytes | None) -> AsyncIterator[Raw]:
    """Serve these answers, one a request, on a free loopback port."""
    raw = Raw(list(answers))
    server = await asyncio.start_server(raw._answer, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
