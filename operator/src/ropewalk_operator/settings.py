"""The environment -> frozen Settings, read once at start. Messages name the variable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

PREFIX = "ROPEWALK_"
OF_POD = {"identity": "POD_NAME", "pod_uid": "POD_UID"}


class InvalidSettings(Exception):
    """The environment cannot be used; the message names each variable."""


class Settings(BaseModel):
    """What the operator can be told. Each field is the variable ROPEWALK_<FIELD>, but for those of OF_POD."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent_image: Annotated[str, Field(min_length=1)]
    stdio_image: Annotated[str, Field(min_length=1)]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    watch_namespaces: tuple[str, ...] = ()
    scrapers: Mapping[str, Any] = {}
    fixed_user: bool = True
    workers: Annotated[int, Field(ge=1, le=256)] = 8
    resync_seconds: Annotated[float, Field(ge=1)] = 600
    api_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 15
    watch_silence_seconds: Annotated[float, Field(gt=0)] = 70
    host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside the pod
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    lease_namespace: Annotated[str, Field(min_length=1)] = "default"
    lease_name: Annotated[str, Field(min_length=1)] = "ropewalk-operator"
    identity: str = "ropewalk-operator"
    pod_uid: str = ""

    @field_validator("watch_namespaces", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("scrapers", mode="before")
    @classmethod
    def _peer(cls, value: Any) -> Any:
        """A peer of a NetworkPolicy, as JSON."""
        if not isinstance(value, str):
            return value
        try:
            peer = json.loads(value)
        except ValueError:
            peer = None
        selectors = {"namespaceSelector", "podSelector"}
        if not isinstance(peer, dict) or peer.keys() - selectors or not all(isinstance(v, dict) for v in peer.values()):
            raise ValueError('use a JSON object such as {"podSelector": {"matchLabels": {"app": "prometheus"}}}')
        return peer


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from `environ`; an empty variable counts as unset. Raises InvalidSettings."""
    values = {
        key.removeprefix(PREFIX).lower(): value for key, value in environ.items() if key.startswith(PREFIX) and value
    }
    for field, variable in OF_POD.items():
        values.pop(field, None)
        if value := environ.get(variable):
            values[field] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InvalidSettings("; ".join(_sentence(problem) for problem in error.errors(include_url=False))) from None


def _sentence(problem: Any) -> str:
    variable = PREFIX + str(problem["loc"][0]).upper()
    if problem["type"] == "missing":
        return f"{variable} is not set; it is required"
    return f"{variable} is {problem['input']!r}: {problem['msg'][:1].lower() + problem['msg'][1:]}"
