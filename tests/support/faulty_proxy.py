"""Stands between the operator and a real API server: counts what passes, and spoils it on command.

It knows HTTP and Kubernetes' addresses, and nothing of Ropewalk. The operator reaches it without TLS; it reaches the
API server as the administrator.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from api_client import admin_tls

WRITES = frozenset({"APPLY", "PATCH", "POST", "PUT", "DELETE"})
_LARGEST_BODY_BYTES = 64 * 2**20
_HOP_BY_HOP = frozenset({"transfer-encoding", "connection", "content-length", "keep-alive", "host", "date", "server"})


@dataclass
class Call:
    """One request of the operator's, and the status that it was answered with; 0: it got no whole answer."""

    verb: str
    plural: str
    name: str
    path: str
    at: float
    """Seconds of a clock that never goes back."""
    status: int = 0
    version: str = ""
    """Of the object as a write left it: the same as before where the write had no effect."""

    @property
    def is_write(self) -> bool:
        """Whether it changes something. A Lease does not count: it is renewed all the time."""
        return self.verb in WRITES and self.plural != "leases"

    def __str__(self) -> str:
        return f"{self.verb} {self.plural} {self.name}".strip()


class Exchange:
    """One request on its way: what a spoil can do with it."""

    def __init__(self, call: Call, request: web.Request, upstream: Callable[[], Any]) -> None:
        self.call = call
        self.is_silent = False
        self.request = request
        self._upstream = upstream

    async def asked(self) -> tuple[int, dict[str, str], bytes]:
        """Let the API server do what is asked; its status, headers and whole answer."""
        async with self._upstream() as answer:
            body = await answer.read()
        if self.call.is_write and answer.status < 300:
            self.call.version = json.loads(body).get("metadata", {}).get("resourceVersion", "")
        return answer.status, _kept(answer.headers), body

    async def passed(self) -> web.StreamResponse:
        """Pass question and answer on, piece by piece; nothing any more once it `is_silent`: the connection stays."""
        async with self._upstream() as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
            if self.call.verb != "WATCH":
                response.content_length = answer.content_length
            await response.prepare(self.request)
            async for piece in answer.content.iter_any():
                if self.is_silent:
                    await _for_ever()
                await response.write(piece)
            await response.write_eof()
        self.call.status = answer.status
        return response

    def reset(self) -> web.StreamResponse:
        """End the connection without another byte."""
        if self.request.transport is not None:
            self.request.transport.abort()
        raise asyncio.CancelledError

    async def sent(self, status: int, headers: dict[str, str], body: bytes, *, of: int | None = None) -> web.Response:
        """Answer with these bytes as the beginning of `of`, by default all there are."""
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body) if of is None else of
        await response.prepare(self.request)
        await response.write(body)
        if of is not None and of != len(body):
            self.reset()
        await response.write_eof()
        self.call.status = status
        return response  # type: ignore[return-value]


Spoil = Callable[[Exchange], Awaitable[web.StreamResponse]]


def refused(status: int, reason: str = "", *, retry_after_seconds: int | None = None) -> Spoil:
    """The API server is not asked, and this is the answer."""
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": f"injected {status}"}
    headers = {"Content-Type": "application/json"}
    if retry_after_seconds is not None:
        headers["Retry-After"] = str(retry_after_seconds)

    async def spoil(exchange: Exchange) -> web.StreamResponse:
        return await exchange.sent(status, headers, json.dumps(body).encode())

    return spoil


async def reset_before(exchange: Exchange) -> web.StreamResponse:
    """The connection breaks before the API server has heard of it."""
    return exchange.reset()


async def reset_after(exchange: Exchange) -> web.StreamResponse:
    """The API server does it, and the connection breaks before the answer."""
    await exchange.asked()
    return exchange.reset()


async def stalled(exchange: Exchange) -> web.StreamResponse:
    """Nothing comes until whoever asks gives up."""
    await _for_ever()
    return exchange.reset()


