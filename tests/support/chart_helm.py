"""Renders the chart with the real helm. It never talks to a cluster unless a kubeconfig is given."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster.layout import Layout

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "ropewalk"
CRDS = REPOSITORY / "crds"

# A helm that was built as a plain Go module takes a cluster that it cannot ask for Kubernetes 1.20.
_KUBE_VERSION = ("--kube-version", "1.34.0")


def run_helm(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm, or the one that ROPEWALK_HELM names, and return what it said, whether it succeeded or not."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig) if kubeconfig else os.devnull}
    return subprocess.run(
        [program(os.environ.get("ROPEWALK_HELM", "helm")), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """Run helm; its output, or an AssertionError with what it said."""
    done = run_helm(*arguments, kubeconfig=kubeconfig)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def lint(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `helm lint --strict` on the chart."""
    return run_helm("lint", "--strict", *_KUBE_VERSION, str(CHART), *arguments)


def try_template(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `helm template` for release ropewalk in namespace ropewalk-system, for values that are to be refused."""
    return run_helm("template", "ropewalk", str(CHART), "--namespace", "ropewalk-system", *_KUBE_VERSION, *arguments)


@functools.cache
def render_text(*arguments: str) -> str:
    """Return the output of `helm template` for release ropewalk in namespace ropewalk-system."""
    done = try_template(*arguments)
    assert done.returncode == 0, f"helm template {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def render(*arguments: str) -> list[dict[str, Any]]:
    """Return the objects that the chart makes, those of `helm test` too."""
    return [each for each in yaml.safe_load_all(render_text(*arguments)) if each]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Return the objects of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    """Return the objects of a kind and name, of all namespaces."""
    return [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]


def only(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of a kind and name."""
    found = named(objects, kind, name)
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}, not one"
    return found[0]


def is_test_hook(each: dict[str, Any]) -> bool:
    """Tell whether an object lives only while `helm test` runs."""
    return "helm.sh/hook" in each["metadata"].get("annotations", {})


@functools.cache
def program(name: str) -> Path:
    """Where a program of dev/tools is."""
    binary = Path(os.environ.get("ROPEWALK_BIN") or Layout.default().bin) / name
    if not binary.exists():
        raise RuntimeError(f"{binary} does not exist: `make tools` builds it, or set ROPEWALK_BIN to its folder")
    return binary
