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


def thrown(suites: list[str], defaults: Mapping[str, Any]) -> set[str]:
    """The dotted paths of the values that the suites set to something else, with everything above them, and then expect
    something of what is made.
    """
    found: set[str] = set()
    for text in suites:
        for test in yaml.safe_load(text)["tests"]:
            if all("failedTemplate" in each for each in test["asserts"]):
                continue
            for path, value in test.get("set", {}).items():
                for other in others(path, value, default_of(path, defaults)):
                    parts = other.split(".")
                    found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return found


def others(path: str, value: Any, default: Any) -> Iterator[str]:
    """The paths at and below `path` of which the value is not the default."""
    if value != default:
        yield path
        if isinstance(value, dict):
            for name, below in value.items():
                yield from others(f"{path}.{name}", below, default.get(name) if isinstance(default, dict) else None)


def default_of(path: str, values: Any) -> Any:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


@pytest.mark.parametrize("suite", SUITES, ids=lambda file: file.stem)
def test_the_suite_holds(suite: Any) -> None:
    done = subprocess.run(
        [program("helm-unittest"), "--file", f"tests/{suite.name}", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_value_is_thrown_by_some_suite() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert sorted(set(leaves(values)) - thrown([suite.read_text() for suite in SUITES], values)) == []


@pytest.mark.parametrize(
    "test",
    [
        "{set: {a.b: 1, c: {d: 2, e: 0}}, asserts: [equal: {}]}",
        "{set: {a.b: 1, c: {d: 2}}, asserts: [equal: {}, failedTemplate: {}]}",
    ],
)
def test_a_value_that_no_suite_throws_is_found(test: str) -> None:
    values = {"a": {"b": 0}, "c": {"d": 0, "e": 0}, "f": []}
    assert sorted(set(leaves(values)) - thrown([f"tests: [{test}]"], values)) == ["c.e", "f"]


def test_a_value_that_is_only_refused_is_found() -> None:
    assert thrown(["tests: [{set: {a: 1}, asserts: [failedTemplate: {}]}]"], {"a": 0}) == set()
