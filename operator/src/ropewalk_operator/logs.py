"""JSON log lines on stdout: time, level, logger, message and the fields given as `extra={"fields": {...}}`.

Never a secret or prompt.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send every logger to stdout as JSON. The libraries speak only when something is wrong."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ropewalk_operator").setLevel(level.upper())
    # It quotes answers of foreign servers; discovery says in a line what was wrong with them.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    # They show the whole traceback of a failed watch; the operator says the same in one line, and ends.
    for name in ("running", "orchestration"):
        logging.getLogger(f"kopf._core.reactor.{name}").setLevel(logging.CRITICAL)
