"""Starts the historical server: `python -m ropewalk_mcp_weather_historical [--port 8000 | --stdio]`."""

from ropewalk_mcp_weather.program import run
from ropewalk_mcp_weather_historical.server import historical_server

if __name__ == "__main__":
    run("The weather of any day since 1940, for agents.", historical_server)
