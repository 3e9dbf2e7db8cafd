"""Starts the demo model: `python -m demo_model`."""

import json
import signal
import sys
from datetime import UTC, datetime

import uvicorn

from demo_model.app import WHAT_IT_IS, create_app
from demo_model.settings import InvalidSettings, from_environment


def _log(level: str, message: str, **fields: object) -> None:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": moment, "level": level, "logger": "ropewalk.demo_model", "message": message, **fields}
    print(json.dumps(line), flush=True)


def main() -> None:
    """Read the settings and serve until SIGTERM."""
    try:
        settings = from_environment()
    except InvalidSettings as error:
        _log("error", str(error))
        sys.exit(2)
    # uvicorn raises the signal again once it has shut down; this turns it into exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _log("info", f"serving the {WHAT_IT_IS}", port=settings.port)
    uvicorn.run(
        create_app(settings),
        host="0.0.0.0",  # noqa: S104
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
