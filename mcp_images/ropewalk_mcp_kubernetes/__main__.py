"""Starts the Kubernetes server: `python -m ropewalk_mcp_kubernetes [--port 8000] [--allow-delete]`."""

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
from ropewalk_mcp_kubernetes.server import KubernetesTools, kubernetes_server
from ropewalk_mcp_process.logs import log_as_json

# Below the 30 seconds that an agent waits for a tool by default: it learns the reason instead of a timeout.
API_TIMEOUT_SECONDS = 10.0


def main() -> None:
    """Parse the options, find the API server, serve."""
    parser = arguments("Shows an agent its Kubernetes cluster: nodes, pods, logs.")
    parser.add_argument(
        "--allow-delete", action="store_true", help="let agents delete pods; or ROPEWALK_ALLOW_DELETE=true"
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
    )
    serve(kubernetes_server(tools, REGISTRY), options)


if __name__ == "__main__":
    main()
