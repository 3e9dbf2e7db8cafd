"""The base URL of an API, as a setting. Pure."""

import argparse
from urllib.parse import urlsplit


def base_url(text: str) -> str:
    """Return the base URL without a slash at its end; argparse.ArgumentTypeError says what is allowed."""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_one = False
    if not is_one or parts.query or parts.fragment or "@" in parts.netloc or not text.isprintable() or " " in text:
        # A text with an @ may hold a password.
        shown = "a URL with a name or a password" if "@" in text else repr(text[:200])
        raise argparse.ArgumentTypeError(
            f"{shown} is no base URL; use http:// or https://, a host, and a port and path if need be"
        )
    return text.rstrip("/")
