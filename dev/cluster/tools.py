"""The programs of the cluster, built from pinned sources: each has its go.mod in dev/tools, with checksums in go.sum.

A program is built once and kept in the cache until its go.mod, go.sum or flags change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster import layout as where
from cluster import machine
from cluster.console import Failure, step
from cluster.layout import Layout

OPENAPI = f"kubernetes-{where.KUBERNETES_VERSION}-openapi.json"
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Tool:
    """A go.mod of dev/tools and the binaries that come of it, as {name: package}."""

    folder: str
    binaries: dict[str, str]
    expected: str
    ldflags: str = ""

    @property
    def source(self) -> Path:
        """The folder with go.mod and go.sum."""
        return where.REPOSITORY / "dev" / "tools" / self.folder

    def fingerprint(self) -> str:
        """What the binaries are made of; when it changes they are built again."""
        parts = [(self.source / name).read_bytes() for name in ("go.mod", "go.sum")]
        return hashlib.sha256(b"\0".join([*parts, repr((self.binaries, self.ldflags)).encode()])).hexdigest()


TOOLS = (
    Tool("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, "half a minute"),
    Tool(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kubectl",
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        },
        "5 minutes",
        f"-X {_VERSION}.gitVersion={where.KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=34"
        f" -X {_VERSION}.gitTreeState=clean",
    ),
    Tool(
        "helm",
        {
            "helm": "helm.sh/helm/v3/cmd/helm",
            # It is made of Helm 3, so beside that it costs seconds.
            "helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
        },
        "a minute",
    ),
    Tool("coredns", {"coredns": "github.com/coredns/coredns"}, "a minute and a half"),
)

CHART_TOOLS = (
    Tool("helm4", {"helm4": "helm.sh/helm/v4/cmd/helm"}, "half a minute"),
    Tool(
        "chart-lint",
        {
            "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
            "kube-score": "github.com/zegl/kube-score/cmd/kube-score",
        },
        "half a minute",
    ),
)
"""For `make test-chart`, which nothing else needs."""

SIMULATION = (Tool("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, "2 minutes"),)
"""Nodes and pods for bench/scale.py, which nothing else needs."""

METRICS = (Tool("metrics-server", {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"}, "2 minutes"),)
"""What pods use, for bench/autoscaling.py, which nothing else needs."""

# What is taken from Debian's packages for tests and `make observe`, by its path there; binaries go to the cache's
# bin, other files to its share.
DEBIAN = {
    "prometheus": ("bin/prometheus", "bin/promtool"),
    "prometheus-alertmanager": (
        "bin/prometheus-alertmanager",
        "share/prometheus/alertmanager/default.tmpl",
        "share/prometheus/alertmanager/email.tmpl",
    ),
}


def build(layout: Layout, tools: Sequence[Tool] = TOOLS) -> None:
    """Build what is not in the cache. Raises Failure with the compiler's words."""
    layout.bin.mkdir(parents=True, exist_ok=True)
    stale = [tool for tool in tools if not _fresh(layout, tool)]
    if not stale:
        return
    go = machine.go(layout)
    for number, tool in enumerate(stale, 1):
        names = ", ".join(tool.binaries)
        with step(f"Building {names} ({number} of {len(stale)}; kept in {layout.bin})", expected=tool.expected):
            _build(layout, go, tool)


def unpack_openapi(layout: Layout) -> None:
    """Kubernetes' description of its API, for tests of the chart: a file of the sources that kubectl is made of."""
    if (layout.bin / OPENAPI).exists():
        return
    with step("Unpacking the description of Kubernetes' API"):
        done = subprocess.run(
            [machine.go(layout), "mod", "download", "-json", "k8s.io/kubernetes"],
            cwd=where.REPOSITORY / "dev" / "tools" / "kubernetes", capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Failure(f"go mod download k8s.io/kubernetes failed:\n{done.stderr[-1000:]}")
        part = layout.bin / f".{OPENAPI}.part"
        shutil.copyfile(Path(json.loads(done.stdout)["Dir"]) / "api" / "openapi-spec" / "swagger.json", part)
        part.replace(layout.bin / OPENAPI)


def unpack(layout: Layout, *packages: str) -> None:
    """Debian's binaries of some of the packages above, without the services that the packages start. Raises Failure."""
    for package, files in ((name, DEBIAN[name]) for name in packages):
        if all((layout.cache / name).exists() for name in files):
            continue
        with step(f"Fetching {package} (Debian's package, unpacked into the cache)"), TemporaryDirectory() as folder:
            # apt fetches as a user of its own, who has to be able to write here.
            Path(folder).chmod(0o777)
            for command in (
                f"apt-get -q download {package} || {{ apt-get -q update && apt-get -q download {package}; }}",
                f"dpkg-deb -x {package}_*.deb unpacked",
            ):
                done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise Failure(f"{command} failed (try `apt-get update`):\n{done.stderr[-1000:]}")
            for name in files:
                place = layout.cache / name
                place.parent.mkdir(parents=True, exist_ok=True)
                part = place.with_name(f".{place.name}.part")
                shutil.copy(Path(folder) / "unpacked" / "usr" / name, part)
                part.replace(place)


def _stamp(layout: Layout, tool: Tool) -> Path:
    return layout.bin / f".{tool.folder}.sha256"


def _fresh(layout: Layout, tool: Tool) -> bool:
    stamp = _stamp(layout, tool)
    built = all((layout.bin / name).exists() for name in tool.binaries)
    return built and stamp.exists() and stamp.read_text() == tool.fingerprint()


def _build(layout: Layout, go: Path, tool: Tool) -> None:
    # GOFLAGS of the machine's user must not change what is built; GOTOOLCHAIN=local never downloads another Go.
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    fresh = layout.bin / ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    # One call for all: the compiler then makes what they share only once.
    flags = ["-trimpath", "-ldflags", f"-s -w {tool.ldflags}", "-o", f"{fresh}/"]
    command: list[str | Path] = [go, "build", *flags, *tool.binaries.values()]
    done = subprocess.run(command, cwd=tool.source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"building {tool.folder} failed:\n{done.stderr[-3000:]}")
    for name, package in tool.binaries.items():
        made = fresh / name if (fresh / name).exists() else fresh / _default_name(package)
        made.replace(layout.bin / name)
    shutil.rmtree(fresh)
    _stamp(layout, tool).write_text(tool.fingerprint())


def _default_name(package: str) -> str:
    """The name that `go build` gives: the last part of the path that is no major version."""
    parts = package.split("/")
    return parts[-2] if parts[-1].startswith("v") and parts[-1][1:].isdigit() else parts[-1]
