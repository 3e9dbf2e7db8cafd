"""A real fault for each alert of the chart, on the local cluster: what begins it, what ends it, what it shall raise.

Four releases, each with an operator that works in its own namespace alone: who breaks one of them leaves the others,
which tell of the rest, as they are.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import images
from cluster.layout import API_SERVICE_ADDRESS, REPOSITORY
from e2e_breakages import NO_SUCH_IMAGE
from e2e_cluster import (
    RELEASE,
    Json,
    Workspace,
    agent,
    crds,
    delete_crds,
    helm,
    image,
    kubectl,
    mcpserver,
    must_be_alone,
)
from e2e_crowd import MOST_ASKERS, Crowd
from waiting import until

AGENTS, STANDBY, LEASE, RIGHTS = (Workspace(f"ropewalk-alerts{name}") for name in ("", "-standby", "-lease", "-rights"))
"""One namespace a release: of broken agents, of a standby that is cut off, of an operator without its Lease, and of
one without rights."""
SPACES = (AGENTS, STANDBY, LEASE, RIGHTS)
_LOST = Workspace("ropewalk-alerts-lost")
"""A second namespace of the operators of STANDBY."""
OPERATOR = f"{RELEASE}-operator"
_EDITED = [f"edited-{number}" for number in range(5)]
_MATH_PORT = 8000
_SLOW_MILLISECONDS = 12_000


@dataclass(frozen=True)
class Fault:
    """`raises` holds labels, each set of which some alert shall have."""

    what: str
    raises: tuple[Mapping[str, str], ...]
    begin: Callable[[], object]
    end: Callable[[], object]


@contextmanager
def world() -> Iterator[list[list[Fault]]]:
    """Everything that is to be broken, while it is whole; the faults of one list come one after the other."""
    must_be_alone()
    with ExitStack() as stack:
        if not crds():
            # Helm refuses to install over those that kubectl has applied, so none of them stays.
            stack.callback(lambda: delete_crds(*crds()))
            kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        for space in (_LOST, *SPACES):
            stack.callback(kubectl, "delete", "namespace", space.name, "--ignore-not-found")
            kubectl("create", "namespace", space.name)
        for space in SPACES:
            _install(space)
        AGENTS.apply(*_programs(), *_resources())
        RIGHTS.apply(*(_edited(name, "Say yes.") for name in _EDITED))
        for deployment in ("demo-model", "slow-model", "failing-model", "gone-model", "tools"):
            AGENTS.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=90s")
        for name in ("agent/slow", "agent/failing", "agent/gone", "agent/crowded", "agent/unready", "agent/user"):
            AGENTS.wait(name)
        AGENTS.wait("mcpserver/broken")
        for name in _EDITED:
            RIGHTS.wait(f"agent/{name}", "Accepted")
        crowds = {
            "slow": Crowd(_url("slow"), askers=4, pause_seconds=1),
            "failing": Crowd(_url("failing"), askers=1, pause_seconds=5),
            "gone": Crowd(_url("gone"), askers=1, pause_seconds=10),
            "crowded": Crowd(_url("crowded"), "demo:slow=1", askers=1, pause_seconds=1),
        }
        for crowd in crowds.values():
            crowd.start()
            stack.callback(crowd.stop)
        yield _faults(crowds)


def _install(space: Workspace) -> None:
    """The chart as it is, for one namespace; once more, it puts back what was taken away."""
    own = [
        "crds.enabled=false",
        f"watchNamespaces={{{','.join([space.name, *([_LOST.name] if space is STANDBY else [])])}}}",
        f"operator.replicas={2 if space is STANDBY else 1}",
    ]
    helm("upgrade", "--install", RELEASE, str(REPOSITORY / "charts" / "ropewalk"), "--namespace", space.name, "--wait",
         "--timeout=3m", *(f"--set={each}" for each in (f"image.tag={images.tag()}", *own)))  # fmt: skip


def _url(name: str) -> str:
    return AGENTS.url(f"{name}-agent")


def _programs() -> list[Json]:
    """The models of the agents, each of which fails in its own way, and a server of somebody else's."""
    models = [
        _program(name, "demo-model", 8080) for name in ("demo-model", "slow-model", "failing-model", "gone-model")
    ]
    host = {"ROPEWALK_MCP_ALLOWED_HOSTS": f"tools.{AGENTS.name}"}
    return [each for pair in (*models, _program("tools", "mcp-math", _MATH_PORT, host)) for each in pair]


def _program(name: str, of_image: str, port: int, env: Mapping[str, str] | None = None) -> tuple[Json, Json]:
    """A Deployment of one pod, and its Service."""
    labels = {"app": name}
    container = {
        "name": "main",
        "image": image(of_image),
        # Without a share of the CPU it would starve beside what else the machine does.
        "resources": {"requests": {"cpu": "10m"}},
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"containers": [container], "securityContext": security, "automountServiceAccountToken": False}
    template = {"metadata": {"labels": labels}, "spec": pod}
    meta = {"name": name}
    return (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
         "spec": {"selector": {"matchLabels": labels}, "template": template}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta,
         "spec": {"selector": labels, "ports": [{"port": port}]}},
    )  # fmt: skip


