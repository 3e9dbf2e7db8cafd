"""What kubeconform, kube-score and checkov say of manifests, as findings of one shape. Never asks the network."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from chart_helm import REPOSITORY, program
from cluster.layout import KUBERNETES_VERSION
from kube_schemas import LOCATION

CHECKOV = REPOSITORY / ".venv-checkov" / "bin" / "checkov"
_ALL_IS_WELL = 10


class Finding(NamedTuple):
    """A tool's complaint about an object, under the tool's own name for it."""

    tool: str
    check: str
    object: str


def kubeconform(manifests: Path, schemas: Path) -> set[Finding]:
    """Objects that Kubernetes' schemas refuse, or that have none."""
    options = ("-strict", "-verbose", "-output=json", f"-schema-location={schemas}/{LOCATION}")
    said = json.loads(_run(program("kubeconform"), *options, manifests))["resources"]
    assert said
    return {
        Finding("kubeconform", each["status"].removeprefix("status").lower(), f"{each['kind']}/{each['name']}")
        for each in said
        if each["status"] != "statusValid"
    }


def kube_score(manifests: Path) -> set[Finding]:
    """Checks that are below the best grade."""
    version = KUBERNETES_VERSION.rpartition(".")[0]
    said = json.loads(
        _run(program("kube-score"), "score", "--output-format=json", f"--kubernetes-version={version}", manifests)
    )
    assert said
    return {
        Finding("kube-score", check["check"]["id"], f"{each['type_meta']['kind']}/{each['object_meta']['name']}")
        for each in said
        for check in each["checks"]
        if not check["skipped"] and check["grade"] < _ALL_IS_WELL
    }


def checkov(manifests: Path) -> set[Finding]:
    """Checks that failed."""
    if not CHECKOV.exists():
        raise RuntimeError(f"{CHECKOV} does not exist: `make test-chart` makes it")
    options = ("--framework=kubernetes", "--output=json", "--compact", "--quiet", "--skip-download", "--file")
    said = json.loads(_run(CHECKOV, *options, manifests))
    assert said["summary"]["passed"]
    return set(_of_checkov(said["results"]["failed_checks"]))


def _of_checkov(failed: list[dict[str, Any]]) -> Iterator[Finding]:
    for each in failed:
        # Kind, namespace or "default", name, and for some checks the labels.
        kind, _, name, *_ = each["resource"].split(".")
        yield Finding("checkov", each["check_id"], f"{kind}/{name}")


def _run(*command: str | Path) -> str:
    # checkov looks at these for settings and colours of its own.
    environment = {**os.environ, "NO_COLOR": "1", "LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, f"{command[0]}: {done.stderr}"
    return done.stdout
