"""The words of MCP that the bridge has to know: versions, the stateless era's envelope, and both eras' greetings.

From the specification's revisions 2025-11-25 (basic/lifecycle) and 2026-07-28 (basic/index, basic/transports).
"""

from dataclasses import dataclass
from typing import Any

from ropewalk_mcp_process import __version__
from ropewalk_mcp_stdio.jsonrpc import Message

STATELESS_VERSION = "2026-07-28"
# Newest last.
SESSION_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
CLIENT_KEY = "io.modelcontextprotocol/clientInfo"
LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"
SERVER_KEY = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
ENVELOPE_KEYS = (VERSION_KEY, CAPABILITIES_KEY, CLIENT_KEY, LOG_LEVEL_KEY)

HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
# What a request of the child needs of the client's capabilities.
NEEDED_CAPABILITY = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
# The bridge stands for clients that may be able to do all of it; what a client cannot do is refused when asked.
CAPABILITIES: Message = {
    "sampling": {"tools": {}, "context": {}},
    "elicitation": {"form": {}, "url": {}},
    "roots": {"listChanged": True},
}
CLIENT_INFO: Message = {"name": "ropewalk-mcp-stdio", "version": __version__}
# Metric labels: any other method is "other".
METHODS = frozenset(
    {
        "initialize", "ping", "server/discover", "tools/list", "tools/call", "prompts/list", "prompts/get",
        "resources/list", "resources/templates/list", "resources/read", "resources/subscribe",
        "resources/unsubscribe", "subscriptions/listen", "completion/complete", "logging/setLevel",
        "tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Greeting:
    """What the child says of itself: its era, its protocol version and its whole answer to the handshake."""

    stateless: bool
    version: str
    answer: Message

    @property
    def capabilities(self) -> Message:
        """What the server can do."""
        value = self.answer.get("capabilities")
        return value if isinstance(value, dict) else {}

    @property
    def server_info(self) -> Message:
        """The server's name and version."""
        meta = self.answer.get("_meta")
        value = self.answer.get("serverInfo") or (meta.get(SERVER_KEY) if isinstance(meta, dict) else None)
        return value if isinstance(value, dict) else {"name": "unnamed", "version": "0"}


def envelope(capabilities: Message, client: Message | None = None, log_level: str | None = None) -> Message:
    """Return what a request of the stateless era carries in `_meta`."""
    keys: Message = {VERSION_KEY: STATELESS_VERSION, CAPABILITIES_KEY: capabilities}
    keys |= {CLIENT_KEY: client} if client is not None else {}
    return keys | ({LOG_LEVEL_KEY: log_level} if log_level is not None else {})


def initialize_params() -> Message:
    """Return the parameters of the bridge's own initialize."""
    return {"protocolVersion": SESSION_VERSIONS[-1], "capabilities": CAPABILITIES, "clientInfo": CLIENT_INFO}


def own_params(greeting: Greeting) -> Message | None:
    """Return the parameters of a request of the bridge itself that has none of its own."""
    return {"_meta": envelope(CAPABILITIES, CLIENT_INFO)} if greeting.stateless else None


def initialize_answer(greeting: Greeting, asked_version: Any) -> Message:
    """Return the child's own answer to initialize, in the version that the client asked for where both know it."""
    ours = greeting.version if greeting.version in SESSION_VERSIONS else SESSION_VERSIONS[-1]
    older = asked_version in SESSION_VERSIONS and SESSION_VERSIONS.index(asked_version) <= SESSION_VERSIONS.index(ours)
    answer = {key: value for key, value in greeting.answer.items() if key not in _STATELESS_ONLY}
    if not greeting.stateless:
        return answer | {"protocolVersion": asked_version if older else greeting.version}
    return answer | {"protocolVersion": asked_version if older else ours, "serverInfo": greeting.server_info}


def discover_answer(greeting: Greeting) -> Message:
    """Return what an older server would answer to server/discover."""
    kept = ("capabilities", "instructions", "_meta")
    answer = {key: value for key, value in greeting.answer.items() if key in kept}
    return answer | {"supportedVersions": [STATELESS_VERSION]}


_STATELESS_ONLY = frozenset({"supportedVersions", "resultType", "ttlMs", "cacheScope", "_meta"})
