"""Starts the math server: `python -m ropewalk_mcp_math [--port 8000 | --stdio]`."""

from prometheus_client import REGISTRY

from ropewalk_mcp_common.server import arguments, serve
from ropewalk_mcp_math.server import math_server
from ropewalk_mcp_process.logs import log_as_json

if __name__ == "__main__":
    options = arguments("Arithmetic for agents: add, subtract, multiply, divide, power.").parse_args()
    log_as_json()
    serve(math_server(REGISTRY), options)
