"""Which place a caller means: pure decisions about names, candidates and coordinates."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field

from ropewalk_mcp_common.errors import CodedError

PlaceArgument = Annotated[
    str,
    Field(
        description="A place by name, such as Berlin or 'Springfield, Illinois', or by its coordinates as "
        "latitude,longitude, such as 52.52,13.41",
        min_length=2,
        max_length=200,
    ),
]
_COORDINATES = re.compile(r"\s*([-+]?\d{1,3}(?:\.\d+)?)\s*[,; ]\s*([-+]?\d{1,3}(?:\.\d+)?)\s*")
# A place that is so many times as large as any other of its name is the one that people mean by it.
_PLAINLY_MEANT = 10
_MOST_CANDIDATES = 8


class Place(BaseModel):
    """A place on earth."""

    name: str = Field(description="Its name, or its coordinates where it was given by them")
    region: str | None = Field(default=None, description="The state, province or region that it is in")
    country: str | None = None
    latitude: float = Field(description="Degrees north of the equator")
    longitude: float = Field(description="Degrees east of Greenwich")
    timezone: str | None = Field(default=None, description="Its time zone, in which all times of an answer are")

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.name, self.region if self.region != self.name else None, self.country)))


@dataclass(frozen=True)
class Candidate:
    """A place of the gazetteer, with how many people live there and all areas that it is in, by name and code."""

    place: Place
    population: int
    areas: tuple[str, ...]


def coordinates(text: str) -> Place | None:
    """Return the place that these coordinates mean, None where the text is a name; raises INVALID_INPUT."""
    match = _COORDINATES.fullmatch(text)
    if not match:
        return None
    latitude, longitude = float(match[1]), float(match[2])
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise CodedError(
            "INVALID_INPUT",
            f"place is {text[:100]!r}; give a latitude of -90 to 90 and a longitude of -180 to 180",
        )
    # Four decimals are eleven metres: finer than any weather model, and the same request for the same place.
    latitude, longitude = round(latitude, 4), round(longitude, 4)
    return Place(name=f"{latitude},{longitude}", latitude=latitude, longitude=longitude)


def parts(text: str) -> tuple[str, list[str]]:
    """Return the name, and the areas behind its commas that tell it from others of the same name."""
    name, *areas = (part.strip() for part in text.split(","))
    return name, [area.casefold() for area in areas if area]


def meant(text: str, candidates: Sequence[Candidate]) -> Place:
    """Return the one candidate that the text means.

    Raises NOT_FOUND where there is none, and INVALID_INPUT with the candidates where it may be several.
    """
    name, areas = parts(text)
    found = [one for one in candidates if all(area in one.areas for area in areas)]
    # The gazetteer also finds names that begin alike: they count only where no name is the same.
    found = [one for one in found if one.place.name.casefold() == name.casefold()] or found
    if not found:
        known = _listed(candidates) if candidates else ""
        advice = f"places of that name:\n{known}" if known else "check the spelling, or give latitude,longitude"
        raise CodedError("NOT_FOUND", f"place is {text[:100]!r}, which is unknown; {advice}")
    found = sorted(found, key=lambda one: -one.population)
    if len(found) == 1 or found[0].population >= _PLAINLY_MEANT * max(1, found[1].population):
        return found[0].place
    raise CodedError(
        "INVALID_INPUT",
        f"place is {text[:100]!r}, which may be several; name one with its region, or give its coordinates:\n"
        f"{_listed(found)}",
    )


def _listed(candidates: Sequence[Candidate]) -> str:
    lines = [f"- {one.place} ({one.place.latitude},{one.place.longitude})" for one in candidates[:_MOST_CANDIDATES]]
    more = len(candidates) - len(lines)
    return "\n".join([*lines, *([f"and {more} more"] if more else [])])