def _resources() -> list[Json]:
    return [
        mcpserver("remote", remote={"url": f"http://tools.{AGENTS.name}:{_MATH_PORT}/mcp"}),
        mcpserver("broken"),
        agent("slow", model=_model("slow-model")),
        agent("failing", model=_model("failing-model")),
        agent("gone", model=_model("gone-model")),
        agent("crowded", concurrency=1, queue={"maxLength": 1}),
        agent("unready"),
        agent("user", {"name": "remote", "required": False}),
    ]


def _model(host: str) -> Json:
    return {"provider": "openai-compatible", "id": "ropewalk-demo", "baseURL": f"http://{host}:8080/v1"}


def _edited(name: str, prompt: str) -> Json:
    """An Agent without pods: there is enough to write for it."""
    return agent(name, systemPrompt=prompt, suspend=True)


def _faults(crowds: Mapping[str, Crowd]) -> list[list[Fault]]:
    return [
        [_slow()],
        [_model_away(crowds["failing"])],
        [_model_away_for_long(crowds["gone"])],
        [_crowded(crowds["crowded"])],
        [_bad_image("agent", "unready", "RopewalkAgentNotReady", "critical")],
        [_bad_image("mcpserver", "broken", "RopewalkMCPServerNotReady", "warning")],
        [_server_away()],
        [_lease_forbidden(), _operator_away(), _operator_cut_off()],
        [_standby_cut_off()],
        [_namespace_forbidden()],
        [_writes_forbidden()],
    ]


def _of_agent(alert: str, name: str, severity: str, **more: str) -> dict[str, str]:
    return {"alertname": alert, "namespace": AGENTS.name, "agent": name, "severity": severity, **more}


def _of_operator(alert: str, space: Workspace) -> dict[str, str]:
    return {"alertname": alert, "namespace": space.name, "operator": OPERATOR, "severity": "critical"}


def _scale(space: Workspace, deployment: str, replicas: int) -> None:
    space.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}")


def _slow() -> Fault:
    def delay(milliseconds: int) -> None:
        AGENTS.kubectl("set", "env", "deployment/slow-model", f"ROPEWALK_DEMO_DELAY_MILLISECONDS={milliseconds}")
        AGENTS.kubectl("rollout", "status", "deployment/slow-model", "--timeout=90s")

    return Fault(
        f"its model takes {_SLOW_MILLISECONDS / 1000:g} s for its first token",
        (_of_agent("RopewalkAgentSlow", "slow", "warning"),),
        lambda: delay(_SLOW_MILLISECONDS),
        lambda: delay(0),
    )


def _model_away(crowd: Crowd) -> Fault:
    def back() -> None:
        _scale(AGENTS, "failing-model", 1)
        crowd.become(4, 0.4)

    burn = "RopewalkErrorBudgetBurn"
    return Fault(
        "its model's Deployment is scaled to 0; when it is back, it is asked more often than before",
        (
            _of_agent("RopewalkModelErrors", "failing", "critical"),
            _of_agent(burn, "failing", "critical", window="1h"),
            _of_agent(burn, "failing", "critical", window="6h"),
        ),
        lambda: _scale(AGENTS, "failing-model", 0),
        back,
    )


def _model_away_for_long(crowd: Crowd) -> Fault:
    def back() -> None:
        _scale(AGENTS, "gone-model", 1)
        # An hour of failures shall soon be less than one of 33 requests.
        crowd.become(4, 0.1)

    return Fault(
        "its model's Deployment is scaled to 0 for more than an hour",
        (_of_agent("RopewalkErrorBudgetBurn", "gone", "warning", window="1d"),),
        lambda: _scale(AGENTS, "gone-model", 0),
        back,
    )


def _crowded(crowd: Crowd) -> Fault:
    return Fault(
        f"{MOST_ASKERS} people instead of one ask an agent that answers one question a second and lets one more wait",
        (_of_agent("RopewalkQueueFull", "crowded", "warning"),),
        lambda: crowd.become(MOST_ASKERS, 1),
        lambda: crowd.become(1, 1),
    )


def _bad_image(kind: str, name: str, alert: str, severity: str) -> Fault:
    before = AGENTS.get(f"{kind}/{name}")["spec"]
    broken = {"pod": {"image": NO_SUCH_IMAGE}} if kind == "agent" else {"image": NO_SUCH_IMAGE}
    mended = {key: before.get(key) for key in broken}
    return Fault(
        "an edit names an image that does not exist; the old pod goes on",
        ({"alertname": alert, "namespace": AGENTS.name, "name": name, "severity": severity},),
        lambda: AGENTS.patch(f"{kind}/{name}", broken),
        lambda: AGENTS.patch(f"{kind}/{name}", mended),
    )


