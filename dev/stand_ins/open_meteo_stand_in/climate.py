"""Weather that is made up from place and time: the same for the same question, warmer by day, in summer and south."""

import math
from collections.abc import Callable
from datetime import datetime, timedelta

Value = float | str


def _chance(latitude: float, moment: datetime, salt: int) -> float:
    """Return a number from 0 to 1 that is another one each day and place."""
    return (moment.toordinal() * 7919 + int(latitude * 100) * 104729 + salt * 15485863) % 997 / 997


def temperature(latitude: float, moment: datetime) -> float:
    """Return degrees Celsius."""
    summer = math.cos(2 * math.pi * (moment.timetuple().tm_yday - 200) / 365) * (1 if latitude >= 0 else -1)
    by_day = 5 * math.cos(2 * math.pi * (moment.hour - 15) / 24)
    usual = 27 - 0.35 * abs(latitude) + 0.22 * abs(latitude) * summer
    return usual + by_day + 6 * (_chance(latitude, moment, 1) - 0.5)


def rain(latitude: float, moment: datetime) -> float:
    """Return the millimetres of an hour."""
    chance = _chance(latitude, moment, 2)
    return round(4 * (chance - 0.7), 1) if chance > 0.7 and 10 <= moment.hour < 17 else 0.0


def clouds(latitude: float, moment: datetime) -> float:
    """Return percent of the sky."""
    return 100.0 if rain(latitude, moment) else round(100 * _chance(latitude, moment, 2))


def wind(latitude: float, moment: datetime) -> float:
    """Return km/h."""
    return 3 + 20 * _chance(latitude, moment, 3) + (3 if 9 <= moment.hour < 20 else 0)


def code(latitude: float, moment: datetime) -> float:
    """Return a WMO weather code that fits rain, frost and clouds."""
    if rain(latitude, moment):
        return 71.0 if temperature(latitude, moment) < 0 else 61.0
    covered = clouds(latitude, moment)
    return 0.0 if covered < 10 else 1.0 if covered < 30 else 2.0 if covered < 70 else 3.0


def _soil(depth_cm: int) -> Callable[[float, datetime], float]:
    # The deeper, the less it follows the hour.
    def value(latitude: float, moment: datetime) -> float:
        noon = temperature(latitude, moment.replace(hour=9))
        return noon + (temperature(latitude, moment) - noon) * math.exp(-depth_cm / 10)

    return value


def _moisture(depth_cm: int) -> Callable[[float, datetime], float]:
    return lambda latitude, moment: round(0.18 + 0.1 * _chance(latitude, moment, 4) + depth_cm / 1000, 3)


def evapotranspiration(latitude: float, moment: datetime) -> float:
    """Return the millimetres of an hour."""
    sun = max(0.0, math.sin(math.pi * (moment.hour - 6) / 12))
    return max(0.0, 0.02 * temperature(latitude, moment)) * sun


HOURLY: dict[str, tuple[str, Callable[[float, datetime], float]]] = {
    "temperature_2m": ("°C", temperature),
    "apparent_temperature": ("°C", lambda latitude, moment: temperature(latitude, moment) - 2),
    "relative_humidity_2m": ("%", lambda latitude, moment: round(40 + 0.5 * clouds(latitude, moment))),
    "precipitation": ("mm", rain),
    "precipitation_probability": ("%", clouds),
    "weather_code": ("wmo code", code),
    "cloud_cover": ("%", clouds),
    "pressure_msl": ("hPa", lambda latitude, moment: 1025 - 0.2 * clouds(latitude, moment)),
    "wind_speed_10m": ("km/h", wind),
    "wind_gusts_10m": ("km/h", lambda latitude, moment: 1.8 * wind(latitude, moment)),
    "wind_direction_10m": ("°", lambda latitude, moment: round(359 * _chance(latitude, moment, 5))),
    "et0_fao_evapotranspiration": ("mm", evapotranspiration),
    **{f"soil_temperature_{depth}cm": ("°C", _soil(depth)) for depth in (0, 6, 18, 54)},
    **{
        f"soil_moisture_{top}_to_{bottom}cm": ("m³/m³", _moisture(bottom))
        for top, bottom in ((0, 1), (1, 3), (3, 9), (9, 27), (27, 81))
    },
}


def _daily(
    reduce: Callable[[list[float]], float], hourly: Callable[[float, datetime], float]
) -> Callable[[float, datetime], float]:
    return lambda latitude, day: reduce([hourly(latitude, day + timedelta(hours=hour)) for hour in range(24)])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _at(hour: int) -> Callable[[float, datetime], str]:
    return lambda _, day: (day + timedelta(hours=hour)).isoformat(timespec="minutes")


DAILY: dict[str, tuple[str, Callable[[float, datetime], Value]]] = {
    "weather_code": ("wmo code", _daily(max, code)),
    "temperature_2m_max": ("°C", _daily(max, temperature)),
    "temperature_2m_min": ("°C", _daily(min, temperature)),
    "temperature_2m_mean": ("°C", _daily(_mean, temperature)),
    "precipitation_sum": ("mm", _daily(sum, rain)),
    "precipitation_probability_max": ("%", _daily(max, clouds)),
    "snowfall_sum": ("cm", _daily(sum, lambda la, at: 0.7 * rain(la, at) if temperature(la, at) < 0 else 0.0)),
    "wind_speed_10m_max": ("km/h", _daily(max, wind)),
    "wind_gusts_10m_max": ("km/h", _daily(max, lambda latitude, moment: 1.8 * wind(latitude, moment))),
    "uv_index_max": ("", lambda latitude, day: max(0.0, 9 - abs(latitude) / 10)),
    "et0_fao_evapotranspiration": ("mm", _daily(sum, evapotranspiration)),
    "sunrise": ("iso8601", _at(6)),
    "sunset": ("iso8601", _at(18)),
}
