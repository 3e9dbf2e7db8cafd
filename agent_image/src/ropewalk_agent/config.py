"""agent.json and the environment become frozen values, once. Reports every problem at once; never reads them again.

This module owns the format of agent.json: the operator renders it, unknown keys are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from ropewalk_agent.address import AddressError, listen_address

FORMAT_VERSION = 1
LOG_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """The settings cannot be used; `str()` lists every problem, one on a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the agent cannot start:\n" + "\n".join(f"- {problem}" for problem in problems))
        self.problems = problems


HEADERS_OF_THE_PROTOCOL = frozenset(
    {
        *("accept", "connection", "content-length", "content-type", "host", "keep-alive", "last-event-id"),
        *("mcp-protocol-version", "mcp-session-id", "proxy-connection", "te", "trailer", "transfer-encoding"),
        "upgrade",
    }
)
"""Set by HTTP and MCP themselves; the operator refuses the same ones."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


Provider = Literal[
    "openai", "openai-compatible", "anthropic", "bedrock", "gemini", "mistral", "ollama", "litellm", "llamacpp"
]


class ModelConfig(_Frozen):
    """Which model answers, and how it is reached."""

    provider: Provider
    id: Annotated[str, Field(min_length=1)]
    base_url: Annotated[str | None, Field(alias="baseURL", pattern="^https?://")] = None
    region: str | None = None
    api_key_file: Path | None = None
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fits_the_provider(self) -> Self:
        if self.provider in ("openai-compatible", "ollama", "llamacpp") and self.base_url is None:
            raise ValueError(f"baseURL is missing; provider {self.provider} needs the address of its server")
        if self.provider in ("openai", "anthropic", "gemini", "mistral") and self.api_key_file is None:
            raise ValueError(f"apiKeyFile is missing; provider {self.provider} needs a key")
        return self


class ToolFilter(_Frozen):
    """Which tools of a server the model may use; `allow` of None means all but the denied."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    def admits(self, tool: str) -> bool:
        """Whether the tool of this name may be shown and run."""
        return tool not in self.deny and (self.allow is None or tool in self.allow)


class ClientCredentials(_Frozen):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4), in mounted files."""

    token_url: Annotated[str, Field(alias="tokenURL", pattern="^https?://")]
    client_id_file: Annotated[Path, Field(alias="clientIDFile")]
    client_secret_file: Path
    scopes: tuple[str, ...] = ()


class McpAuth(_Frozen):
    """How the agent proves itself to an MCP server: one of the two."""

    bearer_token_file: Path | None = None
    client_credentials: ClientCredentials | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.bearer_token_file is None) == (self.client_credentials is None):
            raise ValueError("set exactly one of bearerTokenFile and clientCredentials")
        return self


class McpHeader(_Frozen):
    """A header that goes along with every request to an MCP server; its value is in a mounted file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")]
    value_file: Path

    @model_validator(mode="after")
    def _is_not_the_protocols(self) -> Self:
        if self.name.lower() in HEADERS_OF_THE_PROTOCOL:
            raise ValueError(f"name is {self.name!r}, which HTTP and MCP use themselves; use another header")
        return self


class Retry(_Frozen):
    """How often a call that may be repeated is made, and the pauses between."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    initial_delay_milliseconds: Annotated[int, Field(ge=1, le=60_000)] = 200
    max_delay_seconds: Annotated[int, Field(ge=1, le=300)] = 5


class McpServerConfig(_Frozen):
    """One MCP server. A required one must be connected for the agent to be ready."""

    name: Annotated[str, Field(min_length=1)]
    url: Annotated[str, Field(pattern="^https?://")]
    required: bool = True
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = ""
    """Put in front of the names of the server's tools, so that two servers may offer the same."""
    tools: ToolFilter = ToolFilter()
    tool_timeout_seconds: Annotated[int | None, Field(ge=1, le=900)] = None
    """Where it is less than limits.toolTimeoutSeconds, it counts."""
    retry: Retry = Retry()
    auth: McpAuth | None = None
    headers: tuple[McpHeader, ...] = ()
    ca_bundle: str | None = None
    """Certificates (PEM) that are trusted for this server's TLS instead of the system's."""

    @model_validator(mode="after")
    def _each_header_once(self) -> Self:
        names = [header.name.lower() for header in self.headers] + (["authorization"] if self.auth else [])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"headers and auth set {', '.join(twice)} more than once; set it in one place")
        return self


