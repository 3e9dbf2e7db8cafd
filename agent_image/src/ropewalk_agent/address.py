"""Where the agent listens, as the environment says. Imports nothing: it is needed before anything heavy is."""

from collections.abc import Mapping


class AddressError(ValueError):
    """The environment names no address; `str()` is a sentence that says what to write."""


def listen_address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port; raises AddressError."""
    host = environment.get("ROPEWALK_HOST") or "0.0.0.0"  # noqa: S104 -- a pod is reached by its own address
    port = environment.get("ROPEWALK_PORT") or "8080"
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise AddressError(f"ROPEWALK_PORT is {port!r}; use a whole number from 1 to 65535")
    return host, int(port)
