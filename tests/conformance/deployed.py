"""The everything-server over stdio behind the bridge in a pod: what the operator makes of an MCPServer with `stdio`.

It needs a cluster that Ropewalk is installed in, such as `make demo` leaves. The image is the math server's, which has
the mcp package; the program comes as a ConfigMap, so that no image is built for it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conformance.targets import SessionMode, Target, until_answers

from cluster.images import VERSION
from cluster.layout import IMAGE_PREFIX, Layout
from e2e_cluster import Workspace, kubectl, mcpserver

_NAMESPACE = "ropewalk-conformance"
_PACKAGE = Path(__file__).parent / "everything"
_FOLDER = "/everything"


@contextmanager
def bridged(mode: SessionMode) -> Iterator[Target]:
    """Deploy it, wait until it is Ready, and forward a local port to the pod: the suite wants a local address."""
    space = Workspace(_NAMESPACE)
    kubectl("create", "namespace", _NAMESPACE)
    try:
        files = [f"--from-file={file}" for file in sorted(_PACKAGE.glob("*.py"))]
        space.kubectl("create", "configmap", "everything", *files)
        space.apply(mcpserver("everything", **_spec(mode)))
        space.wait("mcpserver/everything")
        with _forwarded("service/everything-mcp") as target:
            yield target
    finally:
        kubectl("delete", "namespace", _NAMESPACE)


def _spec(mode: SessionMode) -> dict[str, Any]:
    command = ["/opt/ropewalk/bin/python", "-m", "tests.conformance.everything"]
    mount = {"name": "program", "mountPath": f"{_FOLDER}/tests/conformance/everything", "readOnly": True}
    return {
        "stdio": {"image": f"{IMAGE_PREFIX}/mcp-math:{VERSION}", "command": command, "sessionMode": mode},
        "pod": {
            "env": [{"name": "PYTHONPATH", "value": _FOLDER}],
            "volumes": [{"name": "program", "configMap": {"name": "everything"}}],
            "volumeMounts": [mount],
            # In perSession mode every client of the suite has a Python of its own until it has been idle for long.
            "resources": {"requests": {"memory": "128Mi"}, "limits": {"memory": "6Gi"}},
        },
    }


@contextmanager
def _forwarded(what: str) -> Iterator[Target]:
    here = Layout.default()
    command = [str(here.bin / "kubectl"), f"--kubeconfig={here.kubeconfig}", "--namespace", _NAMESPACE]
    command += ["port-forward", what, ":8000"]
    # What it says of each connection that a client drops is of no interest.
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:
        try:
            assert process.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert port is not None, f"kubectl does not forward to {what}"
            until_answers(f"http://127.0.0.1:{port[1]}/ready", process)
            yield Target(int(port[1]), process)
        finally:
            process.terminate()
