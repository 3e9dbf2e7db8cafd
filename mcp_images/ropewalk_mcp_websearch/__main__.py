"""Starts the web search server: `python -m ropewalk_mcp_websearch [--port 8000] [--base-url https://…]`."""

import os

from prometheus_client import REGISTRY

from ropewalk_mcp_common.server import arguments, serve
from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_upstream.address import base_url
from ropewalk_mcp_upstream.client import Upstream
from ropewalk_mcp_websearch.server import LIMITS, WebSearch, websearch_server

DUCKDUCKGO = "https://html.duckduckgo.com"


def main() -> None:
    """Parse the options and serve."""
    parser = arguments("Searches the web by DuckDuckGo.")
    parser.add_argument(
        "--base-url",
        type=base_url,
        default=os.environ.get("ROPEWALK_SEARCH_URL") or DUCKDUCKGO,
        help=f"what has the results page at /html/; or ROPEWALK_SEARCH_URL; default {DUCKDUCKGO}",
    )
    options = parser.parse_args()
    log_as_json()
    upstream = Upstream("DuckDuckGo", REGISTRY, trust_environment=True, limits=LIMITS, headers={"accept": "text/html"})
    serve(websearch_server(WebSearch(upstream, options.base_url), upstream, REGISTRY), options)


if __name__ == "__main__":
    main()
