"""When servers are asked for their tools, and what is known meanwhile. Nobody is really asked here."""

from __future__ import annotations

import asyncio

import pytest

from ropewalk_operator import discovery
from ropewalk_operator.discovery import AgentPod, Discovery, ListingError, NotYetKnown, Target
from ropewalk_operator.facts import Discovered, Tool
from ropewalk_operator.kinds import Key

KEY = Key("MCPServer", "default", "math")
FOUND = Discovered((Tool("add", "adds", "sha256:1"),), "v", "math", "1")
TARGET = Target("math", "pod-1/0", "hash-1", "http://pod:8000/mcp")
AGENTS = Target("math", "agent-pod", "1", agents=(AgentPod("calc", "10.0.0.1"),))


class Asked:
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.told: list[Key] = []
        self.now = 0.0
        self.answer: Discovered | Exception = FOUND
        self.discovery = Discovery(self.told.append, every_seconds=600, clock=lambda: self.now, ask=self._ask)

    async def _ask(self, target: Target) -> Discovered:
        self.urls.append(target.url)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def look(self, target: Target | None = TARGET) -> None:
        """Look, and wait for the answer if that asked."""
        self.discovery.look(KEY, target)
        task = self.discovery._records[KEY].task
        if task is not None:
            await task


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def test_a_server_is_asked_once_for_the_same_pods(asked: Asked) -> None:
    assert asked.discovery.look(KEY, TARGET).pending
    await asked.look()
    view = asked.discovery.look(KEY, TARGET)
    assert (view.discovered, view.error, view.pending, view.next_in_seconds) == (FOUND, None, False, 600)
    assert asked.urls == ["http://pod:8000/mcp"]
    assert asked.told == [KEY]


async def test_other_pods_are_asked_and_what_is_known_of_the_same_spec_holds_meanwhile(asked: Asked) -> None:
    await asked.look()
    other = Target("math", "pod-2/0", "hash-1", "http://pod2:8000/mcp")
    assert asked.discovery.look(KEY, other).discovered == FOUND
    await asked.look(other)
    assert len(asked.urls) == 2


async def test_another_spec_makes_what_is_known_void(asked: Asked) -> None:
    await asked.look()
    assert asked.discovery.look(KEY, Target("math", "pod-2/0", "hash-2", "u")).pending
    assert asked.discovery.known(KEY) == FOUND


async def test_without_a_ready_pod_nothing_is_asked_and_what_is_known_holds(asked: Asked) -> None:
    assert asked.discovery.look(KEY, None).pending
    await asked.look()
    asked.now = 10_000
    assert asked.discovery.look(KEY, None).discovered == FOUND
    assert len(asked.urls) == 1


async def test_a_server_is_asked_now_and_then(asked: Asked) -> None:
    await asked.look()
    asked.now = 599
    await asked.look()
    assert len(asked.urls) == 1
    asked.now = 601
    await asked.look()
    assert len(asked.urls) == 2


async def test_agents_are_asked_every_minute(asked: Asked) -> None:
    await asked.look(AGENTS)
    assert asked.discovery.look(KEY, AGENTS).next_in_seconds == discovery.REPORTS_SECONDS == 60


async def test_a_failure_is_asked_again_with_growing_delays_and_keeps_what_was_known(asked: Asked) -> None:
    await asked.look()
    asked.answer = ListingError("refused")
    asked.now = 601
    delays = []
    for _ in range(3):
        await asked.look()
        view = asked.discovery.look(KEY, TARGET)
        assert view.error == "tools/list at http://pod:8000/mcp failed: refused"
        assert view.discovered == FOUND
        assert view.next_in_seconds is not None
        delays.append(view.next_in_seconds)
        asked.now += view.next_in_seconds
    assert delays == pytest.approx([0.5, 1.0, 2.0])


async def test_a_failure_that_nobody_foresaw_is_told_like_any_other(asked: Asked) -> None:
    asked.answer = RuntimeError("x" * 10_000)
    await asked.look()
    error = str(asked.discovery.look(KEY, TARGET).error)
    assert error.startswith("tools/list at http://pod:8000/mcp failed: xxx")
    assert len(error) < 600


async def test_while_nobody_knows_it_stays_pending_and_is_asked_again_soon(asked: Asked) -> None:
    asked.answer = NotYetKnown()
    await asked.look(AGENTS)
    view = asked.discovery.look(KEY, AGENTS)
    assert (view.pending, view.error, view.next_in_seconds) == (True, None, 0.5)
    assert asked.told == [KEY], "whoever asked has to come back for the next look"
    asked.answer = FOUND
    asked.now = 0.5
    await asked.look(AGENTS)
    assert asked.discovery.look(KEY, AGENTS).discovered == FOUND


async def test_what_agents_say_is_told_as_it_is(asked: Asked) -> None:
    asked.answer = ListingError('agent "calc": it answered HTTP 401')
    await asked.look(AGENTS)
    assert asked.discovery.look(KEY, AGENTS).error == 'agent "calc": it answered HTTP 401'


async def test_a_server_that_is_gone_is_forgotten(asked: Asked) -> None:
    await asked.look()
    asked.discovery.forget(KEY)
    assert asked.discovery.look(KEY, None).pending
    assert asked.discovery.known(KEY) is None


async def test_only_so_many_are_asked_at_once_and_the_others_after_them() -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    async def hangs(target: Target) -> Discovered:
        begun.append(target.name)
        await go_on.wait()
        return FOUND

    slow = Discovery(lambda _: None, every_seconds=600, clock=lambda: 0.0, ask=hangs)
    keys = [Key("MCPServer", "default", f"s{number}") for number in range(discovery.AT_ONCE + 1)]
    for key in keys:
        slow.look(key, Target(key.name, "f", "c", "http://x"))
    tasks = [record.task for record in slow._records.values() if record.task is not None]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(begun) == discovery.AT_ONCE
    go_on.set()
    await asyncio.wait(tasks)
    assert all(slow.known(key) == FOUND for key in keys)


async def test_whoever_asks_and_never_comes_back_is_given_up(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> None:
    monkeypatch.setattr(discovery, "LAST_RESORT_SECONDS", 0.01)

    async def silent(_: Target) -> Discovered:
        await asyncio.Event().wait()
        return FOUND

    asked.discovery._ask = silent
    await asked.look()
    assert asked.discovery.look(KEY, TARGET).error == "tools/list at http://pod:8000/mcp failed: TimeoutError"
