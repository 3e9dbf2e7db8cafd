"""What Agents and MCPServers have in common: their pods, how many there are, and with whom they may speak.

What Kubernetes itself will judge is passed on as it is: its refusal comes back as a condition.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ropewalk_operator.api.values import Name, Value

GROUP = "ropewalk.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

RESERVED_PREFIX = f"{GROUP}/"
RESERVED_LABELS = frozenset(f"app.kubernetes.io/{key}" for key in ("name", "instance", "component", "managed-by"))

VOLUME_KINDS = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
"""What the restricted Pod Security Standard allows
(https://kubernetes.io/docs/concepts/security/pod-security-standards/).
"""
RESERVED_VOLUMES = frozenset({"bridge", "config", "model-key", "redis-url", "sessions", "tmp"})
RESERVED_VOLUME_PREFIXES = ("fallback-", "mcp-")
RESERVED_PATHS = ("/etc/ropewalk", "/ropewalk", "/var/lib/ropewalk")
"""Ropewalk's own files: nothing may be mounted at or below these, nor at /tmp."""


class EnvFrom(Value):
    """All keys of a ConfigMap or Secret as variables, as Kubernetes takes it."""

    prefix: str | None = None
    config_map_ref: dict[str, Any] | None = None
    secret_ref: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError("set exactly one of configMapRef and secretRef")
        return self


class Pod(Value):
    """What the user adds to the pods. Most of it is passed on as it is."""

    image: str | None = None
    """Of an Agent: instead of the operator's image."""
    resources: dict[str, Any] = Field(default_factory=dict)
    env: tuple[dict[str, Any], ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = Field(default_factory=dict)
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    image_pull_secrets: tuple[Name, ...] = ()
    service_account_name: str | None = None
    priority_class_name: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _reserved_names_are_left_alone(self) -> Self:
        for field, keys in (("labels", self.labels), ("annotations", self.annotations)):
            if taken := sorted(key for key in keys if key.startswith(RESERVED_PREFIX) or key in RESERVED_LABELS):
                raise ValueError(f"{field} holds {', '.join(taken)}; Ropewalk sets these itself, use keys of your own")
        names = [str(entry.get("name")) for entry in self.env]
        if len(set(names)) != len(names):
            raise ValueError("env names a variable twice; keep one entry for each name")
        return self

    @model_validator(mode="after")
    def _volumes_are_harmless(self) -> Self:
        for volume in self.volumes:
            name = str(volume.get("name"))
            if name in RESERVED_VOLUMES or name.startswith(RESERVED_VOLUME_PREFIXES):
                raise ValueError(f"volumes holds {name!r}, a name that Ropewalk uses itself; give it another one")
            kinds = sorted(set(volume) - {"name"})
            if len(kinds) != 1 or kinds[0] not in VOLUME_KINDS:
                raise ValueError(
                    f"the volume {name!r} is {' and '.join(kinds) or 'of no kind'}; "
                    f"use exactly one of {', '.join(sorted(VOLUME_KINDS))}"
                )
        known = {volume.get("name") for volume in self.volumes}
        for mount in self.volume_mounts:
            path = str(mount.get("mountPath"))
            if is_reserved_path(path):
                raise ValueError(f"volumeMounts holds {path!r}, where Ropewalk's own files are; use another path")
            if mount.get("name") not in known:
                raise ValueError(f"volumeMounts names the volume {mount.get('name')!r}; add it to volumes")
        return self


class Autoscaling(Value):
    """How many pods a HorizontalPodAutoscaler may run; targets in percent of what the pods request."""

    min_replicas: Annotated[int, Field(ge=1, le=100)] = 2
    max_replicas: Annotated[int, Field(ge=1, le=100)] = 10
    target_cpu_percent: Annotated[int, Field(ge=1, le=1000, alias="targetCPUPercent")] = 70
    target_memory_percent: Annotated[int, Field(ge=1, le=1000)] = 80
    target_queue_depth: Annotated[int | None, Field(ge=1, le=10000)] = None
    """Of an Agent: requests that shall wait in a pod on average."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"minReplicas is {self.min_replicas} and maxReplicas {self.max_replicas}; "
                "lower minReplicas, or raise maxReplicas"
            )
        return self


class NetworkRules(Value):
    """With whom the pods may speak; `extra_egress` holds rules as Kubernetes' NetworkPolicy takes them."""

    enabled: bool = True
    extra_egress: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _rules_have_a_policy(self) -> Self:
        if not self.enabled and self.extra_egress:
            raise ValueError("extraEgress has no effect while enabled is false; remove it, or set enabled to true")
        return self


class Resource(Value):
    """What every resource has."""

    reserved_env: ClassVar[frozenset[str]]
    """Variables of its pods that Ropewalk sets itself."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    pod: Pod = Pod()
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    autoscaling: Autoscaling | None = None
    network_policy: NetworkRules = NetworkRules()

    @field_validator("pod")
    @classmethod
    def _reserved_variables_are_left_alone(cls, pod: Pod) -> Pod:
        if taken := sorted(cls.reserved_env.intersection(str(entry.get("name")) for entry in pod.env)):
            raise ValueError(f"env holds {', '.join(taken)}; Ropewalk sets these itself, remove them")
        return pod

    @model_validator(mode="after")
    def _one_master_of_replicas(self) -> Self:
        if self.autoscaling is None:
            return self
        if self.replicas != 1:
            raise ValueError(
                f"replicas is {self.replicas} beside autoscaling, which sets it; "
                "remove replicas, and set autoscaling.minReplicas and maxReplicas"
            )
        resources = self.pod.resources
        measured = {*(resources.get("requests") or {}), *(resources.get("limits") or {})}
        if resources and not {"cpu", "memory"} <= measured:
            raise ValueError(
                "autoscaling measures in percent of what is requested, and pod.resources.requests lacks "
                f"{' and '.join(sorted({'cpu', 'memory'} - measured))}; add it"
            )
        return self


def is_reserved_path(path: str) -> bool:
    """Whether Ropewalk mounts something of its own there."""
    plain = path.rstrip("/")
    return plain == "/tmp" or any(plain == own or plain.startswith(f"{own}/") for own in RESERVED_PATHS)  # noqa: S108