async def half_sent(exchange: Exchange) -> web.StreamResponse:
    """The API server does it, and the connection breaks in the middle of the answer."""
    status, headers, body = await exchange.asked()
    return await exchange.sent(status, headers, body[: len(body) // 2], of=len(body))


async def truncated(exchange: Exchange) -> web.StreamResponse:
    """The API server does it, and half of its JSON arrives as a whole answer."""
    status, headers, body = await exchange.asked()
    return await exchange.sent(status, headers, body[: len(body) // 2])


async def watch_line_truncated(exchange: Exchange) -> web.StreamResponse:
    """A watch ends in good order after half an event."""
    return await exchange.sent(200, {"Content-Type": "application/json"}, b'{"type":"MODIFIED","object":{"kind":')


async def watch_ended_at_once(exchange: Exchange) -> web.StreamResponse:
    """A watch ends in good order with nothing told."""
    return await exchange.sent(200, {"Content-Type": "application/json"}, b"")


async def watch_expired(exchange: Exchange) -> web.StreamResponse:
    """The watch begins, and tells that its version is too old."""
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    return await exchange.sent(200, {"Content-Type": "application/json"}, line)


@dataclass
class Rule:
    """What happens to the calls that fit."""

    fits: Callable[[Call], bool]
    spoil: Spoil
    times: int | None = None
    hits: int = 0


@dataclass
class _Kill:
    after: int
    kill: Callable[[], None]
    seen: bool
    count: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class FaultyProxy:
    """Start it by `faulty_proxy`; everything but its own loop may be called from the test's thread."""

    def __init__(self, kubeconfig: Path) -> None:
        self.calls: list[Call] = []
        self._server, self._tls = admin_tls(kubeconfig)
        self._rules: list[Rule] = []
        self._kill: _Kill | None = None
        self._open: dict[int, Exchange] = {}
        self._loop = asyncio.new_event_loop()
        self._begun = threading.Event()
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self.port = 0

    @contextmanager
    def spoiling(self, spoil: Spoil, fits: Callable[[Call], bool], times: int | None = None) -> Iterator[Rule]:
        """Spoil the calls that fit, at most so many, until the block ends; a later rule goes before an earlier one."""
        rule = Rule(fits, spoil, times)
        self._rules.insert(0, rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)

    def silence_watches(self) -> None:
        """The watches that are open now say nothing any more."""
        for exchange in list(self._open.values()):
            exchange.is_silent = exchange.call.verb == "WATCH"

    def break_connections(self) -> None:
        """Reset every request that is under way, watches above all."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def kill_after(self, writes: int, kill: Callable[[], None], *, seen: bool) -> threading.Event:
        """Let so many writes pass from now on and kill the operator then; no later write of its comes through.

        The API server has done the last of them; `seen`: and the operator has got the answer. Returns what is set then.
        """
        self._kill = _Kill(writes, kill, seen)
        return self._kill.done

    def spare(self) -> None:
        """Let everything through again after a kill, or instead of one."""
        self._kill = None

    @property
    def is_busy(self) -> bool:
        """Whether anything but watches is under way."""
        return any(exchange.call.verb != "WATCH" for exchange in list(self._open.values()))

    def writes(self, since: int = 0) -> list[str]:
        """The writes among the calls from this number on that were answered by a success."""
        return [str(call) for call in self.calls[since:] if call.is_write and 200 <= call.status < 300]

    async def _serve(self) -> None:
        application = web.Application(client_max_size=_LARGEST_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await runner.setup()
        self._end, self._gate = asyncio.Event(), asyncio.Lock()
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._begun.set()
            await self._end.wait()
            await runner.cleanup()

    def _begin(self) -> None:
        self._thread.start()
        assert self._begun.wait(60), "the proxy did not start"

    def _stop(self) -> None:
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        self._loop.close()

    def _abort_all(self) -> None:
        for exchange in list(self._open.values()):
            if exchange.request.transport is not None:
                exchange.request.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = _call(request)
        self.calls.append(call)
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers.pop("Authorization", None)

        def upstream() -> Any:
            return self._session.request(
                request.method,
                self._server + request.raw_path,
                data=body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None),
            )

        exchange = Exchange(call, request, upstream)
        self._open[id(request)] = exchange
        try:
            if self._kill is not None and call.is_write and call.plural != "events":
                return await self._counted(exchange, self._kill)
            rule = next((rule for rule in self._rules if _applies(rule, call)), None)
            if rule is not None:
                rule.hits += 1
                return await rule.spoil(exchange)
            return await (exchange.sent(*await exchange.asked()) if call.is_write else exchange.passed())
        except aiohttp.ClientError:
            # The API server is away, and so is its port.
            return exchange.reset()
        finally:
            self._open.pop(id(request), None)

    async def _counted(self, exchange: Exchange, kill: _Kill) -> web.StreamResponse:
        # One by one, so that exactly so many have been done when the operator ends.
        async with self._gate:
            if kill.done.is_set():
                return exchange.reset()
            status, headers, body = await exchange.asked()
            kill.count += 200 <= status < 300
            exchange.call.status = status
            is_last = kill.count == kill.after
            response = None if is_last and not kill.seen else await exchange.sent(status, headers, body)
            if is_last:
                kill.kill()
                kill.done.set()
            return response or exchange.reset()


@contextmanager
def faulty_proxy(kubeconfig: Path, folder: Path) -> Iterator[tuple[FaultyProxy, Path]]:
    """A proxy in front of the API server of this kubeconfig, and the kubeconfig that leads to the proxy."""
    proxy = FaultyProxy(kubeconfig)
    proxy._begin()
    through = folder / "kubeconfig-through-proxy"
    through.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "a",
                "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{proxy.port}"}}],
                "users": [{"name": "a", "user": {"token": "x"}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            }
        )
    )  # fmt: skip
    try:
        yield proxy, through
    finally:
        proxy._stop()


def _applies(rule: Rule, call: Call) -> bool:
    return (rule.times is None or rule.hits < rule.times) and rule.fits(call)


def _call(request: web.Request) -> Call:
    """Verb and target of a request; the address is /api/v1/… or /apis/GROUP/VERSION/… with or without a namespace."""
    parts = request.path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    plural = rest[0] if rest else ""
    name = "/".join(rest[1:])
    verb = request.method
    if verb == "PATCH" and request.content_type == "application/apply-patch+yaml":
        verb = "APPLY"
    elif verb == "GET" and plural and not name:
        verb = "WATCH" if request.query.get("watch") == "true" else "LIST"
    return Call(verb, plural, name, request.path, time.monotonic())


def _kept(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
