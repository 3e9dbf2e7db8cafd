"""Starts a weather server: options, the connection to Open-Meteo, the log, and serving."""

import os
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry

from ropewalk_mcp_common.server import ToolServer, arguments, serve
from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_upstream.client import Upstream
from ropewalk_mcp_weather.open_meteo import LIMITS, OpenMeteo, base_url


def run(description: str, server: Callable[[OpenMeteo, CollectorRegistry], ToolServer]) -> None:
    """Parse the options and serve what `server` makes of the API."""
    parser = arguments(description)
    parser.add_argument(
        "--open-meteo-url",
        type=base_url,
        default=os.environ.get("ROPEWALK_OPEN_METEO_URL", ""),
        help="another base URL for all of the API, such as a mirror; or ROPEWALK_OPEN_METEO_URL",
    )
    options = parser.parse_args()
    log_as_json()
    upstream = Upstream("Open-Meteo", REGISTRY, trust_environment=True, limits=LIMITS)
    serve(server(OpenMeteo(upstream, options.open_meteo_url), REGISTRY), options)
