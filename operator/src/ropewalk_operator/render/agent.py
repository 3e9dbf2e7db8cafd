"""An Agent -> its children: ConfigMap, ServiceAccount, Service, NetworkPolicy, what scales it, perhaps a claim, and the
Deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ropewalk_operator import names
from ropewalk_operator.api import Agent, KeyRef, MCPServer, ModelSpec
from ropewalk_operator.manifest import Manifest
from ropewalk_operator.render import pod
from ropewalk_operator.render.claim import Claimed, claim
from ropewalk_operator.render.config import agent_json
from ropewalk_operator.render.mcp_secrets import secrets_of
from ropewalk_operator.render.networkpolicy import agent_policy
from ropewalk_operator.render.scaling import scaling

DEFAULT_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
DRAIN_MARGIN_SECONDS = 5
GRACE_MARGIN_SECONDS = 15


def agent_children(
    agent: Agent,
    *,
    model: ModelSpec,
    system_prompt: str,
    servers: Mapping[str, MCPServer],
    image: str,
    pull_policy: str,
    claimed: Claimed | None = None,
    fixed_user: bool = True,
) -> list[Manifest]:
    """All children that the agent shall have. The Deployment comes last: its pods need the others.

    `model`: its own, or that of the Model that it names. `claimed`: what its PersistentVolumeClaim asks for already,
    where there is one. `fixed_user`: whether the pods name their user, or the cluster chooses it.
    """
    is_file = agent.sessions.store == "file"
    config = agent_json(agent, model, system_prompt, servers)
    return [
        config_map(agent, config),
        *([] if agent.pod.service_account_name else [pod.service_account(agent)]),
        pod.service(agent, names.AGENT_PORT),
        *([agent_policy(agent, model, servers)] if agent.network_policy.enabled else []),
        *scaling(agent),
        *([claim(agent, claimed)] if is_file else []),
        pod.deployment(
            agent,
            _pod_spec(agent, model, servers, image, pull_policy, fixed_user=fixed_user),
            config,
            # The files have one writer.
            pod.OLD_FIRST if is_file else pod.ONE_BY_ONE,
        ),
    ]


def config_map(agent: Agent, config: str) -> Manifest:
    """The agent's settings file."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": pod.metadata(agent),
        "data": {names.CONFIG_KEY: config},
    }


def _pod_spec(
    agent: Agent, model: ModelSpec, servers: Mapping[str, MCPServer], image: str, pull_policy: str, *, fixed_user: bool
) -> Manifest:
    volumes: list[Manifest] = [
        {
            "name": "config",
            "configMap": {"name": names.child(agent), "items": [_item(names.CONFIG_KEY, names.CONFIG_KEY)]},
        }
    ]
    # The file is mounted alone: with the whole directory mounted, nothing could be mounted below it.
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": names.CONFIG_FILE, "subPath": names.CONFIG_KEY, "readOnly": True}
    ]
    for name, secret, file in _secrets(agent, model):
        path = PurePosixPath(file)
        volumes.append({"name": name, "secret": {"secretName": secret.name, "items": [_item(secret.key, path.name)]}})
        mounts.append({"name": name, "mountPath": str(path.parent), "readOnly": True})
    for ref in agent.mcp_servers:
        if secrets := secrets_of(servers[ref.name]):
            # A whole directory for each server: files that are mounted alone would never see a rotated Secret.
            name = f"mcp-{ref.name}"
            sources = [
                {"secret": {"name": secret.name, "items": [_item(secret.key, PurePosixPath(file).name)]}}
                for secret, file in secrets
            ]
            volumes.append({"name": name, "projected": {"sources": sources}})
            mounts.append({"name": name, "mountPath": names.mcp_secrets_directory(ref.name), "readOnly": True})
    if agent.sessions.store == "file":
        volumes.append({"name": "sessions", "persistentVolumeClaim": {"claimName": names.child(agent)}})
        mounts.append({"name": "sessions", "mountPath": names.SESSIONS_DIRECTORY})
    container: Manifest = {
        "name": names.AGENT_CONTAINER,
        "image": agent.pod.image or image,
        "imagePullPolicy": pull_policy,
        "ports": [{"name": names.PORT_NAME, "containerPort": names.AGENT_PORT, "protocol": "TCP"}],
        "env": _environment(agent),
        "resources": agent.pod.resources or DEFAULT_RESOURCES,
        "startupProbe": _probe("/health", period=1, timeout=5, failures=120),
        "readinessProbe": _probe("/ready", period=2, timeout=2, failures=2),
        "livenessProbe": _probe("/health", period=10, timeout=5, failures=3),
        "volumeMounts": mounts,
    }
    return pod.pod_spec(
        agent,
        container,
        token=False,
        grace_seconds=agent.limits.request_timeout_seconds + GRACE_MARGIN_SECONDS,
        volumes=volumes,
        fixed_user=fixed_user,
    )


def _secrets(agent: Agent, model: ModelSpec) -> list[tuple[str, KeyRef, str]]:
    """Name of the volume, Secret and file of everything secret that the agent reads."""
    found: list[tuple[str, KeyRef | None, str]] = [
        ("model-key", model.api_key_secret_ref, names.MODEL_KEY_FILE),
        *(
            (f"fallback-{index}-key", fallback.api_key_secret_ref, names.fallback_key_file(index))
            for index, fallback in enumerate(model.fallbacks)
        ),
        ("redis-url", agent.sessions.redis.url_secret_ref if agent.sessions.redis else None, names.REDIS_URL_FILE),
    ]
    return [(name, ref, file) for name, ref, file in found if ref is not None]


def _environment(agent: Agent) -> list[dict[str, Any]]:
    own = {
        "ROPEWALK_CONFIG_FILE": names.CONFIG_FILE,
        "ROPEWALK_HOST": "0.0.0.0",  # noqa: S104 - a pod is reached from outside
        "ROPEWALK_PORT": str(names.AGENT_PORT),
        "ROPEWALK_LOG_LEVEL": "info",
        "ROPEWALK_DRAIN_SECONDS": str(agent.limits.request_timeout_seconds + DRAIN_MARGIN_SECONDS),
    }
    users = {entry["name"] for entry in agent.pod.env}
    return [*({"name": name, "value": value} for name, value in own.items() if name not in users), *agent.pod.env]


def _probe(path: str, *, period: int, timeout: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": names.PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _item(key: str, path: str) -> Manifest:
    return {"key": key, "path": path}
