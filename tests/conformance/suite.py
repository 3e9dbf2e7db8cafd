"""The official suite: installed from its lock file into the cache, then asked for its scenarios."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.console import Failure, step
from conformance_verdict import Check, Requirements

_HERE = Path(__file__).parent
_FILES = ("package.json", "package-lock.json", ".npmrc")
_SCENARIO_MILLISECONDS = 60_000
"""What the suite gives one scenario."""
_RUN_SECONDS = 900
_NAMED_FOLDER = re.compile(r"^(?:server-)?(.*?)-\d{4}-\d\d-\d\dT[\d-]+Z$")
"""The suite names the folder of a result by the scenario and the moment."""


@dataclass(frozen=True)
class Suite:
    """The suite in a folder of its own, with the Node.js that it wants."""

    folder: Path

    @property
    def version(self) -> str:
        """The installed version."""
        return str(json.loads((self._package / "package.json").read_text())["version"])

    def requirements(self, revision: str) -> Requirements:
        """What a revision of the protocol requires of a server and of a client, by the suite's own list."""
        text = (self._package / "requirements" / f"{revision}.yaml").read_text()
        listed = yaml.safe_load(text)
        reasons = {(each["leg"], each["scenario"]): each["reason"] for each in listed["not_scored"]}
        return Requirements(revision, tuple(listed["server"]), tuple(listed["client"]), reasons)

    def server(self, url: str, requirements: Requirements) -> dict[str, list[Check]]:
        """Ask the server at `url` everything, one scenario after the other."""
        results = self._run("server", "--url", url, "--requirements", requirements.revision)
        return {scenario: results[scenario.replace("/", "-")] for scenario in requirements.scenarios("server")}

    def client(self, command: str, scenario: str, revision: str) -> list[Check]:
        """Start the client, to which the suite's own server is named as its last argument."""
        # One at a time: the suite itself would start all clients at once, and none would connect in time.
        results = self._run(
            "client", "--command", command, "--scenario", scenario, "--spec-version", revision, "--force"
        )
        return next(iter(results.values()))

    @property
    def _package(self) -> Path:
        return self.folder / "node_modules" / "@modelcontextprotocol" / "conformance"

    def _run(self, *arguments: str) -> dict[str, list[Check]]:
        """Return the checks of each scenario that ran."""
        with tempfile.TemporaryDirectory() as folder:
            limit = ("--timeout", str(_SCENARIO_MILLISECONDS), "--output-dir", folder)
            command = [_node(self.folder), str(self._package / "dist" / "index.js"), *arguments, *limit]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False)
            written = {file: json.loads(file.read_text()) for file in Path(folder).rglob("checks.json")}
        if not written:
            raise Failure(f"the suite left no result for {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return {
            _NAMED_FOLDER.sub(r"\1", file.parent.name): [
                Check(each["id"], each["status"], each.get("errorMessage") or each["description"]) for each in checks
            ]
            for file, checks in written.items()
        }


def install(cache: Path) -> Suite:
    """Return the suite, from the cache where it is there already."""
    digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _FILES)).hexdigest()[:12]
    folder = cache / "conformance" / digest
    ready = folder / ".ready"
    if not ready.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise Failure("the conformance suite needs npm, which is not here: apt-get install npm, or install Node.js")
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copy(_HERE / name, folder / name)
        with step("Installing the conformance suite", expected="15 seconds"):
            done = subprocess.run(
                [npm, "ci", "--no-update-notifier"], cwd=folder, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise Failure(f"npm could not install the conformance suite:\n{done.stderr}")
        ready.touch()
    return Suite(folder)


def _node(folder: Path) -> str:
    """Return the Node.js that is pinned beside the suite, or where there is none for this machine, its own."""
    kind = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    pinned = folder / "node_modules" / f"node-linux-{kind}" / "bin" / "node"
    return str(pinned) if os.access(pinned, os.X_OK) else "node"
