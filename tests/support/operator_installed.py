"""The operator of a release, as its Deployment would run it: with its account's rights and its environment."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from apiserver import ApiServer
from operator_process import OperatorProcess


def installed(server: ApiServer, home: str, log: Path, **environment: str) -> OperatorProcess:
    """The process for the release `ropewalk` in the namespace `home`; not started yet."""
    deployment = json.loads(server.kubectl("get", "deployment", "ropewalk-operator", "-n", home, "-o", "json"))
    of_pod = {
        "metadata.name": "ropewalk-operator-0", "metadata.namespace": home, "metadata.uid": str(uuid.uuid4()),
    }  # fmt: skip
    of_chart = {
        each["name"]: each.get("value")
        or of_pod.get(each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"), "")
        for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] != "ROPEWALK_PORT"
    }
    return OperatorProcess(server.kubeconfig_of(home, "ropewalk-operator"), log, **of_chart, **environment)
