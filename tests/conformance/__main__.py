"""`python -m tests.conformance [COLUMN …]`: run the official suite, and print scenario by scenario who passes.

The server scenarios run against one server, natively and over stdio behind the bridge. The exit code is 1 where the
bridge fails a check that the native server passes, where the agent's client fails one that is not on the list of what
it cannot do, and where it passes one that is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.conformance import deployed, targets
from tests.conformance.suite import Suite, install

from cluster.console import Failure, fail, say, step
from cluster.layout import REPOSITORY, Layout
from conformance_verdict import Check, Expected, Requirements, bad, cell, regressions

REVISIONS = ("2025-11-25", "2026-07-28")
_SERVERS: dict[str, Callable[[], AbstractContextManager[targets.Target]]] = {
    "native": targets.native,
    "shared": partial(targets.bridged, "shared"),
    "perSession": partial(targets.bridged, "perSession"),
    "shared-pod": partial(deployed.bridged, "shared"),
    "perSession-pod": partial(deployed.bridged, "perSession"),
}
_WITHOUT_CLUSTER = ("native", "shared", "perSession", "client")
_CLIENT = (
    f"env PYTHONPATH={REPOSITORY / 'agent_image' / 'src'} {sys.executable} {Path(__file__).parent / 'agent_client.py'}"
)

# Each is a Python that imports for a second; with many of them none would connect within its time.
_CLIENTS_AT_ONCE = 2

Results = dict[str, list[Check]]


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    known = (*_SERVERS, "client")
    parser.add_argument("columns", nargs="*", metavar="COLUMN", help=f"{', '.join(known)}; all that need no cluster")
    parser.add_argument("--revision", action="append", choices=REVISIONS, help="only this one; may be repeated")
    chosen = parser.parse_args()
    columns = chosen.columns or list(_WITHOUT_CLUSTER)
    if unknown := [name for name in columns if name not in known]:
        parser.error(f"{', '.join(unknown)} is no column; there are {', '.join(known)}")
    try:
        suite = install(Layout.default().cache)
        say(f"The suite is @modelcontextprotocol/conformance {suite.version}.")
        problems = []
        for revision in chosen.revision or REVISIONS:
            requirements = suite.requirements(revision)
            if servers := [name for name in columns if name in _SERVERS]:
                problems += _servers(suite, requirements, servers)
            if "client" in columns:
                problems += _client(suite, requirements)
    except Failure as failure:
        return fail(failure)
    for problem in problems:
        say(f"✗ {problem}")
    say(f"{len(problems)} problems." if problems else "No problems.")
    return 1 if problems else 0


def _servers(suite: Suite, requirements: Requirements, columns: list[str]) -> list[str]:
    # Whatever is looked at is compared with the native server.
    columns = ["native", *(name for name in columns if name != "native")]
    results: dict[str, Results] = {}
    for column in columns:
        what = f"{requirements.revision}: {len(requirements.scenarios('server'))} server scenarios, {column}"
        # In perSession mode each scenario starts at least one process.
        expected = "a minute" if "perSession" in column else "10 seconds"
        with step(what, expected=expected), _SERVERS[column]() as target:
            results[column] = suite.server(target.url, requirements)
    _table(requirements, "server", results, Expected())
    return [
        f"{requirements.revision} {column} {name}: {check} fails behind the bridge only: {message}"
        for column in columns[1:]
        for name, checks in results[column].items()
        for check, message in regressions(results["native"][name], checks).items()
    ]


def _client(suite: Suite, requirements: Requirements) -> list[str]:
    scenarios = requirements.scenarios("client")
    expected = Expected.parse((Path(__file__).parent / f"expected-{requirements.revision}.yml").read_text())
    what = f"{requirements.revision}: {len(scenarios)} client scenarios, the agent"
    with step(what, expected="half a minute"), ThreadPoolExecutor(_CLIENTS_AT_ONCE) as pool:
        checks = pool.map(lambda name: suite.client(_CLIENT, name, requirements.revision), scenarios)
        results = dict(zip(scenarios, checks, strict=True))
    _table(requirements, "client", {"agent": results}, expected)
    return [
        f"{requirements.revision} agent: {surprise}"
        for name, checks in results.items()
        for surprise in expected.surprises(name, checks)
    ]


def _table(requirements: Requirements, leg: str, results: dict[str, Results], expected: Expected) -> None:
    say(f"\n| {requirements.revision} {leg} | {' | '.join(results)} |")
    say(f"|---{'|---' * len(results)}|")
    for scenario in next(iter(results.values())):
        reason = requirements.not_scored.get((leg, scenario))
        name = f"{scenario} ({reason}, not scored)" if reason else scenario
        cells = [cell(column[scenario]) for column in results.values()]
        if expected.names(scenario):
            cells = [f"{text}, as listed" for text in cells]
        say(f"| {name} | {' | '.join(cells)} |")
    say("")
    for column, checked in results.items():
        required = [not bad(checks) for name, checks in checked.items() if (leg, name) not in requirements.not_scored]
        others = [not bad(checks) for name, checks in checked.items() if (leg, name) in requirements.not_scored]
        say(
            f"{column}: no failing check in {sum(required)} of {len(required)} required scenarios, "
            f"{sum(others)} of {len(others)} others"
        )
    say("")


if __name__ == "__main__":
    sys.exit(main())
