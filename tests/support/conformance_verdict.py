"""What the suite's checks mean: for a scenario, for the bridge beside the native server, for what is known to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import yaml

Leg = Literal["server", "client"]
_BAD = ("FAILURE", "WARNING")


@dataclass(frozen=True)
class Check:
    """One check of a scenario: SUCCESS, FAILURE, WARNING (what the protocol only recommends), INFO or SKIPPED."""

    id: str
    status: str
    message: str


@dataclass(frozen=True)
class Requirements:
    """The scenarios of one revision of the protocol."""

    revision: str
    required_of_server: tuple[str, ...]
    required_of_client: tuple[str, ...]
    not_scored: Mapping[tuple[str, str], str]
    """By leg and scenario, why the suite runs it and does not count it."""

    def scenarios(self, leg: Leg) -> list[str]:
        """All scenarios of a leg, the required ones first."""
        required = self.required_of_server if leg == "server" else self.required_of_client
        return [*required, *(name for of, name in self.not_scored if of == leg)]


def bad(checks: Iterable[Check]) -> dict[str, str]:
    """The checks that fail or warn, by their id, with what the suite says of each; one id may stand for several."""
    return {check.id: check.message for check in checks if check.status in _BAD}


def cell(checks: Sequence[Check]) -> str:
    """A scenario's place in the table."""
    counted = [check for check in checks if check.status in ("SUCCESS", *_BAD)]
    if failed := len([check for check in counted if check.status in _BAD]):
        return f"**fails {failed} of {len(counted)}**"
    return f"passes {len(counted)}" if counted else "nothing to check"


def regressions(native: Sequence[Check], bridged: Sequence[Check]) -> dict[str, str]:
    """The checks that fail behind the bridge and not natively, or more often than natively."""
    known, failed = (Counter(check.id for check in checks if check.status in _BAD) for checks in (native, bridged))
    return {name: message for name, message in bad(bridged).items() if failed[name] > known[name]}


@dataclass(frozen=True)
class Expected:
    """What is known to fail, in the suite's own format: whole scenarios, or `scenario:check`."""

    scenarios: frozenset[str] = frozenset()
    checks: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Expected:
        """Read the list of a file's `client`."""
        entries = [str(entry).partition(":") for entry in (yaml.safe_load(text) or {}).get("client", ())]
        whole = frozenset(scenario for scenario, _, check in entries if not check)
        return cls(whole, frozenset((scenario, check) for scenario, _, check in entries if check))

    def names(self, scenario: str) -> bool:
        """Whether something of the scenario is on the list."""
        return scenario in self.scenarios or any(of == scenario for of, _ in self.checks)

    def surprises(self, scenario: str, checks: Sequence[Check]) -> list[str]:
        """Say what failed although it is not listed, and what is listed although it did not fail."""
        failed = bad(checks)
        if scenario in self.scenarios:
            return [] if failed else [f"{scenario} is listed as failing and passes; take it off the list"]
        listed = {check for of, check in self.checks if of == scenario}
        passed = {check.id for check in checks if check.status == "SUCCESS"} - failed.keys()
        return [
            *(f"{scenario}: {name} fails: {message}" for name, message in failed.items() if name not in listed),
            *(f"{scenario}:{name} is listed as failing and passes; take it off" for name in sorted(listed & passed)),
        ]
