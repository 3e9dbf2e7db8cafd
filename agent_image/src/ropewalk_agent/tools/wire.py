"""What each HTTP request to an MCP server passes: one origin, credentials, a bound on its answer.

The mcp package ends a whole connection, and every call on it, where one request fails below HTTP. So a request that
fails here is answered with a JSON-RPC error in the server's place, and its fault stays its own. What happened is noted
in the request's `Exchange`, which travels in a context variable, because the package has no place for it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import httpx2

from ropewalk_agent.tools.auth import AuthError, TokenSource
from ropewalk_agent.tools.headers import MountedHeaders
from ropewalk_agent.tools.trust import tls_words

LARGEST_ANSWER = 10_000_000
"""Bytes of a JSON answer that are read."""
LARGEST_EVENT = 1_000_000
"""The same of one server-sent event; a little less than httpx2 would take, so that the reason is ours."""
_LARGE_ANSWER, _LARGE_AT_ONCE = 1_000_000, 2
"""So many answers of a server beyond so many bytes are read at once: parsing takes seven times their size."""
_LARGEST_ERROR = 65_536
_LONGEST_ADDRESS = 200
_MOST_REDIRECTS = 5
_FAULT_CODE = -32099
"""Code of the JSON-RPC errors that are made here; of the range that JSON-RPC 2.0 leaves to implementations."""

Kind = Literal["undelivered", "session_gone", "unauthorized", "refused", "failing", "broken", "lost", "too_large"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request got no answer that can be used.

    undelivered: it never reached the server. session_gone: the server does not know the session and did nothing.
    unauthorized: no token, or not accepted. refused: HTTP 4xx, or a redirect that is not followed. failing: HTTP 5xx or
    429. broken: cut off, or not HTTP or MCP. lost: the whole connection ended. too_large: more than is read.
    """

    kind: Kind
    text: str


