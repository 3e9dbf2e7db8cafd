"""An MCPServer as the renderers want it: an image to run, a stdio server to bridge, or a remote address."""

from __future__ import annotations

import re
import ssl
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from ropewalk_operator.api.values import KeyRef, ToolFilter, Value, check_url
from ropewalk_operator.api.workload import Resource

RESERVED_HEADERS = frozenset(
    {
        "accept", "connection", "content-length", "content-type", "host", "keep-alive", "last-event-id",
        "mcp-protocol-version", "mcp-session-id", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Set by HTTP and MCP themselves."""

PYTHON_PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*$"
NODE_PACKAGE = r"^(@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*@[0-9][A-Za-z0-9.+-]*$"

_SECRET_WORDS = re.compile(r"(?i)token|key|secret|passw|auth|credential|signature")


class Package(Value):
    """A published server that is installed at start; one of the two, with an exact version."""

    python: Annotated[str | None, Field(pattern=PYTHON_PACKAGE)] = None
    node: Annotated[str | None, Field(pattern=NODE_PACKAGE)] = None

    @model_validator(mode="after")
    def _one_registry(self) -> Self:
        if (self.python is None) == (self.node is None):
            raise ValueError("set exactly one of python and node")
        return self


class Stdio(Value):
    """A server that speaks MCP over its standard input and output."""

    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    package: Package | None = None
    session_mode: Literal["shared", "perSession"] = "shared"
    max_sessions: Annotated[int, Field(ge=1, le=1000)] = 100
    idle_timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 300

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image is None) == (self.package is None):
            raise ValueError("set exactly one of image and package")
        if self.image is not None and not self.command:
            raise ValueError("command is missing; with image it names the program that speaks MCP")
        return self


class Header(Value):
    """An HTTP header with its value in a Secret."""

    class From(Value):
        """Where the value is."""

        secret_key_ref: KeyRef

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    value_from: From

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name.lower() in RESERVED_HEADERS:
            raise ValueError(f"the header {name} is set by HTTP or MCP itself; remove it")
        return name


class Remote(Value):
    """A server that runs elsewhere; `ca_bundle` is PEM text."""

    url: str
    headers: tuple[Header, ...] = ()
    ca_bundle: str | None = None

    @model_validator(mode="after")
    def _headers_are_named_once(self) -> Self:
        names = [header.name.lower() for header in self.headers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"headers names {', '.join(twice)} twice; upper and lower case are the same")
        return self

    @model_validator(mode="after")
    def _certificates_are_such(self) -> Self:
        if self.ca_bundle is None:
            return self
        if not self.url.startswith("https://"):
            raise ValueError("caBundle has no effect on http://; remove it, or use https://")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=self.ca_bundle)
        except (ssl.SSLError, ValueError):
            raise ValueError("caBundle holds no certificates in PEM; begin with -----BEGIN CERTIFICATE-----") from None
        return self


class ClientCredentials(Value):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

    token_url: Annotated[str, Field(alias="tokenURL")]
    client_id_secret_ref: Annotated[KeyRef, Field(alias="clientIDSecretRef")]
    client_secret_secret_ref: KeyRef
    scopes: tuple[str, ...] = ()


class Auth(Value):
    """How agents prove themselves to the server: one of the two."""

    bearer_token_secret_ref: KeyRef | None = None
    client_credentials: ClientCredentials | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.bearer_token_secret_ref is None) == (self.client_credentials is None):
            raise ValueError("set exactly one of bearerTokenSecretRef and clientCredentials")
        if self.client_credentials:
            _check_public_url("clientCredentials.tokenURL", self.client_credentials.token_url)
        return self


class Retry(Value):
    """How often a call that may be repeated is made, and the pauses between."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    initial_delay_milliseconds: Annotated[int, Field(ge=1, le=60000)] = 200
    max_delay_seconds: Annotated[int, Field(ge=1, le=300)] = 5


class MCPServer(Resource):
    """An MCPServer with every default filled in."""

    # How a server knows which Host headers are its own: another value would let others in.
    reserved_env = frozenset({"ROPEWALK_MCP_ALLOWED_HOSTS", "ROPEWALK_POD_IP"})

    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    stdio: Stdio | None = None
    remote: Remote | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    path: Annotated[str, Field(pattern=r"^/")] = "/mcp"
    auth: Auth | None = None
    tools: ToolFilter = ToolFilter()
    tool_timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 30
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.image, self.stdio, self.remote].count(None) != 2:
            raise ValueError("set exactly one of image, stdio and remote")
        if self.image is None and (self.command or self.args):
            raise ValueError("command and args go with image; use stdio.command and stdio.args for a stdio server")
        if self.remote:
            _check_public_url("remote.url", self.remote.url)
            if self.auth and any(header.name.lower() == "authorization" for header in self.remote.headers):
                raise ValueError("remote.headers holds Authorization beside auth, which sets it; keep one of them")
        return self

    @model_validator(mode="after")
    def _remote_has_no_pods(self) -> Self:
        without_effect = {"autoscaling": "autoscaling", "network_policy": "networkPolicy", "pod": "pod"}
        given = [shown for field, shown in without_effect.items() if field in self.model_fields_set]
        if self.remote and given:
            raise ValueError(f"{' and '.join(given)} has no effect on a remote server; remove it")
        return self

    @property
    def has_pods(self) -> bool:
        """Whether it runs here."""
        return self.remote is None

    @property
    def is_asked_with_secrets(self) -> bool:
        """Whether only those who hold its Secrets can ask it: the operator cannot."""
        return self.auth is not None or bool(self.remote and self.remote.headers)

    @property
    def is_autoscaled(self) -> bool:
        """Whether a HorizontalPodAutoscaler says how many pods run."""
        return self.autoscaling is not None and self.has_pods

    @property
    def wanted_replicas(self) -> int:
        """Pods that shall run: none for a remote server; with autoscaling at least so many."""
        if not self.has_pods:
            return 0
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas


def _check_public_url(field: str, url: str) -> None:
    """An address that everyone who may read the resource may see."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(f"{field} names a user or a password; put them into a Secret, and name it in auth")
    check_url(field, url)
    if secret := next((name for name, _ in parse_qsl(parts.query) if _SECRET_WORDS.search(name)), None):
        raise ValueError(f"{field} holds {secret!r}, which looks like a secret; use auth or remote.headers instead")
