"""The stdio bridge under load, beside the same server over native HTTP, and with its child killed again and again.

BENCH_STDIO_SECONDS (20) is how long each of the loads lasts.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import time
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.targets import SessionMode, Target, bridged, native

from bench.mcp_load import Client, Tally

_SECONDS = float(os.environ.get("BENCH_STDIO_SECONDS") or 20)
_CLIENTS = 100
_OPENING_AT_ONCE = 8
"""Each session of the bridge's perSession mode starts a process."""
_KILL_EVERY_SECONDS = 10.0
_NEWCOMERS = 50
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What one load gave."""

    tally: Tally
    seconds: float
    cpu_seconds: float
    mib: tuple[float, float]
    """Of all processes together, proportional set size when the clients were connected, and at the end."""
    processes: int
    zombies: int
    """Processes that were dead and not waited for in two samples, a second apart."""

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return self.tally.right / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """CPU of all processes of the server, for a right answer."""
        return 1000 * self.cpu_seconds / max(1, self.tally.right)


def run() -> Iterator[tuple[str, str, str]]:
    """Rows of (measure, figure, goal), each as soon as it is there: in full the run takes most of an hour."""
    events = _measured("native, answers as events", native("events"))
    yield _row("native, answers as events (the mcp package's own way)", events, events, "")
    plain = _measured("native, answers as JSON, no sessions", native("json"))
    yield _row("native, answers as JSON without sessions (its fastest)", plain, events, "")
    shared = _measured("shared", bridged("shared"))
    goal = "≥ 0.5 × native; nothing lost or crossed; memory flat; no zombie"
    yield _row("bridge, shared", shared, events, goal)
    both = _measured("shared, half of the clients stateless", bridged("shared"), stateless=_CLIENTS // 2)
    yield _row("bridge, shared, half of the clients of each era", both, events, "the same")
    separate = _measured("perSession", bridged("perSession"))
    yield _row("bridge, perSession", separate, events, "nothing lost or crossed; memory flat; no zombie")
    yield _newcomers()
    yield _killed("shared")
    yield _killed("perSession")


def _row(name: str, load: Load, beside: Load, goal: str) -> tuple[str, str, str]:
    tally = load.tally
    figure = (
        f"{load.rate:.0f} calls/s ({load.rate / beside.rate:.2f} ×); "
        f"{load.cpu_milliseconds:.2f} ms CPU a call ({load.cpu_milliseconds / beside.cpu_milliseconds:.2f} ×); "
        f"of {tally.sent} calls {tally.lost} lost, {tally.crossed} crossed, {_refusals(tally)}; "
        f"slowest {tally.slowest_seconds:.2f} s; {load.mib[0]:.0f} → {load.mib[1]:.0f} MiB in {load.processes} "
        f"processes; {load.zombies} zombies"
    )
    return f"{name}: {_CLIENTS} clients at once, {_SECONDS:.0f} s", figure, goal


def _refusals(tally: Tally) -> str:
    if not tally.refused:
        return "0 refused"
    return f"{tally.refused.total()} refused ({', '.join(f'{n} × {what}' for what, n in tally.refused.most_common(4))})"


def _measured(name: str, serving: AbstractContextManager[Target], *, stateless: int = 0, kill: bool = False) -> Load:
    print(f"  {name}: {_CLIENTS} clients, {_SECONDS:.0f} s …", file=sys.stderr, flush=True)
    with serving as target:
        return asyncio.run(_load(target, stateless=stateless, kill=kill))


async def _load(target: Target, *, stateless: int, kill: bool) -> Load:
    tally = Tally()
    clients = [Client(target.port, tally, stateless=number < stateless) for number in range(_CLIENTS)]
    await _few_at_once(client.open() for client in clients)
    for client in clients:
        # Where that took long, the server may have ended a connection that was idle, which would look like a lost call.
        client.close()
    await _few_at_once(client.call() for client in clients)
    family = Family(target.process.pid)
    mib, cpu, began = family.pss_mib(), family.cpu_seconds(), time.monotonic()
    end = began + _SECONDS
    watching = asyncio.create_task(family.watch(end, kill_every_seconds=_KILL_EVERY_SECONDS if kill else None))
    await asyncio.gather(*(client.call_until(end) for client in clients))
    seconds, spent = time.monotonic() - began, family.cpu_seconds() - cpu
    zombies = await watching
    load = Load(tally, seconds, spent, (mib, family.pss_mib()), len(family.members()), zombies)
    for client in clients:
        client.close()
    return load


async def _few_at_once(doings: Iterable[Awaitable[object]]) -> None:
    gate = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def one(doing: Awaitable[object]) -> None:
        async with gate:
            await doing

    await asyncio.gather(*(one(doing) for doing in doings))


def _newcomers() -> tuple[str, str, str]:
    print("  shared: others initialize while one calls …", file=sys.stderr, flush=True)

    async def measure(target: Target) -> tuple[Tally, Tally, set[int]]:
        alone, accompanied = Tally(), Tally()
        first = Client(target.port, alone)
        await first.open()
        children = set(Family(target.process.pid).members())
        await first.call_until(time.monotonic() + 2)
        first.tally = accompanied
        calling = asyncio.create_task(first.call_until(time.monotonic() + 2))
        for _ in range(_NEWCOMERS):
            newcomer = Client(target.port, Tally())
            await newcomer.open()
            newcomer.close()
        await calling
        return alone, accompanied, children ^ set(Family(target.process.pid).members())

    with bridged("shared") as target:
        alone, accompanied, changed = asyncio.run(measure(target))
    wrong = accompanied.sent - accompanied.right
    figure = (
        f"{wrong} of {accompanied.sent} calls failed; slowest {accompanied.slowest_seconds * 1000:.0f} ms against "
        f"{alone.slowest_seconds * 1000:.0f} ms alone; {len(changed)} processes ended or began"
    )
    return f"shared: {_NEWCOMERS} others initialize while one client calls", figure, "nobody is disturbed"


def _killed(mode: SessionMode) -> tuple[str, str, str]:
    # Shared, each era may have a child of its own: with clients of both, whichever is killed is in use.
    stateless = _CLIENTS // 2 if mode == "shared" else 0
    name = f"{mode}, a child killed every {_KILL_EVERY_SECONDS:.0f} s"
    load = _measured(name, bridged(mode), stateless=stateless, kill=True)
    tally = load.tally
    figure = (
        f"{load.rate:.0f} calls/s; of {tally.sent} calls {tally.lost} lost, {tally.crossed} crossed, "
        f"{_refusals(tally)}; slowest answer {tally.slowest_seconds:.2f} s; {load.zombies} zombies; "
        f"{load.mib[0]:.0f} → {load.mib[1]:.0f} MiB"
    )
    return f"{name}: {_CLIENTS} clients, {_SECONDS:.0f} s", figure, "a clear error, nothing lost or crossed, no zombie"


class Family:
    """A process and all that descend from it, as /proc shows them (proc(5))."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def members(self) -> dict[int, list[str]]:
        """The fields of /proc/PID/stat after the name, by process."""
        everybody = {int(entry.name): _stat(entry) for entry in Path("/proc").glob("[0-9]*")}
        found: dict[int, list[str]] = {}
        wanted = {self._pid}
        while wanted:
            found |= {pid: everybody[pid] for pid in wanted if everybody.get(pid)}
            wanted = {pid for pid, fields in everybody.items() if fields and int(fields[1]) in wanted} - found.keys()
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all of them, and of those that have ended and were waited for."""
        return sum(sum(map(int, fields[11:15])) for fields in self.members().values()) / _TICKS

    def pss_mib(self) -> float:
        """Proportional set size of all of them together."""
        sizes = (
            re.search(r"^Pss:\s+(\d+) kB", _text(Path(f"/proc/{pid}/smaps_rollup")), re.M) for pid in self.members()
        )
        return sum(int(size[1]) for size in sizes if size) / 1024

    def zombies(self) -> set[int]:
        """Those that have ended and were not waited for."""
        return {pid for pid, fields in self.members().items() if fields[0] == "Z"}

    async def watch(self, end: float, *, kill_every_seconds: float | None) -> int:
        """Until a moment of time.monotonic(), kill a child from time to time; return how many stayed zombies."""
        before, stayed = self.zombies(), set[int]()
        kill_at = time.monotonic() + min(kill_every_seconds or 0, (end - time.monotonic()) / 3)
        while time.monotonic() < end + 1:
            await asyncio.sleep(1)
            now = self.zombies()
            stayed |= before & now
            before = now
            if kill_every_seconds is not None and kill_at <= time.monotonic() < end:
                os.kill(random.choice(sorted(self.members().keys() - {self._pid})), signal.SIGKILL)
                kill_at += kill_every_seconds
        return len(stayed)


def _stat(entry: Path) -> list[str]:
    return _text(entry / "stat").rpartition(")")[2].split()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
