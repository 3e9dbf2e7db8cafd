"""The places that the stand-in knows, some of the same name; figures rounded from what everybody knows."""

from typing import Any

_FIELDS = ("id", "name", "latitude", "longitude", "population", "timezone", "country_code", "country", "admin1")
_PLACES = (
    (1, "Berlin", 52.52437, 13.41053, 3426354, "Europe/Berlin", "DE", "Germany", "State of Berlin"),
    (2, "Berlin", 44.46867, -71.18508, 9367, "America/New_York", "US", "United States", "New Hampshire"),
    (3, "Paris", 48.85341, 2.3488, 2138551, "Europe/Paris", "FR", "France", "Île-de-France"),
    (4, "Paris", 33.66094, -95.55551, 24782, "America/Chicago", "US", "United States", "Texas"),
    (5, "London", 51.50853, -0.12574, 8961989, "Europe/London", "GB", "United Kingdom", "England"),
    (6, "Springfield", 37.21533, -93.29824, 166810, "America/Chicago", "US", "United States", "Missouri"),
    (7, "Springfield", 42.10148, -72.58981, 154341, "America/New_York", "US", "United States", "Massachusetts"),
    (8, "Springfield", 39.80172, -89.64371, 116565, "America/Chicago", "US", "United States", "Illinois"),
    (9, "Tokyo", 35.6895, 139.69171, 8336599, "Asia/Tokyo", "JP", "Japan", "Tokyo"),
    (10, "Sydney", -33.86785, 151.20732, 4627345, "Australia/Sydney", "AU", "Australia", "New South Wales"),
    (11, "Hamburg", 53.55073, 9.99302, 1739117, "Europe/Berlin", "DE", "Germany", "Hamburg"),
    (12, "New York", 40.71427, -74.00597, 8175133, "America/New_York", "US", "United States", "New York"),
    (13, "Tromsø", 69.6489, 18.95508, 52436, "Europe/Oslo", "NO", "Norway", "Troms"),
    (14, "Munich", 48.13743, 11.57549, 1260391, "Europe/Berlin", "DE", "Germany", "Bavaria"),
)
PLACES: list[dict[str, Any]] = [dict(zip(_FIELDS, place, strict=True)) for place in _PLACES]


def found(name: str, count: int, country_code: str) -> list[dict[str, Any]]:
    """Return the places of this name, or that begin with it from three letters on, the largest first."""
    wanted = name.strip().casefold()
    if len(wanted) < 2:
        return []
    places = [
        place
        for place in PLACES
        if (place["name"].casefold() == wanted or (len(wanted) > 2 and place["name"].casefold().startswith(wanted)))
        and country_code.upper() in ("", place["country_code"])
    ]
    return sorted(places, key=lambda place: -int(place["population"]))[:count]


def timezone(latitude: float, longitude: float) -> str:
    """Return the time zone of the nearest place that is known, GMT far from all."""
    near = min(PLACES, key=lambda place: abs(place["latitude"] - latitude) + abs(place["longitude"] - longitude))
    distance = abs(near["latitude"] - latitude) + abs(near["longitude"] - longitude)
    return str(near["timezone"]) if distance < 5 else "GMT"
