"""JSON logs on stdout, one object a line. Never a prompt, an answer, a tool's arguments or a secret.

Libraries may put such content into their own log messages, so of theirs only warnings and worse are written, and of
those only the message's template and the class of the error, not what was filled in. A message that a library put
together by itself (an f-string, or asyncio's about an error that nobody awaited) has no template and is left out.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from types import CodeType
from typing import Any, TextIO

OURS = "ropewalk"

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; fields come from `extra={"fields": {...}}`, and from `context_fields`."""

    def __init__(self, context_fields: Callable[[], dict[str, str]] = dict) -> None:
        """`context_fields` is asked for each line, where the line is logged."""
        super().__init__()
        self._context_fields = context_fields

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without the line's end."""
        ours = record.name.startswith(OURS)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if ours else _template(record),
        }
        line.update(getattr(record, "fields", {}))
        line.update(self._context_fields())
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            # Only where it happened: an exception's text may quote what a client or a model wrote.
            line["where"] = _places(record)
        return _encode(line)


def _template(record: logging.LogRecord) -> str:
    """Return the text as it stands in the library's source code; if it does not, only the place where it was logged."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "logging"):
        frame = frame.f_back
    if record.msg in frame.f_code.co_consts:
        return str(record.msg)
    return f"(left out; see {_place(frame.f_code, frame.f_lineno)})"


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{line} {code.co_name}"


def _places(record: logging.LogRecord) -> list[str]:
    places: list[str] = []
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None:
        places.append(_place(traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return places[-12:]


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes what one round of an event loop logged in one piece; warnings, and lines from elsewhere, at once.

    Each write is a system call that lets go of the interpreter's lock: a line for each turn cost a busy pod a quarter
    of its turns.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._gathered: list[str] = []
        self._planned: set[asyncio.AbstractEventLoop] = set()  # each for itself: the worker's may be held up

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line; the base class holds the handler's lock."""
        try:
            self._gathered.append(self.format(record) + self.terminator)
            if record.levelno < logging.WARNING and self._plan_flush():
                return
            self.flush()
        except Exception:  # as every handler of the standard library: a line that cannot be written ends no request
            self.handleError(record)

    def flush(self) -> None:
        """Write what is gathered; also called when the process ends."""
        with self.lock or nullcontext():
            self._planned.clear()
            gathered, self._gathered = self._gathered, []
            self.stream.write("".join(gathered))
            self.stream.flush()

    def _plan_flush(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs here
            return False
        if loop not in self._planned:
            self._planned.add(loop)
            loop.call_soon(self.flush)
        return True


def configure(level: str, context_fields: Callable[[], dict[str, str]] = dict) -> None:
    """Send every log line to stdout as JSON; `level` is for our own loggers, `context_fields` adds to every line."""
    # No line tells these, and to collect them costs as much as all the rest of a line (logging's documentation,
    # "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = GatheringHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(context_fields))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())
