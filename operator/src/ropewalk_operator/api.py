"""Resource bodies -> frozen Agent and MCPServer, or InvalidSpec.

Never talks to anything and never guesses: the schema of the CRD has filled in the defaults; what it could not refuse
is refused here, with every problem at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

GROUP = "ropewalk.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

RESERVED_PREFIX = "ropewalk.dev/"
RESERVED_LABELS = frozenset(f"app.kubernetes.io/{key}" for key in ("name", "instance", "component", "managed-by"))

# The agent's own settings: another value would point the pod at a file or a port that is not there.
RESERVED_ENV = frozenset({"ROPEWALK_CONFIG_FILE", "ROPEWALK_HOST", "ROPEWALK_PORT", "ROPEWALK_DRAIN_SECONDS"})

Provider = Literal[
    "openai", "openai-compatible", "anthropic", "bedrock", "gemini", "mistral", "ollama", "litellm", "llamacpp"
]
NEED_ADDRESS = frozenset({"openai-compatible", "ollama", "llamacpp"})
NEED_KEY = frozenset({"openai", "anthropic", "gemini", "mistral"})

OUTPUT_SCHEMA_BYTES = 64 * 1024
"""What an agent takes; the schema of the CRD cannot count the bytes of a free object."""


class InvalidSpec(Exception):
    """The resource cannot be used; the message names each field, the value seen and what is allowed."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class KeyRef(_Model):
    """A key of a ConfigMap or Secret in the namespace of the resource."""

    name: str
    key: str


class SystemPromptFrom(_Model):
    """Where else the system prompt is."""

    config_map_key_ref: KeyRef


class FallbackModel(_Model):
    """A language model; the union rules of the providers are checked here once more."""

    provider: Provider
    id: str
    base_url: Annotated[str | None, Field(alias="baseURL")] = None
    region: str | None = None
    api_key_secret_ref: KeyRef | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_fit_the_provider(self) -> Self:
        if self.provider in NEED_ADDRESS and not self.base_url:
            raise ValueError("baseURL is missing; set it to the server's address, such as http://server:8080/v1")
        if self.provider == "bedrock" and (self.base_url or self.api_key_secret_ref):
            raise ValueError("provider bedrock uses neither baseURL nor apiKeySecretRef; remove them")
        if self.provider != "bedrock" and self.region:
            raise ValueError(f"region is {self.region!r}; it is for provider bedrock only, remove it")
        if self.provider in NEED_KEY and not self.api_key_secret_ref:
            raise ValueError(f"apiKeySecretRef is missing; provider {self.provider} needs it")
        if self.base_url:
            _check_url("baseURL", self.base_url)
        return self


class ModelSpec(FallbackModel):
    """The language model, and those that are asked when it fails."""

    fallbacks: tuple[FallbackModel, ...] = ()


