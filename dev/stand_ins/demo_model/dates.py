"""The days that a text names: 2024-05-01, or May 2024. Pure: it knows no today."""

import re
from calendar import month_name, monthrange
from datetime import date

MONTHS = tuple(name.lower() for name in month_name)[1:]
_DAY = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_MONTH = re.compile(rf"\b({'|'.join(MONTHS)})\s+(\d{{4}})\b", re.IGNORECASE)


def span(text: str) -> tuple[date, date] | None:
    """Return the first and the last day that a text names, None without any."""
    days = []
    for year, month, day in _DAY.findall(text):
        try:
            days.append(date(int(year), int(month), int(day)))
        except ValueError:
            continue
    for name, year in _MONTH.findall(text):
        month = MONTHS.index(name.lower()) + 1
        if int(year):
            days += [date(int(year), month, 1), date(int(year), month, monthrange(int(year), month)[1])]
    return (min(days), max(days)) if days else None
