"""What a measurement takes from the local cluster, and gives back at its end, also where it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from bench.progress import say
from e2e_cluster import RELEASE, SYSTEM, Json, crds, delete_crds, helm, kubectl

_MADE_BY_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


@contextmanager
def crds_given_back() -> Iterator[None]:
    """Ropewalk's CRDs may be changed by anybody. In the end they are what they were, for whoever has brought them.

    Where there was none of a name, there is none in the end, and none of its resources.
    """
    before = crds()
    try:
        yield
    finally:
        say("Puts the CRDs back as they were")
        delete_crds(*sorted(crds().keys() - before.keys()))
        for body in before.values():
            kubectl("replace", "-f", "-", text=json.dumps(as_it_was(body)))


def as_it_was(body: Json) -> Json:
    """The object without what the API server notes in it."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in _MADE_BY_SERVER}
    return {key: value for key, value in body.items() if key != "status"} | {"metadata": metadata}


@contextmanager
def release_given_back() -> Iterator[None]:
    """Without the release of ropewalk-system, whose operator works in all namespaces; in the end it is there again.

    Its history is kept meanwhile: after a SIGKILL, `helm rollback` brings it back by hand.
    """
    place = ("--namespace", SYSTEM)
    deployed = f"owner=helm,name={RELEASE},status=deployed"
    revision = kubectl("get", "secrets", *place, "-l", deployed, "-o", "jsonpath={.items[*].metadata.labels.version}")
    if not revision:
        yield
        return
    say(
        f"Takes release {RELEASE} of {SYSTEM} away; by hand it comes back so: "
        f"helm rollback {RELEASE} {revision} --namespace {SYSTEM}"
    )
    helm("uninstall", RELEASE, *place, "--keep-history", "--wait")
    try:
        yield
    finally:
        say(f"Brings release {RELEASE} of {SYSTEM} back")
        helm("rollback", RELEASE, revision, *place, "--wait", "--timeout=3m")
