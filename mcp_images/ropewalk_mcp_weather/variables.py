"""The variables of Open-Meteo that several servers use."""

from ropewalk_mcp_weather.units import (
    MOMENT,
    PERCENT,
    PRECIPITATION,
    TEMPERATURE,
    WEATHER,
    WIND_SPEED,
    Variable,
)

WEATHER_NOW = Variable("weather_code", "weather", WEATHER, "The weather in words")
TEMPERATURE_NOW = Variable("temperature_2m", "temperature", TEMPERATURE, "Air temperature, 2 m above the ground")
FEELS_LIKE = Variable("apparent_temperature", "feels_like", TEMPERATURE, "What the temperature feels like")
HUMIDITY = Variable("relative_humidity_2m", "relative_humidity", PERCENT, "Relative humidity, 2 m above the ground")
CLOUDS = Variable("cloud_cover", "cloud_cover", PERCENT, "How much of the sky is covered")
PRECIPITATION_NOW = Variable(
    "precipitation", "precipitation", PRECIPITATION, "Rain, showers and melted snow of the last hour"
)
WIND = Variable("wind_speed_10m", "wind_speed", WIND_SPEED, "Wind speed, 10 m above the ground")
GUSTS = Variable("wind_gusts_10m", "wind_gusts", WIND_SPEED, "Gusts, 10 m above the ground")
TEMPERATURE_MAX = Variable("temperature_2m_max", "temperature_max", TEMPERATURE, "Highest air temperature of the day")
TEMPERATURE_MIN = Variable("temperature_2m_min", "temperature_min", TEMPERATURE, "Lowest air temperature of the day")
PRECIPITATION_SUM = Variable(
    "precipitation_sum", "precipitation", PRECIPITATION, "Rain, showers and melted snow of the day"
)
WIND_MAX = Variable("wind_speed_10m_max", "wind_speed_max", WIND_SPEED, "Strongest wind of the day")
GUSTS_MAX = Variable("wind_gusts_10m_max", "wind_gusts_max", WIND_SPEED, "Strongest gust of the day")
SUNRISE = Variable("sunrise", "sunrise", MOMENT, "Sunrise")
SUNSET = Variable("sunset", "sunset", MOMENT, "Sunset")
