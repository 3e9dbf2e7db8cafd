"""What each HTTP request to an MCP server passes: no redirect, a bound on the answer, and the fault in words.

The mcp package tells little of what went wrong below it, so the words are kept here. Never sends a credential.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator

import httpx2

LARGEST_LISTING_BYTES = 10_000_000
"""Of all answers of one listing together; agents read as much of one answer."""
LARGEST_EVENT_BYTES = 1_000_000
"""Of one server-sent event; a little less than httpx2 would take, so that the reason is ours, and as agents do."""
_LARGE_BYTES = 1_000_000
FAREWELL_SECONDS = 0.5
"""How long a server may take to end a session: all is known by then."""
ERROR_BYTES = 65_536
WORDS_CHARACTERS = 200
ADDRESS_CHARACTERS = 200

_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's verify codes for a chain that ends in nobody who is trusted (X509_V_ERR_* in openssl/x509_vfy.h)."""

_END_OF_EVENT = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_large = asyncio.Semaphore(1)
"""Parsing takes several times the size of an answer, so one large one is read at a time."""


class BrokenAnswer(httpx2.StreamError):
    """Ends the reading of one answer; its words are the guard's fault."""


class Guard(httpx2.AsyncBaseTransport):
    """Wraps the transport of one listing. `fault` says what was wrong with the last request that asks for an answer."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, has_bundle: bool, final_address: str) -> None:
        """`final_address` names the field that a redirected address belongs into."""
        self._inner = inner
        self._has_bundle = has_bundle
        self._final_address = final_address
        self._left = LARGEST_LISTING_BYTES
        self.fault: str | None = None
        self.has_session = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; see the module."""
        if not _asks(request):
            # A notification, the stream of notifications or the end of the session: their fate says nothing.
            return await (self._farewell if request.method == "DELETE" else self._inner.handle_async_request)(request)
        self.fault = None
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            self.fault = self._unreached(error)
            raise
        self.has_session = self.has_session or "mcp-session-id" in response.headers
        if response.is_redirect or 300 <= response.status_code < 400:
            await self._end(response, self._redirect(request, response))
        if response.headers.get("content-encoding", "identity") != "identity":
            await self._end(response, "it sent a compressed answer, which was not asked for")
        if response.status_code >= 400:
            return await self._refusal(request, response)
        kind = response.headers.get("content-type", "").lower()
        if response.status_code == 200 and not kind.startswith(("application/json", "text/event-stream")):
            await self._end(response, f"it answered {kind[:60] or 'something'} where JSON or an event stream is due")
        response.stream = _Bounded(response.stream, self, events=kind.startswith("text/event-stream"))
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def take(self, size: int, event_size: int) -> None:
        """Count bytes of an answer, and those of its present event; raises BrokenAnswer beyond the bounds."""
        self._left -= size
        if self._left < 0:
            self.fault = f"its answer to tools/list is larger than {LARGEST_LISTING_BYTES} bytes, which is not read"
            raise BrokenAnswer(self.fault)
        if event_size > LARGEST_EVENT_BYTES:
            self.fault = (
                f"an event of its answer to tools/list is larger than {LARGEST_EVENT_BYTES} bytes, which is not read; "
                "let it list its tools on more pages"
            )
            raise BrokenAnswer(self.fault)

    @property
    def is_large(self) -> bool:
        """Whether much has been read already."""
        return self._left < LARGEST_LISTING_BYTES - _LARGE_BYTES

    async def _farewell(self, request: httpx2.Request) -> httpx2.Response:
        async with asyncio.timeout(FAREWELL_SECONDS):
            response = await self._inner.handle_async_request(request)
            await response.aclose()
        # Without its body, which nobody needs and which may have no end.
        return httpx2.Response(response.status_code, request=request)

    async def _end(self, response: httpx2.Response, fault: str) -> None:
        await response.aclose()
        self.fault = fault
        raise httpx2.RemoteProtocolError(fault)

    async def _refusal(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        body = b""
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ERROR_BYTES:
                    break
        except httpx2.TransportError:
            body = b""  # the status says enough
        finally:
            await response.aclose()
        status = f"it answered HTTP {response.status_code} {response.reason_phrase}".rstrip()
        words = _words(body[:ERROR_BYTES])
        self.fault = f"{status}: {words}" if words else status
        headers = {"content-type": response.headers.get("content-type", "text/plain")}
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    def _redirect(self, request: httpx2.Request, response: httpx2.Response) -> str:
        try:
            to = request.url.join(response.headers["location"])
        except (KeyError, httpx2.InvalidURL):
            return f"it redirects by HTTP {response.status_code} to no address; redirects are not followed"
        # Without user name, query and fragment: they may hold credentials.
        where = str(to.copy_with(username=None, password=None, query=None, fragment=None))[:ADDRESS_CHARACTERS]
        advice = f"put the final address into {self._final_address}"
        return f"it redirects to {where} by HTTP {response.status_code}, which is not followed; {advice}"

    def _unreached(self, error: httpx2.TransportError) -> str:
        if (words := tls_words(error, has_bundle=self._has_bundle)) is not None:
            return words
        refused = next((said for each in causes(error) if (said := _told_by_the_system(each))), None)
        what = "it cannot be reached" if isinstance(error, httpx2.ConnectError) else "the connection broke"
        return f"{what}: {refused or str(error) or type(error).__name__}"


class _Events:
    """How large server-sent events are, chunk by chunk."""

    def __init__(self) -> None:
        self._size = 0
        self._tail = b""

    def add(self, chunk: bytes) -> int:
        """The size of the event that was under way, up to its end or that of the chunk."""
        recent = self._tail + chunk
        before = self._size - len(self._tail)
        ends = [found.end() for found in _END_OF_EVENT.finditer(recent)]
        rest = recent[ends[-1] :] if ends else recent
        self._size = len(rest) if ends else before + len(recent)
        self._tail = rest[-3:]
        return before + ends[0] if ends else self._size


class _Bounded(httpx2.AsyncByteStream):
    """Passes an answer on while the guard lets it."""

    def __init__(self, stream: object, guard: Guard, *, events: bool) -> None:
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError(stream)
        self._stream = stream
        self._guard = guard
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        has_place, events = False, _Events() if self._events else None
        try:
            async for chunk in self._stream:
                self._guard.take(len(chunk), events.add(chunk) if events else 0)
                if self._guard.is_large and not has_place:
                    has_place = await _large.acquire()
                yield chunk
        except httpx2.TransportError as error:
            self._guard.fault = f"its answer broke off: {str(error) or type(error).__name__}"
            raise BrokenAnswer(self._guard.fault) from None
        finally:
            if has_place:
                _large.release()

    async def aclose(self) -> None:
        await self._stream.aclose()


def verification(url: str, ca_bundle: str | None) -> ssl.SSLContext | bool:
    """The `verify` of an HTTP client: the bundle instead of the system's store where there is one; as agents do."""
    if url.startswith("http://"):
        # Trusts nobody, and spares the memory of the store.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_bundle is None:
        return True
    # Of an empty text OpenSSL would make the system's store.
    context = ssl.create_default_context(cadata=ca_bundle or "empty")
    # What somebody puts there by hand is trusted as it is, also without the extensions that private authorities leave
    # out. Python 3.13 alone would differ.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def tls_words(error: BaseException, *, has_bundle: bool) -> str | None:
    """In plain words what TLS has against the server, or None where the error is not about that."""
    cause = next((each for each in causes(error) if isinstance(each, ssl.SSLError)), None)
    if cause is None:
        return None
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return f"there is no TLS at its address ({cause.reason or 'no reason told'}); https may be wrong for this port"
    said = f"its TLS certificate is not accepted: {cause.verify_message}"
    if cause.verify_code not in _UNKNOWN_ISSUER:
        return said
    if has_bundle:
        return f"{said}; spec.remote.caBundle has none that vouches for it"
    return f"{said}; if its authority is a private one, put that one's certificate into spec.remote.caBundle"


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the outermost first; of a group the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = inner or cause.__cause__ or cause.__context__


def _told_by_the_system(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    # The names' own errors are below 0; of the others asyncio replaces the text by one with the address.
    return os.strerror(error.errno) if error.errno > 0 else error.strerror


def one_line(text: str, characters: int) -> str:
    """The beginning of a text on one line, without control characters."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= characters else line[:characters] + "…"


def _asks(request: httpx2.Request) -> bool:
    if request.method != "POST":
        return False
    try:
        return "id" in json.loads(request.content)
    except ValueError:
        return True


def _words(body: bytes) -> str:
    """What a refusal says: the message of a JSON-RPC error, or a short piece of the body."""
    text = body.decode("utf-8", "replace")
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = text
    return one_line(str(message), WORDS_CHARACTERS)