class WireError(Exception):
    """A request that failed, where no JSON-RPC error stands in for the answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


class _BrokenAnswer(httpx2.StreamError):
    """Ends the reading of one answer; of httpx2's errors the one that the mcp package takes for that answer's own."""


@dataclass(slots=True)
class Exchange:
    """One request as its sender sees it: the headers to send along, and what went wrong."""

    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None


_current: ContextVar[Exchange | None] = ContextVar("ropewalk_mcp_exchange", default=None)


@contextmanager
def exchange(headers: Mapping[str, str] | None = None) -> Iterator[Exchange]:
    """Make the requests inside the block one exchange."""
    one = Exchange(headers or {})
    token = _current.set(one)
    try:
        yield one
    finally:
        _current.reset(token)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Wraps the transport of one connection. While `connecting`, a request below HTTP fails with WireError."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        url: str,
        auth: TokenSource | None,
        headers: MountedHeaders,
        *,
        has_bundle: bool = False,
    ) -> None:
        """`url` is the server's; requests to another scheme, host or port are refused.

        `has_bundle` tells that the server has a caBundle; it only chooses words.
        """
        self._inner = inner
        self._origin = _origin(httpx2.URL(url))
        self._auth = auth
        self._headers = headers
        self._has_bundle = has_bundle
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self.connecting = True
        self.has_session = False
        """Whether the server has handed out a session, which its other replicas may not know."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; see the module."""
        current = _current.get() or Exchange()
        current.fault = None
        try:
            return await self._answer(request, current)
        except WireError as error:
            current.fault = error.fault
            if self.connecting:
                raise
            return _stand_in(503, error.fault)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _answer(self, request: httpx2.Request, current: Exchange) -> httpx2.Response:
        request.headers.update(current.headers)
        if request.method == "GET" or request.headers.get("mcp-method") == "subscriptions/listen":
            # A stream of notifications may be silent for as long as it likes.
            request.extensions["timeout"]["read"] = None
        response = await self._arrived(request)
        self.has_session = self.has_session or "mcp-session-id" in response.headers
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            await response.aclose()
            raise WireError(Fault("broken", "it sent a compressed answer, which was not asked for"))
        if response.status_code >= 400:
            return await self._refusal(request, response, current)
        kind = response.headers.get("content-type", "").lower()
        events = kind.startswith("text/event-stream")
        if response.status_code == 200 and not events and not kind.startswith("application/json"):
            await response.aclose()
            raise WireError(Fault("broken", f"it answered {kind[:60] or 'something'} where JSON or a stream is due"))
        response.stream = _BoundedStream(response.stream, current, self._large, events=events)
        return response

    async def _arrived(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to where redirects lead, as far as they are followed."""
        for _ in range(_MOST_REDIRECTS + 1):
            if _origin(request.url) != self._origin:
                raise WireError(_redirected("to another host", request.url))
            response = await self._authorized(request)
            status = response.status_code
            if status not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                return response
            await _small_body(response)  # of one that is not read, the connection could not be used again
            request.url = _target(request, response)
            if status not in (307, 308):
                # To follow these is to ask again without the body.
                raise WireError(_redirected(f"by HTTP {status}", request.url))
        raise WireError(_redirected(f"more than {_MOST_REDIRECTS} times", request.url))

    async def _authorized(self, request: httpx2.Request) -> httpx2.Response:
        try:
            request.headers.update(self._headers.read())
        except AuthError as error:
            raise WireError(Fault("unauthorized", str(error))) from None
        if self._auth is None:
            return await self._send(request)
        for last in (False, True):
            try:
                token = await self._auth.token()
            except AuthError as error:
                raise WireError(Fault("unauthorized", str(error))) from None
            request.headers["authorization"] = f"Bearer {token}"
            response = await self._send(request)
            if last or response.status_code != 401 or not self._auth.rejected(token):
                break
            await response.aclose()
        return response

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            why = tls_words(error, has_bundle=self._has_bundle) or f"it cannot be reached: {_told(error)}"
            raise WireError(Fault("undelivered", why)) from None
        except httpx2.TransportError as error:
            raise WireError(Fault("broken", f"the connection broke: {_told(error)}")) from None

    async def _refusal(self, request: httpx2.Request, response: httpx2.Response, current: Exchange) -> httpx2.Response:
        """Return the server's own JSON-RPC error if it tells of the request, else one that tells the HTTP status."""
        status = response.status_code
        phrase = f"it answered HTTP {status} {response.reason_phrase}".rstrip()
        body = await _small_body(response)
        if status == 404 and "mcp-session-id" in request.headers:
            current.fault = Fault("session_gone", "it does not know the session any more")
        elif status in (401, 403):
            current.fault = Fault("unauthorized", f"{phrase}; {self._advice()}")
        elif status >= 500 or status == 429:
            # In whatever form it says so, it is not about this call: the stdio bridge's process has just ended, say.
            words = _json_rpc_error(body)
            current.fault = Fault("failing", f"{phrase}: {words}" if words else phrase)
        elif _json_rpc_error(body) is not None:
            return httpx2.Response(status, headers={"content-type": "application/json"}, content=body, request=request)
        else:
            current.fault = Fault("refused", phrase)
        return _stand_in(status, current.fault)

    def _advice(self) -> str:
        if self._auth is not None:
            return "it does not accept the agent's token"
        return "it does not accept the agent's headers" if self._headers else "the MCPServer has no auth"


class _BoundedStream(httpx2.AsyncByteStream):
    """Passes an answer on, up to its bound."""

    def __init__(self, stream: object, current: Exchange, large: asyncio.Semaphore, *, events: bool) -> None:
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError(stream)
        self._stream = stream
        self._current = current
        self._large = large
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, last, has_place = 0, b"", False
        limit = LARGEST_EVENT if self._events else LARGEST_ANSWER
        try:
            async for chunk in self._stream:
                if self._events and (end := _end_of_event(last + chunk)) >= 0:
                    size = len(last) + len(chunk) - end
                else:
                    size += len(chunk)
                last = chunk[-3:]
                if size > limit:
                    self._current.fault = Fault("too_large", f"its answer is larger than {limit} bytes")
                    raise _BrokenAnswer(self._current.fault.text)
                if size > _LARGE_ANSWER and not has_place:
                    has_place = await self._large.acquire()
                yield chunk
        except httpx2.TransportError as error:
            self._current.fault = Fault("broken", f"the connection broke: {_told(error)}")
            raise _BrokenAnswer(self._current.fault.text) from None
        finally:
            if has_place:
                self._large.release()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _end_of_event(data: bytes) -> int:
    """Return where the last whole server-sent event in `data` ends, or -1."""
    ends = [found + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r") if (found := data.rfind(mark)) >= 0]
    return max(ends, default=-1)


async def _small_body(response: httpx2.Response) -> bytes:
    """Read an answer of which the status says enough, up to _LARGEST_ERROR; empty where that fails."""
    body = b""
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > _LARGEST_ERROR:
                break
    except httpx2.TransportError:
        return b""
    finally:
        await response.aclose()
    return body


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def _target(request: httpx2.Request, response: httpx2.Response) -> httpx2.URL:
    with suppress(httpx2.InvalidURL):
        target = request.url.join(response.headers["location"])
        if target.host:
            return target
    raise WireError(Fault("refused", "it redirects to what is no address"))


def _redirected(how: str, to: httpx2.URL) -> Fault:
    # Without user name, query and fragment: they may hold credentials.
    where = "{}://{}:{}{}".format(*_origin(to), to.path)
    text = (
        f"it redirects {how} ({where[:_LONGEST_ADDRESS]}), which is not followed; set the server's url to its real one"
    )
    return Fault("refused", text)


def _stand_in(status: int, fault: Fault) -> httpx2.Response:
    error = {"code": _FAULT_CODE, "message": fault.text}
    return httpx2.Response(status, json={"jsonrpc": "2.0", "id": None, "error": error})


def _json_rpc_error(body: bytes) -> str | None:
    """Return the message of a JSON-RPC error, or None where the body is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    error = document.get("error") if isinstance(document, dict) and document.get("jsonrpc") == "2.0" else None
    return str(error.get("message") or "") if isinstance(error, dict) else None


def _told(error: Exception) -> str:
    # Not cut here: of a secret that is cut in two, the rest would not be found and blotted out.
    return str(error) or type(error).__name__
