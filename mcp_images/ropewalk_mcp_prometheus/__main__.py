"""Starts the Prometheus server: `python -m ropewalk_mcp_prometheus --base-url http://prometheus:9090`."""

import os
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import REGISTRY

from ropewalk_mcp_common.server import arguments, serve
from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_prometheus.api import LIMITS, PrometheusApi
from ropewalk_mcp_prometheus.server import PrometheusTools, prometheus_server
from ropewalk_mcp_upstream.address import base_url
from ropewalk_mcp_upstream.client import Upstream


def main() -> None:
    """Parse the options and serve."""
    parser = arguments("Asks a Prometheus: values now and over time, names of metrics, the state of the server.")
    parser.add_argument(
        "--base-url",
        type=base_url,
        default=os.environ.get("ROPEWALK_PROMETHEUS_URL") or None,
        help="where the Prometheus answers, such as http://prometheus.monitoring.svc:9090; or ROPEWALK_PROMETHEUS_URL",
    )
    parser.add_argument(
        "--bearer-token-file",
        type=Path,
        default=os.environ.get("ROPEWALK_PROMETHEUS_TOKEN_FILE") or None,
        help="a file with the bearer token for it, read for each request; or ROPEWALK_PROMETHEUS_TOKEN_FILE",
    )
    options = parser.parse_args()
    if not options.base_url:
        parser.error(
            "ROPEWALK_PROMETHEUS_URL is not set; set it, or --base-url, to where your Prometheus answers, such as "
            "http://prometheus.monitoring.svc:9090"
        )
    log_as_json()
    upstream = Upstream("Prometheus", REGISTRY, trust_environment=True, limits=LIMITS)
    api = PrometheusApi(upstream, options.base_url, options.bearer_token_file)
    serve(prometheus_server(PrometheusTools(api, lambda: datetime.now(UTC)), upstream, REGISTRY), options)


if __name__ == "__main__":
    main()
