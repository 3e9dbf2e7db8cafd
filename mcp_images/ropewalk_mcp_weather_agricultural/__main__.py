"""Starts the agricultural server: `python -m ropewalk_mcp_weather_agricultural [--port 8000 | --stdio]`."""

from ropewalk_mcp_weather.program import run
from ropewalk_mcp_weather_agricultural.server import agricultural_server

if __name__ == "__main__":
    run("Soil, evapotranspiration, growing degree days and frost risk, for agents.", agricultural_server)
