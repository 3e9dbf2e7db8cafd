"""Starts the stand-in: `python -m open_meteo_stand_in`, on port 8080 or ROPEWALK_PORT."""

import os
import signal
import sys

import uvicorn

from open_meteo_stand_in.app import create_app


def main() -> None:
    """Serve until SIGTERM."""
    port = os.environ.get("ROPEWALK_PORT", "8080")
    if not port.isdecimal() or int(port) > 65535:
        sys.exit(f"ROPEWALK_PORT is {port!r}; use a whole number from 0 to 65535")
    # uvicorn raises the signal again once it has shut down; this turns it into exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(create_app(), host="0.0.0.0", port=int(port), access_log=False, timeout_graceful_shutdown=5)  # noqa: S104


if __name__ == "__main__":
    main()