class ToolFilter(_Model):
    """Names of the tools that an agent sees of a server; `allow` None means all."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class ServerRef(_Model):
    """An MCPServer of the same namespace, as an Agent uses it."""

    name: str
    required: bool = True
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = ""
    tools: ToolFilter = ToolFilter()


class Limits(_Model):
    """What one request may use; times in seconds."""

    request_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 60
    tool_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 30
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    max_parallel_tools: Annotated[int, Field(ge=1, le=64)] = 10
    max_tokens_per_request: Annotated[int | None, Field(ge=1)] = None


class Queue(_Model):
    """Where requests wait."""

    max_length: Annotated[int, Field(ge=0, le=10000)] = 100


class FileStore(_Model):
    """The volume of the store `file`; `size` is a Kubernetes quantity."""

    size: Annotated[str, Field(coerce_numbers_to_str=True)] = "1Gi"


class RedisStore(_Model):
    """Where the address of the store `redis` is."""

    url_secret_ref: KeyRef


class Sessions(_Model):
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


class Name(_Model):
    """A reference by name only."""

    name: str


class Pod(_Model):
    """What the user adds to the pods. Resources and env entries are passed on as they are."""

    resources: dict[str, Any] = Field(default_factory=dict)
    env: tuple[dict[str, Any], ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    service_account_name: str | None = None
    image_pull_secrets: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _reserved_names_are_left_alone(self) -> Self:
        for field, keys in (("labels", self.labels), ("annotations", self.annotations)):
            if taken := sorted(key for key in keys if key.startswith(RESERVED_PREFIX) or key in RESERVED_LABELS):
                raise ValueError(f"{field} holds {', '.join(taken)}; Ropewalk sets these itself, use keys of your own")
        names = [str(entry.get("name")) for entry in self.env]
        if len(set(names)) != len(names):
            raise ValueError("env names a variable twice; keep one entry for each name")
        return self


class _Resource(_Model):
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    pod: Pod = Pod()


class Agent(_Resource):
    """An Agent as the renderers want it."""

    description: str = ""
    system_prompt: str | None = None
    system_prompt_from: SystemPromptFrom | None = None
    model: ModelSpec
    mcp_servers: tuple[ServerRef, ...] = ()
    local_tools: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    limits: Limits = Limits()
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    queue: Queue = Queue()
    sessions: Sessions = Sessions()
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    suspend: bool = False

    @field_validator("pod")
    @classmethod
    def _reserved_variables_are_left_alone(cls, pod: Pod) -> Pod:
        if taken := sorted(RESERVED_ENV.intersection(str(entry.get("name")) for entry in pod.env)):
            raise ValueError(f"env holds {', '.join(taken)}; Ropewalk sets these itself, remove them")
        return pod

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.system_prompt is None) == (self.system_prompt_from is None):
            raise ValueError("set exactly one of systemPrompt and systemPromptFrom")
        return self

    @model_validator(mode="after")
    def _replicas_share_their_sessions(self) -> Self:
        # Resources from before this rule are in clusters: the API server does not look at them again by itself.
        if self.replicas > 1 and self.sessions.store != "redis":
            raise ValueError(
                f"replicas is {self.replicas} with sessions.store {self.sessions.store}, which is one pod's own; "
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
    def wanted_replicas(self) -> int:
        """Pods that shall run: none while the agent is suspended."""
        return 0 if self.suspend else self.replicas


class Remote(_Model):
    """A server that runs elsewhere."""

    url: str


class MCPServer(_Resource):
    """An MCPServer as the renderers want it: an image to run, or a remote address."""

    image: str | None = None
    args: tuple[str, ...] = ()
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    path: Annotated[str, Field(pattern=r"^/")] = "/mcp"
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    remote: Remote | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.image is None) == (self.remote is None):
            raise ValueError("set exactly one of image and remote.url")
        if self.remote:
            _check_url("remote.url", self.remote.url)
        return self

    @property
    def wanted_replicas(self) -> int:
        """Pods that shall run: none for a remote server."""
        return 0 if self.remote else self.replicas


def agent(body: Mapping[str, Any]) -> Agent:
    """The Agent in `body`; raises InvalidSpec."""
    try:
        return Agent.model_validate(_flat(body))
    except ValidationError as error:
        raise InvalidSpec(_sentence(error)) from None


def mcp_server(body: Mapping[str, Any]) -> MCPServer:
    """The MCPServer in `body`; raises InvalidSpec."""
    try:
        return MCPServer.model_validate(_flat(body))
    except ValidationError as error:
        raise InvalidSpec(_sentence(error)) from None


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = body["metadata"]
    return {
        **(body.get("spec") or {}),
        "kind": body.get("kind", ""),
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 1),
    }


def _sentence(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(["spec", *(str(part) for part in problem["loc"])])
        text = problem["msg"].removeprefix("Value error, ")
        seen = problem["input"]
        # A value is shown where it is short: a whole object would bury what is wrong with it.
        shown = (
            f" is {seen!r}" if isinstance(seen, str | int | float | bool) and problem["type"] != "value_error" else ""
        )
        problems.append(f"{place}{shown}: {text[:1].lower() + text[1:]}")
    return "; ".join(problems)


def _check_url(field: str, url: str) -> None:
    parts = urlsplit(url)
    try:
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise ValueError(f"{field} is {url!r}; use http:// or https://, a host and an optional path")
