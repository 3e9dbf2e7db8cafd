"""JSON logs on stdout, one object a line. Never a prompt, an answer, a tool's arguments or a secret.

Libraries may put such content into their own log messages, so of theirs only warnings and worse are written, and of
those only the message's template and the class of the error, not what was filled in.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

OURS = "ropewalk"


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; fields come from `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without the line's end."""
        ours = record.name.startswith(OURS)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if ours else str(record.msg),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            if ours:
                # Only where it happened: an exception's text may quote what a client or a model wrote.
                line["where"] = _places(record)
        return json.dumps(line, ensure_ascii=False, default=str)


def _places(record: logging.LogRecord) -> list[str]:
    places: list[str] = []
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-12:]


def configure(level: str) -> None:
    """Send every log line to stdout as JSON; `level` is for our own loggers."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())
