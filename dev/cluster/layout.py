"""Where everything of the local cluster lives, and the numbers that its parts agree on. No I/O."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

KUBERNETES_VERSION = "v1.34.4"
NODE_NAME = "ropewalk-local"
CONTEXT_NAME = "ropewalk-local"
# RFC 2544 sets 198.18.0.0/15 aside for tests of networks, so that it clashes with no real one.
NODE_ADDRESS = "198.19.255.1"
SERVICE_CIDR = "198.18.0.0/16"
API_SERVICE_ADDRESS = "198.18.0.1"
DNS_SERVICE_ADDRESS = "198.18.0.10"
POD_CIDR = "198.19.0.0/17"
BRIDGE = "ropewalk0"
CNI_NETWORK = "ropewalk"
RUNTIME_DIR = Path("/run/ropewalk")
CONTAINERD_SOCKET = RUNTIME_DIR / "containerd" / "containerd.sock"
IMAGE_PREFIX = "ropewalk.dev"


def _folder(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "ropewalk"


@dataclass(frozen=True)
class Layout:
    """The two folders of the local cluster: the cache outlives `cluster-down`, the state does not."""

    cache: Path
    state: Path

    @classmethod
    def default(cls) -> Layout:
        """The folders named by the XDG base directory specification."""
        return cls(_folder("XDG_CACHE_HOME", ".cache"), _folder("XDG_STATE_HOME", ".local/state") / "cluster")

    @property
    def bin(self) -> Path:
        """The built binaries."""
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        """Archives of built images, named by their content."""
        return self.cache / "images"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig: what `export KUBECONFIG=` takes."""
        return self.state / "kubeconfig"

    @property
    def observe(self) -> Path:
        """What `make observe` writes: configurations, logs and what Prometheus has stored."""
        return self.state / "observe"

    @property
    def logs(self) -> Path:
        """A log for each process."""
        return self.state / "log"
