"""How long an API server wants to be left alone, by the header Retry-After."""

from __future__ import annotations

from aiohttp import ClientResponse

RETRY_AFTER = "Retry-After"
LONGEST_SECONDS = 60.0


def retry_after_seconds(header: str) -> float:
    """Of the header's value, RFC 9110 section 10.2.3; Kubernetes gives whole seconds, never a date."""
    return min(float(header), LONGEST_SECONDS) if header.isdecimal() else 0.0


def bound(response: ClientResponse) -> None:
    """Make it a number with a bound: kopf would sleep for however long it says, and cannot read a date."""
    headers = response.headers.copy()
    headers[RETRY_AFTER] = f"{retry_after_seconds(headers.get(RETRY_AFTER, '')):.0f}"
    response._headers = type(response.headers)(headers)
    response._cache.pop("headers", None)
