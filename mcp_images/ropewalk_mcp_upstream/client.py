"""Requests to somebody else's HTTP API, each bounded in time and size, asked politely and no oftener than needed.

It never follows a redirect to another server, keeps no cookie, and puts no part of a request into a log, metric or
error.
"""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
from cachetools import TLRUCache
from prometheus_client import CollectorRegistry, Counter

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_process import __version__
from ropewalk_mcp_upstream.rate import TokenBucket, TooSoon

_MAX_REDIRECTS = 3
_LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True)
class Limits:
    """The bounds of one upstream. An agent waits 30 seconds for a tool: the deadline lets it learn the reason first."""

    deadline_seconds: float = 10.0
    max_answer_bytes: int = 4 * 2**20
    requests_per_second: float = 5.0
    burst: int = 10
    # A request that would have to wait longer for its turn is refused with RATE_LIMITED.
    patience_seconds: float = 3.0
    # How long nothing is asked after a 429 without Retry-After.
    pause_seconds: float = 10.0
    cache_bytes: int = 8 * 2**20


@dataclass(frozen=True)
class Answer:
    """A complete answer whose status is 200 to 299, or 400 to 499 but for 429, which is for the caller to explain."""

    status: int
    body: bytes
    cache_seconds: float = 0.0


class Upstream:
    """One API of somebody else: `name` is what errors and metrics call it.

    trust_environment: honour HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, and SSL_CERT_FILE: right for the
    internet, wrong for a Service of the cluster. clock and sleep are given by tests.
    """

    def __init__(
        self,
        name: str,
        registry: CollectorRegistry,
        *,
        trust_environment: bool,
        limits: Limits = Limits(),
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._bucket = TokenBucket(limits.requests_per_second, limits.burst, clock)
        self._requests = Counter(
            "ropewalk_mcp_upstream_requests", "Requests", ["upstream", "outcome"], registry=registry
        )
        self._cache: TLRUCache[object, Answer] = TLRUCache(
            limits.cache_bytes,
            ttu=lambda _, answer, now: now + answer.cache_seconds,
            timer=clock,
            getsizeof=lambda answer: len(answer.body) + 1000,
        )
        # The deadline of the whole request is the one time limit.
        self._client = httpx2.AsyncClient(
            headers={"user-agent": f"ropewalk-mcp/{__version__}", "accept-encoding": "gzip", **(headers or {})},
            timeout=None,
            trust_env=trust_environment,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Close the connections when the server ends; a ToolServer takes it as its lifespan."""
        try:
            yield
        finally:
            await self._client.aclose()

    @asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[None]:
        """Bound all that a tool asks of this upstream together; raises CodedError UPSTREAM_TIMEOUT."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise CodedError(
                "UPSTREAM_TIMEOUT", f"{self.name} did not answer within {seconds:g} s; try again later"
            ) from None

    @asynccontextmanager
    async def asked(
        self, url: str, query: Mapping[str, str], *, headers: Mapping[str, str] | None = None, cache_seconds: float = 0
    ) -> AsyncIterator[Answer]:
        """Give the answer to a GET request, from the cache where one of status 200 is younger than `cache_seconds`.

        What the block raises says that the answer is not what it should be: it is not kept, and asked for again.
        Raises CodedError with one of the four codes of an upstream, within the deadline.
        """
        key = (url, tuple(query.items()), tuple((headers or {}).items()))
        if cache_seconds and (kept := self._cache.get(key)):
            self._count("cached")
            yield kept
            return
        answer = await self._fresh(url, query, headers, cache_seconds)
        yield answer
        if cache_seconds and answer.status == 200 and len(answer.body) < self._limits.cache_bytes / 2:
            self._cache[key] = answer

    def document(self, answer: Answer) -> Any:
        """Return the JSON of an answer; raises UPSTREAM_INVALID for what is none."""
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise self.invalid(f"status {answer.status} without JSON") from None

    def invalid(self, what: str) -> CodedError:
        """Return the error for an answer that is not of the documented form."""
        return CodedError(
            "UPSTREAM_INVALID",
            f"{self.name} answered with {what}, which is not what it documents; try again later, and check this "
            "server's base URL",
        )

    def _count(self, outcome: str) -> None:
        self._requests.labels(self.name, outcome).inc()

    async def _fresh(
        self, url: str, query: Mapping[str, str], headers: Mapping[str, str] | None, cache_seconds: float
    ) -> Answer:
        outcome = "internal"
        try:
            async with self.deadline(self._limits.deadline_seconds):
                await self._turn()
                answer = await self._sent(httpx2.URL(url).copy_merge_params(query), headers, cache_seconds)
            outcome = "ok" if answer.status < 400 else "refused"
            return answer
        except CodedError as error:
            outcome = error.code.lower()
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._count(outcome)

    async def _turn(self) -> None:
        try:
            await self._sleep(self._bucket.take(self._limits.patience_seconds))
            # Somebody before may have been asked for fewer requests in the meantime.
            self._bucket.check()
        except TooSoon as soon:
            raise self._rate_limited("is not asked now, to stay within its limits", soon.seconds) from None

    async def _sent(self, url: httpx2.URL, headers: Mapping[str, str] | None, cache_seconds: float) -> Answer:
        request = self._client.build_request("GET", url, headers=headers)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                response = await self._client.send(request, stream=True)
                try:
                    following = response.next_request
                    if not following:
                        self._judge(response)
                        body = await self._bounded(response)
                        return Answer(response.status_code, body, cache_seconds)
                    if not _is_same_server(request.url, following.url):
                        raise self.invalid("a redirect to another server")
                    request = following
                finally:
                    await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            # The library's own words may hold the address with its query.
            what = "cannot be reached" if isinstance(error, httpx2.ConnectError) else "broke off, or speaks no HTTP"
            raise CodedError(
                "UPSTREAM_UNAVAILABLE", f"{self.name} at {url.host} {what} ({type(error).__name__}); try again later"
            ) from None
        raise self.invalid(f"more than {_MAX_REDIRECTS} redirects")

    def _judge(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 429:
            asked = _seconds(response.headers.get("retry-after", ""))
            seconds = self._limits.pause_seconds if asked is None else min(asked, _LONGEST_PAUSE_SECONDS)
            self._bucket.pause(seconds)
            raise self._rate_limited("asks for fewer requests", seconds)
        if status >= 500:
            raise CodedError("UPSTREAM_UNAVAILABLE", f"{self.name} answered with status {status}; try again later")
        if not (200 <= status < 300 or status >= 400):
            raise self.invalid(f"status {status}")

    async def _bounded(self, response: httpx2.Response) -> bytes:
        body, most = bytearray(), self._limits.max_answer_bytes
        unpacked = _unpacker(response.headers.get("content-encoding", "identity").lower())
        if not unpacked:
            raise self.invalid("an encoding that was not asked for")
        try:
            async for part in response.aiter_raw():
                body += unpacked(part, most + 1 - len(body))
                if len(body) > most:
                    raise self.invalid(f"more than {most} bytes")
        except zlib.error:
            raise self.invalid("a broken encoding") from None
        return bytes(body)

    def _rate_limited(self, why: str, seconds: float) -> CodedError:
        return CodedError("RATE_LIMITED", f"{self.name} {why}; try again in {max(1, round(seconds))} s")


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """Return what unpacks the parts of an answer, each to so many bytes at most; None for other than gzip.

    The HTTP client unpacks each part as a whole, and encodings in encodings: a few kilobytes may become gigabytes.
    """
    if encoding == "identity":
        return lambda part, _: part
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress if encoding == "gzip" else None


def _is_same_server(asked: httpx2.URL, told: httpx2.URL) -> bool:
    """Tell whether a redirect stays where it is, or leads from http to https there."""
    is_safer = (asked.scheme, told.scheme) == ("http", "https")
    return asked.host == told.host and (is_safer or (asked.scheme, asked.port) == (told.scheme, told.port))


def _seconds(retry_after: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, which gives them or a date (RFC 9110, section 10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