class Limits(_Frozen):
    """What ends a turn or a tool call; each has a code of its own."""

    request_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 60
    tool_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 30
    max_turns: Annotated[int, Field(ge=1, le=200)] = 20
    max_parallel_tools: Annotated[int, Field(ge=1, le=64)] = 10
    max_tokens_per_request: Annotated[int | None, Field(ge=1)] = None


class QueueConfig(_Frozen):
    """How many requests may wait while all places are taken."""

    max_length: Annotated[int, Field(ge=0, le=10_000)] = 100


class SessionsConfig(_Frozen):
    """Where conversations are kept and for how long; `window_size` counts messages."""

    store: Literal["memory", "file", "redis"] = "memory"
    ttl_seconds: Annotated[int, Field(ge=1)] = 3600
    max_sessions: Annotated[int, Field(ge=1)] = 1000
    window_size: Annotated[int, Field(ge=1)] = 20
    directory: Path = Path("/var/lib/ropewalk/sessions")
    """Where the store `file` keeps its files."""
    redis_url_file: Annotated[Path | None, Field(alias="redisURLFile")] = None

    @model_validator(mode="after")
    def _fits_the_store(self) -> Self:
        if (self.store == "redis") != (self.redis_url_file is not None):
            raise ValueError("redisURLFile goes with store redis: set both or neither")
        return self


class AgentConfig(_Frozen):
    """The whole of agent.json."""

    format_version: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    namespace: str = ""
    description: str = ""
    system_prompt: str
    model: ModelConfig
    fallbacks: tuple[ModelConfig, ...] = ()
    """Asked in this order when the model before fails."""
    mcp_servers: tuple[McpServerConfig, ...] = ()
    local_tools: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    limits: Limits = Limits()
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    queue: QueueConfig = QueueConfig()
    sessions: SessionsConfig = SessionsConfig()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says."""

    config_file: Path
    log_level: str
    drain_seconds: float


def parse(document: Any) -> AgentConfig:
    """Return the settings that `document` (parsed JSON) holds; raises ConfigError naming each wrong field."""
    try:
        config = AgentConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError([_sentence(problem) for problem in error.errors(include_url=False)]) from None
    names = [server.name for server in config.mcp_servers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError([f"mcpServers names {name} more than once; name each server once" for name in twice])
    return config


def load(environment: Mapping[str, str]) -> tuple[Settings, AgentConfig]:
    """Read the environment and the file that it names; raises ConfigError with every problem found."""
    settings, problems = _settings(environment)
    config: AgentConfig | None = None
    try:
        config = parse(json.loads(settings.config_file.read_text(encoding="utf-8")))
    except OSError as error:
        problems.append(f"{settings.config_file} cannot be read ({error.strerror}); set ROPEWALK_CONFIG_FILE")
    except ValueError as error:
        problems.append(f"{settings.config_file} is not JSON: {error}")
    except ConfigError as error:
        problems.extend(f"{settings.config_file}: {problem}" for problem in error.problems)
    if config is not None:
        named = [("model", config.model), *((f"fallbacks.{i}", model) for i, model in enumerate(config.fallbacks))]
        problems.extend(
            f"{name}.apiKeyFile {model.api_key_file} does not exist; mount the Secret with the key there"
            for name, model in named
            if model.api_key_file is not None and not model.api_key_file.is_file()
        )
    if problems or config is None:
        raise ConfigError(problems)
    return settings, config


def _settings(environment: Mapping[str, str]) -> tuple[Settings, list[str]]:
    problems: list[str] = []

    def number(name: str, default: float, least: float, most: float) -> float:
        value = environment.get(name, "")
        try:
            parsed = float(value) if value else default
        except ValueError:
            parsed = least - 1
        if not least <= parsed <= most:
            problems.append(f"{name} is {value!r}; use a number from {least:g} to {most:g}")
            return default
        return parsed

    try:
        listen_address(environment)  # used before this, by __main__, which leaves it to us to complain
    except AddressError as error:
        problems.append(str(error))
    level = environment.get("ROPEWALK_LOG_LEVEL") or "info"
    if level not in LOG_LEVELS:
        problems.append(f"ROPEWALK_LOG_LEVEL is {level!r}; use one of {', '.join(LOG_LEVELS)}")
    settings = Settings(
        config_file=Path(environment.get("ROPEWALK_CONFIG_FILE") or "/etc/ropewalk/agent.json"),
        log_level=level,
        drain_seconds=number("ROPEWALK_DRAIN_SECONDS", 65, 0, 3600),
    )
    return settings, problems


def _sentence(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "the document"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a field of format {FORMAT_VERSION}; remove it, or use an agent image that knows it"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    return f"{where} is {problem['input']!r}; {problem['msg'].replace('Input should', 'it should')}"
