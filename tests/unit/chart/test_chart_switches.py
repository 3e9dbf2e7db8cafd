"""Every value is a switch, and a suite of charts/ropewalk/tests throws it: helm-unittest runs them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from chart_helm import CHART, program

SUITES = sorted((CHART / "tests").glob("*_test.yaml"))


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every value that holds no others, by its dotted path."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def thrown(suites: list[str]) -> set[str]:
    """The dotted paths that the suites set, with everything above them."""
    found: set[str] = set()
    for text in suites:
        for test in yaml.safe_load(text)["tests"]:
            for path in set_by(test.get("set", {})):
                parts = path.split(".")
                found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return found


def set_by(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from set_by(value, f"{path}{name}.")


@pytest.mark.parametrize("suite", SUITES, ids=lambda file: file.stem)
def test_the_suite_holds(suite: Any) -> None:
    done = subprocess.run(
        [program("helm-unittest"), "--file", f"tests/{suite.name}", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_value_is_thrown_by_some_suite() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert sorted(set(leaves(values)) - thrown([suite.read_text() for suite in SUITES])) == []


def test_a_value_that_no_suite_throws_is_found() -> None:
    suite = "tests: [{it: x, set: {a.b: 1, c: {d: 2}}}]"
    values = {"a": {"b": 0}, "c": {"d": 0, "e": 0}, "f": []}
    assert sorted(set(leaves(values)) - thrown([suite])) == ["c.e", "f"]