def _server_away() -> Fault:
    labels = {"namespace": AGENTS.name, "server": "remote", "severity": "warning"}
    return Fault(
        "the Deployment behind a remote MCPServer is scaled to 0",
        ({"alertname": "RopewalkMCPServerDown", **labels},),
        lambda: _scale(AGENTS, "tools", 0),
        lambda: _scale(AGENTS, "tools", 1),
    )


def _lease_forbidden() -> Fault:
    return Fault(
        "the operator's rights on its Lease are deleted; `helm upgrade` puts them back",
        (_of_operator("RopewalkNoLeader", LEASE),),
        lambda: LEASE.kubectl("delete", "rolebinding", f"{OPERATOR}-lease"),
        lambda: _install(LEASE),
    )


def _operator_away() -> Fault:
    return Fault(
        "the operator's Deployment is scaled to 0",
        (_of_operator("RopewalkNoLeader", LEASE),),
        lambda: _scale(LEASE, OPERATOR, 0),
        lambda: _scale(LEASE, OPERATOR, 1),
    )


def _operator_cut_off() -> Fault:
    cut: list[Json] = []

    def begin() -> None:
        cut.append(_operator_pods(LEASE)[0])
        _cut("-A", cut[0])

    return Fault(
        "what the only operator's pod sends to the API server is dropped",
        (
            _of_operator("RopewalkNoLeader", LEASE),
            {"alertname": "RopewalkWatchStale", "namespace": LEASE.name, "severity": "warning"},
        ),
        begin,
        lambda: _cut("-D", cut[0]),
    )


def _standby_cut_off() -> Fault:
    standby = until(_standby, "one of two operators stands by")
    pod = {"namespace": STANDBY.name, "pod": standby["metadata"]["name"], "severity": "warning"}
    return Fault(
        "what the pod of a standby sends to the API server is dropped",
        ({"alertname": "RopewalkWatchStale", **pod},),
        lambda: _cut("-A", standby),
        lambda: _cut("-D", standby),
    )


def _namespace_forbidden() -> Fault:
    labels = {"namespace": STANDBY.name, "operator": OPERATOR, "severity": "warning"}
    return Fault(
        "the operator's RoleBinding in one of its two namespaces is deleted; `helm upgrade` puts it back",
        ({"alertname": "RopewalkNamespaceLeftOut", **labels},),
        lambda: _LOST.kubectl("delete", "rolebinding", OPERATOR),
        lambda: _install(STANDBY),
    )


def _operator_pods(space: Workspace) -> list[Json]:
    return until(lambda: space.pods("app.kubernetes.io/name=ropewalk-operator"), f"{space.name} has an operator's pod")


def _standby() -> Json | None:
    pods = _operator_pods(STANDBY)
    holder = STANDBY.get(f"lease/{OPERATOR}")["spec"].get("holderIdentity", "")
    others = [pod for pod in pods if not holder.startswith(pod["metadata"]["name"])]
    return others[0] if holder and len(pods) == 2 and len(others) == 1 else None


def _cut(how: str, pod: Json) -> None:
    """Add (-A) or delete (-D) a rule in the pod's own network that drops what it sends to the API server.

    It stays where the pod's containers are started anew: all of them share the network of the pod.
    """
    process = until(lambda: _process_of(pod), f"{pod['metadata']['name']} has a process")
    rule = ["OUTPUT", "-d", API_SERVICE_ADDRESS, "-j", "DROP"]
    subprocess.run(["nsenter", f"--net=/proc/{process}/ns/net", "iptables", how, *rule], check=True)


def _process_of(pod: Json) -> str | None:
    """The id of one of the pod's processes on this machine, which is the node."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if pod["metadata"]["uid"] in (process / "cgroup").read_text():
                return process.name
        except OSError:
            continue
    return None


def _writes_forbidden() -> Fault:
    def begin() -> None:
        rules = [
            {**rule, "verbs": [verb for verb in rule["verbs"] if verb in ("get", "list", "watch")]}
            for rule in RIGHTS.get(f"role/{OPERATOR}")["rules"]
        ]
        reading = [rule for rule in rules if rule["verbs"]]
        RIGHTS.kubectl("patch", f"role/{OPERATOR}", "--type=merge", "-p", json.dumps({"rules": reading}))
        RIGHTS.apply(*(_edited(name, "Say no.") for name in _EDITED))

    return Fault(
        f"the operator may write no more, and {len(_EDITED)} Agents are edited; `helm upgrade` puts the rights back",
        (_of_operator("RopewalkOperatorNotReconciling", RIGHTS),),
        begin,
        lambda: _install(RIGHTS),
    )
