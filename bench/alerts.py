"""A real fault for every alert of the chart on the local cluster: when Alertmanager has it, and when it is resolved.

Thresholds and waits are the chart's own. BENCH_ALERTS_MINUTES bounds it: 45 is enough for all but the error budget's
window of a day, which takes 85.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.progress import say
from cluster.layout import Layout
from e2e_alerts import SPACES, Fault, world
from observe import stack
from observe.prometheus import Prometheus
from waiting import until

_MINUTES = float(os.environ.get("BENCH_ALERTS_MINUTES", "45"))
_TO_RESOLVE_SECONDS = 900.0
"""Of the time, kept for the ends of the faults whose alerts have not come."""
_LOOK_SECONDS = 2.0
Row = tuple[str, str, str]


@dataclass
class Alertmanager:
    """What it has as active, looked at every two seconds; and everything that it ever had."""

    active: list[dict[str, str]] = field(default_factory=list)
    ever: dict[tuple[tuple[str, str], ...], None] = field(default_factory=dict)
    looks: int = 0

    def watch(self, over: threading.Event) -> None:
        """Look until it is over. An Alertmanager that does not answer ends the looking, and with it the measuring."""
        with httpx.Client(base_url=f"http://{stack.ALERTMANAGER}", timeout=10) as client:
            while not over.wait(_LOOK_SECONDS):
                found: list[dict[str, Any]] = client.get("/api/v2/alerts").raise_for_status().json()
                here = {space.name for space in SPACES}
                self.active = [each["labels"] for each in found if each["labels"].get("namespace") in here]
                self.ever.update({tuple(sorted(labels.items())): None for labels in self.active})
                self.looks += 1

    def has(self, wanted: Mapping[str, str]) -> bool:
        """Whether an active alert has these labels."""
        return any(wanted.items() <= labels.items() for labels in self.active)


@dataclass(frozen=True)
class _Measured:
    """What the threads share, one for each strand of faults."""

    alertmanager: Alertmanager
    ends: float
    over: threading.Event
    rows: queue.Queue[Row]

    def times(self, fault: Fault, since: float, ends: float, *, active: bool) -> dict[int, float]:
        """Seconds until each of the fault's alerts is active, or none; without those that do not come in time."""
        seen: dict[int, float] = {}
        first = self.alertmanager.looks
        while len(seen) < len(fault.raises) and time.monotonic() < ends:
            # What was seen before the fault tells nothing of it.
            if self.alertmanager.looks > first + 1:
                for number, labels in enumerate(fault.raises):
                    if number not in seen and self.alertmanager.has(labels) is active:
                        seen[number] = time.monotonic() - since
                        say(f"{'fires' if active else 'is resolved'}: {labels['alertname']} ({fault.what})")
            if self.over.wait(_LOOK_SECONDS / 2):
                break
        return seen


def run() -> Iterator[Row]:
    """Rows of (alert and fault, what came, what shall come), each as soon as it is known."""
    ends = time.monotonic() + _MINUTES * 60
    with _observing_given_back(), world() as strands:
        _observe()
        until(_sees_all, "Prometheus sees the leader of each release", seconds=90)
        alertmanager, over, rows = Alertmanager(), threading.Event(), queue.Queue[Row]()
        watching = threading.Thread(target=alertmanager.watch, args=(over,))
        watching.start()
        measured = _Measured(alertmanager, ends, over, rows)
        threads = [threading.Thread(target=_break, args=(strand, measured)) for strand in strands]
        try:
            until(lambda: alertmanager.looks, "Alertmanager answers")
            if alertmanager.active:
                raise RuntimeError(f"before any fault, Alertmanager has {alertmanager.active}")
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) or not rows.empty():
                if not watching.is_alive():
                    raise RuntimeError("Alertmanager has ceased to answer")
                try:
                    yield rows.get(timeout=1)
                except queue.Empty:
                    continue
        finally:
            # Each fault ends before what it broke is taken away.
            over.set()
            for thread in (watching, *(thread for thread in threads if thread.ident)):
                thread.join()
        yield _others(strands, alertmanager)


@contextmanager
def _observing_given_back() -> Iterator[None]:
    """In the end `make observe` looks at those releases that are left, or, where it did not run before, at none.

    Nobody shall be told that an operator does not lead whose release is gone.
    """
    was_up = stack.is_up(Layout.default())
    try:
        yield
    finally:
        if was_up:
            _observe()
        else:
            stack.down(Layout.default())


def _observe() -> None:
    """`make observe`, for the releases that there are now."""
    with redirect_stdout(sys.stderr):
        stack.up(Layout.default())


def _sees_all() -> bool:
    asked = Prometheus(f"http://{stack.PROMETHEUS}", 1)
    leaders = asked.instant("sum by (namespace) (ropewalk_operator_leader) == 1")
    return {labels["namespace"] for labels, _ in leaders} >= {space.name for space in SPACES}


def _break(strand: list[Fault], measured: _Measured) -> None:
    for fault in strand:
        if measured.over.is_set():
            return
        if time.monotonic() > measured.ends - _TO_RESOLVE_SECONDS:
            measured.rows.put(_row(fault, fault.raises[0], "not begun: no time was left"))
            continue
        try:
            _break_once(fault, measured)
        except Exception as error:
            # The other alerts are told of all the same.
            measured.rows.put(_row(fault, fault.raises[0], f"FAILED: {error}"))


def _break_once(fault: Fault, measured: _Measured) -> None:
    began = time.monotonic()
    say(f"begins: {fault.what}")
    try:
        fault.begin()
        came = measured.times(fault, began, measured.ends - _TO_RESOLVE_SECONDS, active=True)
    finally:
        ended = time.monotonic()
        say(f"ends: {fault.what}")
        fault.end()
    went = measured.times(fault, ended, measured.ends, active=False)
    for number, labels in enumerate(fault.raises):
        fired = f"fired after {_minutes(came[number])}" if number in came else f"NOT FIRED in {_minutes(ended - began)}"
        resolved = f"resolved after {_minutes(went[number])}" if number in went else "NOT RESOLVED in the time"
        measured.rows.put(_row(fault, labels, f"{fired}, {resolved}" if number in came else fired))


def _others(strands: list[list[Fault]], alertmanager: Alertmanager) -> Row:
    """What fired beside what was wanted."""
    wanted = [labels for strand in strands for fault in strand for labels in fault.raises]
    others = [
        dict(each) for each in alertmanager.ever if not any(labels.items() <= dict(each).items() for labels in wanted)
    ]
    said = sorted(
        f"{each['alertname']} ({', '.join(f'{key}={each[key]}' for key in sorted(each) if key not in _DULL)})"
        for each in others
    )
    return "what fired beside these", "; ".join(said) or "nothing", "only what the faults explain"


_DULL = ("alertname", "severity")


def _row(fault: Fault, labels: Mapping[str, str], figure: str) -> Row:
    which = "".join(f", {labels[key]}" for key in ("window", "severity") if key in labels)
    return f"`{labels['alertname']}`{which}: {fault.what}", figure, "fires, and is resolved"


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
