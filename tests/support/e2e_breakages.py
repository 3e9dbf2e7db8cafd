"""Fifteen ways to break an Agent, what it shall say of each, and what takes the cause away again."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e_cluster import Json, Workspace, agent, image, kubectl, mcpserver

Step = Callable[[Workspace], object]

FINALIZER = "example.com/hold"
NODE_LABEL = "ropewalk.dev/truth"
TOO_LONG = "a" * 51
NO_SUCH_IMAGE = "ropewalk.dev/no-such-image:1"
_PYTHON = "/opt/ropewalk/bin/python"
_ROLLOUT_SECONDS = 120
_KEY = "sk-right"
_REDIS = ["--protected-mode", "no", "--save", "", "--dir", "/tmp"]


@dataclass(frozen=True)
class Breakage:
    """One way, for the Agent of this name."""

    name: str
    what: str
    """The cause, as a person would say it."""
    condition: str
    """The condition that carries the reason first; Ready repeats it."""
    reason: str
    words: tuple[str, ...]
    """What the message holds: the subject, what was seen, the next step."""
    mend: Step
    """Takes the cause away."""
    agent: Json
    before: tuple[Json, ...] = ()
    """What is there before the Agent."""
    breaks: Step | None = None
    """What breaks an Agent that is Ready; None: it is broken from the beginning."""
    within_seconds: float = 30.0
    """So long after its cause it shows at the latest."""


def _edit(name: str, **spec: object) -> Step:
    return lambda space: space.patch(f"agent/{name}", dict(spec))


def _apply(*manifests: Json) -> Step:
    return lambda space: space.apply(*manifests)


def _secret(name: str, key: str, value: str) -> Json:
    data = {key: base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def _quota(limit: str) -> Json:
    spec = {"hard": {"limits.memory": limit}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "memory"}, "spec": spec}


def _model(secret: str, host: str = "demo-model") -> Json:
    return {
        "provider": "openai-compatible",
        "id": "ropewalk-demo",
        "baseURL": f"http://{host}:8080/v1",
        "apiKeySecretRef": {"name": secret, "key": "api-key"},
    }


def _service(name: str, port: int) -> Json:
    spec = {"selector": {"app": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _spoilt(name: str, what: str, reason: str, words: tuple[str, ...], *before: Json, **spec: object) -> Breakage:
    """An Agent that cannot run with this in its spec, and can without it."""
    mend = _edit(name, **dict.fromkeys(spec))
    return Breakage(name, what, "Available", reason, words, mend, agent(name, **spec), before)


def _server(name: str, port: int, **container: object) -> tuple[Json, Json]:
    """A Deployment of one pod, and its Service."""
    labels = {"app": name}
    main = {
        "name": "main",
        "resources": {"limits": {"memory": "128Mi"}},
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **container,
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
    }
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec},
        _service(name, port),
    )


def _strict_model() -> tuple[Json, Json]:
    program = (Path(__file__).parent / "e2e_strict_model.py").read_text()
    return _server("strict-model", 8080, image=image("mcp-math"), command=[_PYTHON, "-c", program], args=[_KEY])


def _hold(space: Workspace) -> None:
    finalizers = {"metadata": {"finalizers": [FINALIZER]}}
    space.kubectl("patch", "agent/held", "--type=merge", "-p", json.dumps(finalizers))
    space.kubectl("delete", "agent/held", "--wait=false")


def let_go(space: Workspace) -> None:
    """Take the finalizer from the Agent that it holds, if that is still there."""
    for name in space.kubectl("get", "agents", "-o", "name").split():
        if name.endswith("/held"):
            space.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def label_nodes(value: str) -> None:
    """Give every node the label that the Agent without a home asks for; "" takes it away."""
    kubectl("label", "nodes", "--all", "--overwrite", f"{NODE_LABEL}={value}" if value else f"{NODE_LABEL}-")


def breakages() -> list[Breakage]:
    """All but the name that is too long, which the API server does not take."""
    large = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "64Gi"}}
    small = {"requests": {"cpu": "50m", "memory": "40Mi"}, "limits": {"memory": "40Mi"}}
    unconfined = {"container.apparmor.security.beta.kubernetes.io/agent": "unconfined"}
    redis = {"store": "redis", "redis": {"urlSecretRef": {"name": "redis-address", "key": "url"}}}
    return [
        Breakage(
            "bad-reference",
            "it names an MCPServer that does not exist",
            "Accepted",
            "McpServerNotFound",
            ('the MCPServer "nobody"', "not found in this namespace", "create it"),
            _apply(mcpserver("nobody")),
            agent("bad-reference", "nobody"),
        ),
        Breakage(
            "missing-secret",
            "the Secret of its model's key does not exist",
            "Available",
            "SecretNotFound",
            ('secret "nowhere" not found', "create the Secret"),
            _apply(_secret("nowhere", "api-key", "any")),
            agent("missing-secret", model=_model("nowhere")),
        ),
        Breakage(
            "bad-key",
            "its model's provider refuses the key",
            "Available",
            "ModelKeyRefused",
            ("the model ropewalk-demo", "refused the key (status 401)", "put a valid key into the Secret"),
            _apply(_secret("key", "api-key", _KEY)),
            agent("bad-key", model=_model("key", "strict-model")),
            before=(_secret("key", "api-key", "sk-wrong"), *_strict_model()),
        ),
        _spoilt(
            "bad-image",
            "its image does not exist",
            "ImagePullFailed",
            (f"the image {NO_SUCH_IMAGE} cannot be pulled", "no such host", "check its name and tag"),
            pod={"image": NO_SUCH_IMAGE},
        ),
        _spoilt(
            "crash",
            "its container ends at once",
            "CrashLoop",
            ("exit code 1", "its last words: the agent cannot start: localTools names 'no_such_tool'", "kubectl logs"),
            localTools=["no_such_tool"],
        ),
        _spoilt(
            "out-of-memory",
            "its memory limit is too small",
            "OutOfMemory",
            ("more memory than its limit of 40Mi", "raise spec.pod.resources.limits.memory"),
            pod={"resources": small},
        ),
        Breakage(
            "unschedulable",
            "no node is as it asks",
            "Available",
            "Unschedulable",
            ("no node takes the pod", "didn't match Pod's node affinity/selector", "or change spec.pod"),
            lambda _: label_nodes("yes"),
            agent("unschedulable", pod={"nodeSelector": {NODE_LABEL: "yes"}}),
        ),
        _spoilt(
            "quota",
            "the namespace's quota is used up",
            "QuotaExceeded",
            ("exceeded quota: memory", "limits.memory=64Gi", "raise the ResourceQuota"),
            _quota("32Gi"),
            # Mended by the edit: after a quota was raised, Kubernetes may try again only in a quarter of an hour.
            pod={"resources": large},
        ),
        _spoilt(
            "pod-security",
            "the namespace's Pod Security Standard refuses its pods",
            "PodSecurityRefused",
            ('violates PodSecurity "restricted:latest"', "AppArmor", "remove from spec.pod what is refused"),
            pod={"annotations": unconfined},
        ),
        Breakage(
            "mcp-down",
            "a required MCPServer has no pods",
            "ToolsReady",
            "McpServerNotReady",
            ('mcp server "idle"', "spec.replicas is 0", "set it to 1 or more"),
            lambda space: space.kubectl("scale", "mcpserver/idle", "--replicas=1"),
            agent("mcp-down", "idle"),
            before=(mcpserver("idle", image=image("mcp-math"), replicas=0),),
        ),
        Breakage(
            "unready",
            "its pod runs and says that it is not ready: its Redis is not there",
            "Available",
            "NotReady",
            ("not ready: the session store cannot be used", "no-redis", "becomes ready by itself"),
            _apply(*_server("no-redis", 6379, image=image("redis"), args=_REDIS)),
            agent("unready", sessions=redis),
            before=(_secret("redis-address", "url", "redis://no-redis:6379/0"),),
        ),
        Breakage(
            "stuck-rollout",
            "the pods of an edit run, and never answer as an agent does",
            "Available",
            "RolloutFailed",
            ("0 of 1 pods", "no progress is made", "check its image", "1 old pod goes on answering"),
            _edit("stuck-rollout", pod=None),
            agent("stuck-rollout"),
            breaks=_edit("stuck-rollout", pod={"image": image("demo-model")}),
            within_seconds=_ROLLOUT_SECONDS + 30,
        ),
        Breakage(
            "conflict",
            "a Service of somebody else has the name of its own",
            "Accepted",
            "ChildNameTaken",
            ("Service conflict-agent exists", "belongs to something else", "give this Agent another name"),
            lambda space: space.kubectl("delete", "service/conflict-agent"),
            agent("conflict"),
            before=(_service("conflict-agent", 80),),
        ),
        Breakage(
            "held",
            "it was deleted, and somebody's finalizer keeps it",
            "Ready",
            "DeletionBlocked",
            (f'metadata.finalizers "{FINALIZER}"', "kubectl patch agent held"),
            let_go,
            agent("held"),
            breaks=_hold,
        ),
    ]


def break_all(space: Workspace, ways: list[Breakage]) -> dict[str, float]:
    """Make everything that the Agents need and lack; return when those were broken that were Ready before.

    By name, as time.monotonic() tells it; the others are broken from when they are there.
    """
    space.apply(*(manifest for way in ways for manifest in way.before))
    space.kubectl("rollout", "status", "deployment/strict-model", "--timeout=90s")
    later = [way for way in ways if way.breaks]
    space.apply(*(way.agent for way in later))
    for way in later:
        space.wait(f"agent/{way.name}")
    began = {}
    for way in later:
        began[way.name] = time.monotonic()
        if way.breaks:
            way.breaks(space)
    space.apply(*(way.agent for way in ways if not way.breaks))
    return began
