"""An Agent as the renderers want it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ropewalk_operator.api.models import ModelSpec
from ropewalk_operator.api.values import KeyRef, Name, ToolFilter, Value
from ropewalk_operator.api.workload import Resource

OUTPUT_SCHEMA_BYTES = 64 * 1024
"""What an agent takes; the schema of the CRD cannot count the bytes of a free object."""


class SystemPromptFrom(Value):
    """Where else the system prompt is."""

    config_map_key_ref: KeyRef


class ServerRef(Value):
    """An MCPServer of the same namespace, as an Agent uses it."""

    name: str
    required: bool = True
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = ""
    tools: ToolFilter = ToolFilter()


class Limits(Value):
    """What one request may use; times in seconds."""

    request_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 60
    tool_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 30
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    max_parallel_tools: Annotated[int, Field(ge=1, le=64)] = 10
    max_tokens_per_request: Annotated[int | None, Field(ge=1)] = None


class Queue(Value):
    """Where requests wait."""

    max_length: Annotated[int, Field(ge=0, le=10000)] = 100


class FileStore(Value):
    """The volume of the store `file`; `size` is a Kubernetes quantity."""

    size: Annotated[str, Field(coerce_numbers_to_str=True)] = "1Gi"


class RedisStore(Value):
    """Where the address of the store `redis` is."""

    url_secret_ref: KeyRef


class Sessions(Value):
    """How conversations are kept."""

    store: Literal["memory", "file", "redis"] = "memory"
    ttl_seconds: Annotated[int, Field(ge=1)] = 3600
    max_sessions: Annotated[int, Field(ge=1)] = 1000
    window_size: Annotated[int, Field(ge=1)] = 20
    file: FileStore = FileStore()
    redis: RedisStore | None = None

    @model_validator(mode="after")
    def _redis_goes_with_its_store(self) -> Self:
        if (self.store == "redis") != (self.redis is not None):
            raise ValueError("redis.urlSecretRef goes with store redis; set both or neither")
        return self


class Agent(Resource):
    """An Agent with every default filled in."""

    # The agent's own settings: another value would point the pod at a file or a port that is not there.
    reserved_env = frozenset({"ROPEWALK_CONFIG_FILE", "ROPEWALK_HOST", "ROPEWALK_PORT", "ROPEWALK_DRAIN_SECONDS"})

    description: str = ""
    system_prompt: str | None = None
    system_prompt_from: SystemPromptFrom | None = None
    model: ModelSpec | None = None
    model_ref: Name | None = None
    mcp_servers: tuple[ServerRef, ...] = ()
    local_tools: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    limits: Limits = Limits()
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    queue: Queue = Queue()
    sessions: Sessions = Sessions()
    suspend: bool = False

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.system_prompt is None) == (self.system_prompt_from is None):
            raise ValueError("set exactly one of systemPrompt and systemPromptFrom")
        return self

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.model_ref is None):
            raise ValueError("set exactly one of modelRef and model")
        return self

    @model_validator(mode="after")
    def _replicas_share_their_sessions(self) -> Self:
        # Resources from before this rule are in clusters: the API server does not look at them again by itself.
        asked = f"replicas is {self.replicas}" if self.autoscaling is None else "autoscaling is set"
        if (self.replicas > 1 or self.autoscaling) and self.sessions.store != "redis":
            raise ValueError(
                f"{asked} with sessions.store {self.sessions.store}, which is one pod's own; "
                "set sessions.store to redis, or replicas to 1"
            )
        return self

    @field_validator("output_schema")
    @classmethod
    def _output_schema_is_one(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is None:
            return None
        if not {"type", "$ref"} & schema.keys():
            raise ValueError("it has neither a type nor a $ref; say what an answer is, such as type: object")
        size = len(json.dumps(schema, separators=(",", ":")).encode())
        if size > OUTPUT_SCHEMA_BYTES:
            raise ValueError(f"it has {size} bytes as JSON; use at most {OUTPUT_SCHEMA_BYTES}")
        return schema

    @property
    def is_autoscaled(self) -> bool:
        """Whether a HorizontalPodAutoscaler says how many pods run; while suspended the operator does: none."""
        return self.autoscaling is not None and not self.suspend

    @property
    def wanted_replicas(self) -> int:
        """Pods that shall run: none while the agent is suspended; with autoscaling at least so many."""
        if self.suspend:
            return 0
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas
