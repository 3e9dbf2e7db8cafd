"""Whether a process may write: the guard itself, and that the connection asks it before each write."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from clock import Clock
from private_ca import PrivateCa
from ropewalk_operator.guard import UNANSWERED_SECONDS, Guard, NotLeading
from ropewalk_operator.kinds import DEPLOYMENT, LEASE
from ropewalk_operator.kube import ApiError, Kube
from waiting import eventually

MORE_THAN_A_KERNEL_HOLDS = 2**24
"""Bytes; see tcp_rmem and tcp_wmem in tcp(7)."""


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def guard(clock: Clock) -> Guard:
    return Guard(clock)


def test_nothing_may_be_written_before_it_is_opened(guard: Guard) -> None:
    assert not guard.is_open
    with pytest.raises(NotLeading), guard.writing():
        pass


def test_it_is_open_for_a_time_and_says_how_much_is_left(guard: Guard, clock: Clock) -> None:
    guard.open_until(10)
    clock.now = 9
    with guard.writing() as left:
        assert left == 1
    clock.now = 10
    assert not guard.is_open
    with pytest.raises(NotLeading):
        guard.seconds_left()


def test_once_closed_it_never_opens_again(guard: Guard) -> None:
    guard.open_until(10)
    guard.close()
    guard.open_until(20)
    assert not guard.is_open


def test_once_it_has_run_out_it_never_opens_again(guard: Guard, clock: Clock) -> None:
    guard.open_until(10)
    clock.now = 10
    guard.open_until(20)
    assert not guard.is_open
    with pytest.raises(NotLeading):
        guard.seconds_left()


async def test_it_is_settled_when_every_write_has_its_answer(guard: Guard) -> None:
    guard.open_until(10)
    with guard.writing():
        waiting = asyncio.create_task(guard.is_settled(5))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert not guard.is_open, "nothing new begins meanwhile"
    assert await waiting


async def test_a_write_that_goes_on_for_too_long_leaves_it_unsettled(guard: Guard) -> None:
    guard.open_until(10)
    with guard.writing():
        assert not await guard.is_settled(0.01)


@pytest.mark.parametrize("turns", range(4))
async def test_who_is_cancelled_while_the_last_answer_comes_is_cancelled(guard: Guard, turns: int) -> None:
    guard.open_until(10)
    with guard.writing():
        waiting = asyncio.create_task(guard.is_settled(5))
        await eventually(lambda: not guard.is_open, "it waits")
    for _ in range(turns):
        await asyncio.sleep(0)
    is_told = waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled() == is_told


async def test_a_write_without_an_answer_leaves_it_unsettled_for_a_while(guard: Guard, clock: Clock) -> None:
    guard.open_until(100)
    with pytest.raises(TimeoutError), guard.writing():
        raise TimeoutError
    assert not await guard.is_settled(1), "the API server may still be at it"
    clock.now += UNANSWERED_SECONDS + 1
    assert await guard.is_settled(1)


class Api:
    """An API server that says what it was asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.agents: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.gone = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        self.agents.append(request.headers["User-Agent"])
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        return web.json_response({"metadata": {"name": "x", "uid": "u", "resourceVersion": "1"}})


@pytest.fixture
async def api() -> Api:
    return Api()


@pytest.fixture
async def kube(api: Api, guard: Guard) -> AsyncIterator[Kube]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(application, handler_cancellation=True) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        connected = Kube(configuration, guard, agent="me")
        yield connected
        await connected.close()


BODY: dict[str, Any] = {"metadata": {"name": "x"}}
WRITES: dict[str, Callable[[Kube], Awaitable[object]]] = {
    "apply": lambda kube: kube.apply(DEPLOYMENT, "n", "x", BODY),
    "merge": lambda kube: kube.merge(DEPLOYMENT, "n", "x", BODY),
    "merge_status": lambda kube: kube.merge_status(DEPLOYMENT, "n", "x", BODY),
    "create": lambda kube: kube.create(DEPLOYMENT, "n", BODY),
    "delete": lambda kube: kube.delete(DEPLOYMENT, "n", "x", "u"),
}
NO_WRITES = {
    "connect",
    "get",
    "list_all",
    "may_list",
    "served",
    "read_lease",
    "close",
    "watch_session",
    "server",
    "write_lease",
}


def test_every_method_of_the_connection_is_known_to_write_or_not() -> None:
    public = {name for name, _ in inspect.getmembers(Kube) if not name.startswith("_")}
    assert public == NO_WRITES | set(WRITES)


