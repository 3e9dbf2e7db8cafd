"""Starts the Kubernetes server: `python -m ropewalk_mcp_kubernetes [--namespaces a,b] [--allow-delete]`."""

import argparse
import asyncio
import logging
import os
import sys
from datetime import UTC, datetime

from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException
from prometheus_client import REGISTRY

from ropewalk_mcp_common.server import arguments, serve
from ropewalk_mcp_kubernetes.api import KubeApi, configuration
from ropewalk_mcp_kubernetes.server import KubernetesTools, is_namespace, kubernetes_server
from ropewalk_mcp_process.logs import log_as_json

# Below the 30 seconds that an agent waits for a tool by default: it learns the reason instead of a timeout.
API_TIMEOUT_SECONDS = 10.0
# Each costs two requests where all of them are listed.
MOST_CHOSEN = 20


def namespaces(text: str) -> tuple[str, ...]:
    """Return the namespaces that --namespaces or ROPEWALK_NAMESPACES names."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if len(names) > MOST_CHOSEN or not all(is_namespace(name) for name in names):
        raise argparse.ArgumentTypeError(
            f"ROPEWALK_NAMESPACES is {text[:100]!r}; use at most {MOST_CHOSEN} names of namespaces, such as web,shop"
        )
    return names


def main() -> None:
    """Parse the options, find the API server, serve."""
    parser = arguments("Shows an agent its Kubernetes cluster: nodes, pods, logs.")
    parser.add_argument(
        "--allow-delete", action="store_true", help="let agents delete pods; or ROPEWALK_ALLOW_DELETE=true"
    )
    parser.add_argument(
        "--namespaces",
        type=namespaces,
        default=os.environ.get("ROPEWALK_NAMESPACES", ""),
        help="the only namespaces to look at, separated by commas; or ROPEWALK_NAMESPACES; default all that it may see",
    )
    allowed = os.environ.get("ROPEWALK_ALLOW_DELETE", "false").lower()
    if allowed not in ("true", "false"):
        parser.error(f"ROPEWALK_ALLOW_DELETE is {allowed!r}; use true or false")
    options = parser.parse_args()
    log_as_json()
    try:
        config = asyncio.run(configuration())
    except (ConfigException, OSError) as error:
        logging.getLogger("ropewalk.mcp").error(
            "no way to reach the API server; in a cluster give the pod a ServiceAccount with a token (in an MCPServer: "
            "spec.pod.serviceAccountName), elsewhere set KUBECONFIG to a kubeconfig file",
            extra={"error": str(error)},
        )
        sys.exit(1)
    tools = KubernetesTools(
        KubeApi(ApiClient(config), API_TIMEOUT_SECONDS),
        allow_delete=options.allow_delete or allowed == "true",
        now=lambda: datetime.now(UTC),
        namespaces=options.namespaces,
    )
    serve(kubernetes_server(tools, REGISTRY), options)


if __name__ == "__main__":
    main()
