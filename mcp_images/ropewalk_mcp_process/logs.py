"""One JSON object a line on stderr. Never writes arguments or results of a tool, nor the words of an exception."""

import json
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}
_MOST_PLACES = 12


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC), level, logger, message and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a newline at its end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        line |= {"message": record.getMessage()} | {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info and record.exc_info[1]:
            line |= _told(record.exc_info[1])
        return json.dumps(line, default=str)


def _told(error: BaseException) -> dict[str, object]:
    """Return what an error is and where it came from: its words may quote what a caller or an upstream wrote."""
    while error.__cause__:
        error = error.__cause__
    places = [
        f"{Path(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return {"error": type(error).__name__, "where": places[-_MOST_PLACES:]}


def log_as_json() -> None:
    """Send every logger to stderr; the libraries only from warnings up, for their info lines quote arguments."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ropewalk").setLevel(logging.INFO)
