"""Starts the forecast server: `python -m ropewalk_mcp_weather_forecast [--port 8000 | --stdio]`."""

from ropewalk_mcp_weather.program import run
from ropewalk_mcp_weather_forecast.server import forecast_server

if __name__ == "__main__":
    run("The weather now and of the next 16 days, for agents.", forecast_server)
