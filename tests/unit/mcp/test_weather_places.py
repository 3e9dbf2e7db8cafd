"""Which place a name means, decided from what the gazetteer gives."""

import pytest

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_weather.places import Candidate, Place, coordinates, meant


def candidate(name: str, population: int, *areas: str) -> Candidate:
    place = Place(name=name, region=areas[0] if areas else None, latitude=1, longitude=2)
    return Candidate(place, population, tuple(area.casefold() for area in areas))


NEWPORT = candidate("Newport", 9_000, "Oregon", "United States", "US")
NEWPORT_NEWS = candidate("Newport News", 180_000, "Virginia", "United States", "US")


def test_the_same_name_counts_more_than_a_larger_place_that_begins_alike() -> None:
    assert meant("newport", [NEWPORT_NEWS, NEWPORT]) == NEWPORT.place


def test_a_name_in_another_language_is_the_one_place_that_was_found_by_it() -> None:
    munich = candidate("Munich", 1_260_000, "Bavaria", "Germany", "DE")
    assert meant("München", [munich]) == munich.place


def test_ten_times_as_many_people_settle_it_and_nine_do_not() -> None:
    assert meant("Newport", [NEWPORT, candidate("Newport", 90_000, "Wales")]).region == "Wales"
    with pytest.raises(CodedError, match=r"INVALID_INPUT: place is 'Newport', which may be several"):
        meant("Newport", [NEWPORT, candidate("Newport", 81_000, "Wales")])


def test_places_without_a_count_of_people_are_not_guessed_at() -> None:
    with pytest.raises(CodedError, match="which may be several"):
        meant("Newport", [candidate("Newport", 0, "Wales"), candidate("Newport", 0, "Oregon")])


def test_the_list_of_candidates_is_bounded_and_counts_the_rest() -> None:
    with pytest.raises(CodedError) as raised:
        meant("Newport", [candidate("Newport", 1000 + number, f"Region {number}") for number in range(30)])
    assert len(str(raised.value).splitlines()) == 10
    assert str(raised.value).endswith("and 22 more")


@pytest.mark.parametrize("text", ["52.52,13.41", "52.52, 13.41", " +52.52 13.41 ", "52.52;13.41"])
def test_two_numbers_are_coordinates(text: str) -> None:
    found = coordinates(text)
    assert found is not None
    assert (found.latitude, found.longitude) == (52.52, 13.41)


@pytest.mark.parametrize("text", ["Berlin", "10115", "52.52", "1,2,3", "52.52N,13.41E", "1e5,2", "52.,13"])
def test_other_texts_are_names(text: str) -> None:
    assert coordinates(text) is None


@pytest.mark.parametrize("text", ["90.1,0", "0,-180.1", "999,999"])
def test_coordinates_that_are_not_on_earth_are_refused(text: str) -> None:
    with pytest.raises(CodedError, match="give a latitude of -90 to 90 and a longitude of -180 to 180"):
        coordinates(text)