@pytest.mark.parametrize("write", WRITES)
async def test_no_write_is_sent_by_who_does_not_lead(kube: Kube, api: Api, guard: Guard, write: str) -> None:
    with pytest.raises(NotLeading):
        await WRITES[write](kube)
    assert api.seen == []
    guard.open_until(1)
    await WRITES[write](kube)
    assert len(api.seen) == 1


async def test_who_does_not_lead_reads_and_takes_the_lease(kube: Kube, api: Api) -> None:
    await kube.get(DEPLOYMENT, "n", "x")
    await kube.read_lease("n", "x", 1)
    await kube.write_lease("n", "x", BODY, 1)
    await kube.write_lease("n", "x", {"metadata": {"name": "x", "resourceVersion": "1"}}, 1)
    leases = LEASE.path("n")
    assert api.seen[1:] == [f"GET {leases}/x", f"POST {leases}", f"PUT {leases}/x"]
    assert {agent.split("/")[0] for agent in api.agents} == {"me"}, "an audit log tells who it was"


async def test_a_write_is_given_up_and_its_connection_closed_when_the_lease_may_end(
    kube: Kube, api: Api, guard: Guard, clock: Clock
) -> None:
    guard.open_until(0.1)
    api.answers.clear()
    with pytest.raises(ApiError, match="Unreachable"):
        await kube.create(DEPLOYMENT, "n", BODY)
    await eventually(api.gone.is_set, "the API server sees that nobody waits any more")
    clock.now = UNANSWERED_SECONDS / 2
    assert not await guard.is_settled(1)


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("is_kept", [True, False], ids=["a connection that is kept", "a new connection"])
async def test_whenever_the_process_is_stopped_for_long_nothing_of_a_write_is_sent_afterwards(
    kube: Kube, api: Api, guard: Guard, clock: Clock, monkeypatch: pytest.MonkeyPatch, is_kept: bool, turns: int
) -> None:
    guard.open_until(20)
    if is_kept:
        await kube.create(DEPLOYMENT, "n", BODY)
    sent_at: list[float] = []
    send = socket.socket.send

    def send_seen(to: socket.socket, data: bytes) -> int:
        if b"POST" in bytes(data):
            sent_at.append(clock.now)
        return send(to, data)

    def stop(after_turns: int) -> None:
        if after_turns:
            asyncio.get_running_loop().call_soon(stop, after_turns - 1)
        else:
            clock.now = 30

    monkeypatch.setattr(socket.socket, "send", send_seen)
    stop(turns)
    with suppress(NotLeading):
        await kube.create(DEPLOYMENT, "n", BODY)
    assert sent_at in ([], [0])
    assert len(api.seen) == is_kept + len(sent_at)


async def test_of_a_write_that_is_half_sent_the_other_half_stays_and_it_counts_as_unanswered(
    guard: Guard, clock: Clock
) -> None:
    received = asyncio.get_running_loop().create_future()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(await reader.read(1))
        # The kernel has taken what it can hold, and the process is stopped until long after.
        clock.now = 30
        with suppress(ConnectionError):
            while data := await reader.read(2**20):
                size += len(data)
        writer.close()
        received.set_result(size)

    guard.open_until(20)
    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        kube = Kube(configuration, guard)
        try:
            with pytest.raises(NotLeading):
                await kube.create(DEPLOYMENT, "n", {"metadata": {"name": "x" * MORE_THAN_A_KERNEL_HOLDS}})
            assert 0 < await received < MORE_THAN_A_KERNEL_HOLDS
        finally:
            await kube.close()
    assert not await guard.is_settled(1)


async def test_a_write_whose_connection_ends_while_all_are_awaited_is_no_write_that_was_not_sent(
    guard: Guard, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await eventually(lambda: not guard.is_open, "the process ends")
        # By TLS its end is told, and the client tells its own.
        writer.close()

    ca = PrivateCa()
    files = ca.server(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
    (tmp_path / "ca.pem").write_text(ca.pem)
    guard.open_until(20)
    async with await asyncio.start_server(receive, "127.0.0.1", 0, ssl=context) as server:
        configuration = Configuration()
        configuration.host = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        configuration.ssl_ca_cert = str(tmp_path / "ca.pem")
        kube = Kube(configuration, guard)
        try:
            writing = asyncio.create_task(kube.delete(DEPLOYMENT, "n", "x", "u"))
            await asked.wait()
            assert not await guard.is_settled(5)
            with pytest.raises(ApiError, match="Unreachable"):
                await writing
        finally:
            await kube.close()
