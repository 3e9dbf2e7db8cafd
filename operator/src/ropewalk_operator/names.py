"""Names, labels, ports and paths of everything that the operator makes, one line each. Never decides anything."""

from __future__ import annotations

from ropewalk_operator.api import GROUP, Agent, MCPServer

FIELD_MANAGER = "ropewalk-operator"
REPLICAS_MANAGER = "ropewalk-operator-replicas"
"""Holds spec.replicas of a Deployment while it passes from the operator to an autoscaler."""

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_SELECTOR = f"{MANAGED_BY}={FIELD_MANAGER}"
APP_NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
OWNER_LABELS = {"Agent": f"{GROUP}/agent", "MCPServer": f"{GROUP}/mcpserver"}
COMPONENTS = {"Agent": "agent", "MCPServer": "mcpserver"}
SUFFIXES = {"Agent": "agent", "MCPServer": "mcp"}

CONFIG_HASH = f"{GROUP}/config-hash"
DESIRED_HASH = f"{GROUP}/desired-hash"

PORT_NAME = "http"
AGENT_PORT = 8080
AGENT_CONTAINER = "agent"
MCP_CONTAINER = "mcpserver"
BRIDGE_CONTAINER = "bridge"

CONFIG_KEY = "agent.json"
CONFIG_DIRECTORY = "/etc/ropewalk"
CONFIG_FILE = f"{CONFIG_DIRECTORY}/{CONFIG_KEY}"
SECRETS_DIRECTORY = f"{CONFIG_DIRECTORY}/secrets"
MODEL_KEY_FILE = f"{SECRETS_DIRECTORY}/model/api-key"
MCP_SECRETS_DIRECTORY = f"{SECRETS_DIRECTORY}/mcp"
REDIS_URL_FILE = f"{SECRETS_DIRECTORY}/sessions/redis-url"
SESSIONS_DIRECTORY = "/var/lib/ropewalk/sessions"

SCRAPED = f"monitoring.{GROUP}/scrape"
"""Label of MCP servers' pods that have metrics: "true". Users may set it, as nobody can tell by an image."""

QUEUE_METRIC = "ropewalk_agent_queue_depth"
"""What an agent's pod says of the requests that wait in it."""

OPERATOR_LABELS = {APP_NAME: "ropewalk-operator"}

Owner = Agent | MCPServer


def child(owner: Owner) -> str:
    """Name that all children of the owner carry."""
    return child_of(owner.kind, owner.name)


def child_of(kind: str, name: str) -> str:
    """Name that all children of the Agent or MCPServer `name` carry."""
    return f"{name}-{SUFFIXES[kind]}"


def selector(owner: Owner) -> dict[str, str]:
    """The one label by which Deployment, Service and NetworkPolicy find the pods."""
    return {OWNER_LABELS[owner.kind]: owner.name}


def selector_text(owner: Owner) -> str:
    """The selector as status.selector wants it."""
    return ",".join(f"{key}={value}" for key, value in selector(owner).items())


def labels(owner: Owner) -> dict[str, str]:
    """Labels of every child and pod."""
    return {
        APP_NAME: f"ropewalk-{COMPONENTS[owner.kind]}",
        INSTANCE: owner.name,
        COMPONENT: COMPONENTS[owner.kind],
        MANAGED_BY: FIELD_MANAGER,
        **selector(owner),
    }


def service_account(owner: Owner) -> str:
    """The ServiceAccount that the pods run as: the user's, or one of their own."""
    return owner.pod.service_account_name or child(owner)


def fallback_key_file(index: int) -> str:
    """Where the pod finds the key of the fallback with this index."""
    return f"{SECRETS_DIRECTORY}/fallback-{index}/api-key"


def mcp_secrets_directory(server: str) -> str:
    """Where an agent's pod finds what it needs to prove itself to the MCP server of this name."""
    return f"{MCP_SECRETS_DIRECTORY}/{server}"


def service_hosts(owner: Owner) -> list[str]:
    """Every name by which pods of the cluster may call the Service, from the shortest to the longest."""
    name, namespace = child(owner), owner.namespace
    return [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]


def agent_url(agent: Agent) -> str:
    """Where the agent answers."""
    return f"http://{child(agent)}.{agent.namespace}.svc:{AGENT_PORT}"


def mcp_url(server: MCPServer) -> str:
    """Where agents reach the MCP server."""
    return (
        server.remote.url
        if server.remote
        else f"http://{child(server)}.{server.namespace}.svc:{server.port}{server.path}"
    )
