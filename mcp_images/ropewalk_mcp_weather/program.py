"""Starts a weather server: options, the connection to Open-Meteo, the log, and serving."""

import os
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry

from ropewalk_mcp_common.server import ToolServer, arguments, serve
from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_upstream.address import base_url
from ropewalk_mcp_upstream.client import Upstream
from ropewalk_mcp_weather.open_meteo import LIMITS, OpenMeteo


def run(description: str, server: Callable[[OpenMeteo, CollectorRegistry], ToolServer]) -> None:
    """Parse the options and serve what `server` makes of the API."""
    parser = arguments(description)
    parser.add_argument(
        "--base-url",
        type=base_url,
        default=os.environ.get("ROPEWALK_OPEN_METEO_URL") or None,
        help="where all of the API is, such as a mirror; or ROPEWALK_OPEN_METEO_URL; default Open-Meteo's own hosts",
    )
    options = parser.parse_args()
    log_as_json()
    upstream = Upstream("Open-Meteo", REGISTRY, trust_environment=True, limits=LIMITS)
    serve(server(OpenMeteo(upstream, options.base_url or ""), REGISTRY), options)
