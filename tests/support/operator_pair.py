"""Several operators of one Lease beside a real API server, a user who keeps them busy, and what each has written."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from apiserver import ApiServer
from apiserver_audit import Write
from operator_namespace import Namespace
from operator_process import OperatorProcess
from waiting import until


class Operators:
    """Operators that work in one namespace, each the process of another pod."""

    def __init__(self, server: ApiServer, namespace: Namespace, folder: Path) -> None:
        self._server = server
        self._namespace = namespace
        self._folder = folder
        self._count = itertools.count()
        self._all: list[OperatorProcess] = []

    def start(self, kubeconfig: Path | None = None) -> OperatorProcess:
        """One more; its caches are filled."""
        number = next(self._count)
        process = OperatorProcess(
            kubeconfig or self._server.kubeconfig,
            self._folder / f"operator-{number}.log",
            ROPEWALK_WATCH_NAMESPACES=self._namespace.name,
            ROPEWALK_LEASE_NAMESPACE=self._namespace.name,
            POD_NAME=f"operator-{number}",
        )
        self._all.append(process)
        return process.start()

    def start_leader(self, kubeconfig: Path | None = None) -> OperatorProcess:
        """One that leads."""
        process = self.start(kubeconfig)
        until(process.leads, "it leads")
        return process

    def kill_all(self) -> None:
        """End whatever is left."""
        for process in self._all:
            process.kill()

    def writes(self) -> list[Write]:
        """What operators have written in the namespace."""
        return [each for each in self._server.writes(self._namespace.name) if each.author.startswith(AUTHOR)]

    def overlaps(self) -> list[str]:
        """Where one has written after the first write of another had come."""
        spans = []
        for author, group in itertools.groupby(sorted(self.writes(), key=lambda each: each.author), lambda e: e.author):
            mine = list(group)
            first, last = min(mine, key=lambda each: each.received), max(mine, key=_counts_until)
            spans.append((first.received, _counts_until(last), f"{author}: {first}", f"{author}: {last}"))
        return [
            f"{after[2]} came {(before[1] - after[0]).total_seconds():.3f} s before the end of {before[3]}"
            for before, after in itertools.pairwise(sorted(spans))
            if after[0] < before[1]
        ]

    def authors(self) -> list[str]:
        """The names of those who have written, in the order of their first write."""
        return list(dict.fromkeys(each.author.removeprefix(AUTHOR).partition("_")[0] for each in self.writes()))


AUTHOR = "ropewalk-operator-"


def _counts_until(write: Write) -> datetime:
    # Received is when the head of a request has come; the rest may come later. So what has come into force counts until
    # it was over, which no API server of a test takes as long for as a Lease lasts. What was refused has changed
    # nothing: there the sending is what nobody may do any more, and the refusal says nothing about when that was.
    # Half a request of a process that is stopped is refused when its connection ends, long after.
    return write.over if write.code < 400 else write.received


class User(threading.Thread):
    """Edits Agents all the time, so that whoever leads always has something to write."""

    def __init__(self, namespace: Namespace, agents: int) -> None:
        super().__init__(name="user")
        self._namespace = namespace
        self._agents = agents
        self._enough = threading.Event()
        self.edits = 0
        self.failed = 0

    def run(self) -> None:
        for number in itertools.cycle(range(self._agents)):
            if self._enough.is_set():
                return
            patch = json.dumps({"spec": {"systemPrompt": f"edit {self.edits}"}})
            try:
                self._namespace.kubectl("patch", "agent", f"busy-{number}", "--type=merge", "-p", patch)
            except AssertionError:
                # The API server may be away.
                self.failed += 1
            self.edits += 1

    def stop(self) -> None:
        """Make no more edits."""
        self._enough.set()
        self.join()


@contextmanager
def busy(namespace: Namespace, agents: int = 3) -> Iterator[User]:
    """A user at work."""
    for number in range(agents):
        namespace.agent(f"busy-{number}")
    user = User(namespace, agents)
    user.start()
    try:
        yield user
    finally:
        user.stop()


def is_up_to_date(namespace: Namespace, agents: int = 3) -> bool:
    """Whether every Agent's ConfigMap holds what its user has last asked for."""
    for number in range(agents):
        agent, child = namespace.get("agent", f"busy-{number}"), namespace.get("configmap", f"busy-{number}-agent")
        assert agent is not None
        if child is None or json.loads(child["data"]["agent.json"])["systemPrompt"] != agent["spec"]["systemPrompt"]:
            return False
    return True
