"""The process as a whole: what ends it."""

from __future__ import annotations

import asyncio
import time

import pytest
from kubernetes.aio.client import Configuration

from ropewalk_operator import __main__ as program
from ropewalk_operator import settings
from ropewalk_operator.guard import Guard
from ropewalk_operator.kinds import LEASE, Key
from ropewalk_operator.kube import Kube
from ropewalk_operator.leader import Election, uptime
from ropewalk_operator.metrics import Metrics

ENVIRONMENT = {
    "ROPEWALK_AGENT_IMAGE": "ropewalk.dev/agent:0.1.0",
    "ROPEWALK_STDIO_IMAGE": "ropewalk.dev/mcp-stdio:0.1.0",
    "ROPEWALK_HOST": "127.0.0.1",
    "ROPEWALK_PORT": "0",
}


class WithoutAnApiServer(program.Operator):
    """Has begun, and one of its workers ends at once."""

    async def _work(self) -> None:
        self._start(asyncio.sleep(0), "worker 3")


async def test_a_worker_that_ends_ends_the_process_even_where_the_election_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "LAST_WORD_SECONDS", 0.0)
    guard = Guard(uptime)
    kube = Kube(Configuration(), guard)
    election = Election(
        kube, guard, Key(LEASE.name, "default", "lease"), identity="a", clock=uptime, wall_clock=time.time
    )
    operator = WithoutAnApiServer(settings.load(ENVIRONMENT), kube, election, Metrics())
    with pytest.raises(program.CannotGoOn, match="worker 3 has ended"):
        await asyncio.wait_for(operator.run(), 10)
    await kube.close()
