"""What the demo model and the stand-ins are as processes: a port, a line that says what they are, an end at SIGTERM."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette


class InvalidSettings(ValueError):
    """A variable that cannot be used; the message names it."""


def whole_number(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return the number that a variable names; InvalidSettings says what is allowed."""
    text = environment.get(name) or str(default)
    if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
        raise InvalidSettings(f"{name} is {text!r}; use a whole number from 0 to {most}")
    return int(text)


def serve(name: str, what_it_is: str, create_app: Callable[[], Starlette]) -> None:
    """Serve on port 8080, or ROPEWALK_PORT, until SIGTERM; exits with 2 where a setting is wrong."""
    try:
        port = whole_number(os.environ, "ROPEWALK_PORT", 8080, 65535)
        app = create_app()
    except InvalidSettings as error:
        _log("error", name, str(error))
        sys.exit(2)
    # uvicorn raises the signal again once it has shut down; this turns it into exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _log("info", name, f"serving {what_it_is}", port=port)
    uvicorn.run(
        app,
        host="0.0.0.0",  # noqa: S104
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )


def _log(level: str, name: str, message: str, **fields: object) -> None:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": moment, "level": level, "logger": f"ropewalk.{name}", "message": message, **fields}
    print(json.dumps(line), flush=True)
