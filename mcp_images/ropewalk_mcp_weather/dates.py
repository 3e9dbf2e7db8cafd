"""Days that callers name: what is a day, and which of them an answer can cover. Pure."""

from datetime import date, timedelta
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from ropewalk_mcp_common.errors import CodedError

# The first day of the ERA5 reanalysis that Open-Meteo serves.
FIRST_DAY = date(1940, 1, 1)


def _day(value: object) -> object:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("use a day as YYYY-MM-DD, such as 2024-02-29") from None


def day_argument(description: str) -> tuple[BeforeValidator, WithJsonSchema]:
    """Return what makes a text argument a day."""
    schema = {"type": "string", "format": "date", "description": f"{description}, as YYYY-MM-DD"}
    return BeforeValidator(_day), WithJsonSchema(schema)


StartDate = Annotated[date, *day_argument("The first day")]
EndDate = Annotated[date, *day_argument("The last day, which is included")]


def check_range(start: date, end: date, *, first: date, last: date, max_days: int, after: str) -> None:
    """Refuse days that an answer cannot cover; `after` says where to ask for later ones. Raises INVALID_INPUT."""
    if start > end:
        raise CodedError("INVALID_INPUT", f"start_date is {start}, after end_date {end}; give the earlier day first")
    if start < first:
        raise CodedError("INVALID_INPUT", f"start_date is {start}; the first day that is known is {first}")
    if end > last:
        raise CodedError("INVALID_INPUT", f"end_date is {end}; the last day that can be asked for is {last}{after}")
    if (days := (end - start) // timedelta(days=1) + 1) > max_days:
        raise CodedError(
            "INVALID_INPUT",
            f"start_date {start} to end_date {end} are {days} days; ask for at most {max_days} at once",
        )
